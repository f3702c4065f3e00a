"""Confidence of depth from motion: high only for a camera that travels."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from secondeye.cli import app
from secondeye.depth.camera_motion import detail, fit_camera_motion, moves_against, parallax, still_share
from secondeye.depth.estimators import make_depth_estimator
from secondeye.depth.position_prior import position_prior
from secondeye.synthetic import render_shot
from secondeye.synthetic.scene import Camera, Scene
from secondeye.video.write import write_film

pytestmark = pytest.mark.usefixtures("one_thread")
HEIGHT, WIDTH, FRAMES = 96, 160, 14
Picture = Callable[[int], np.ndarray]  # frame number -> [H, W, 3] in [0, 1]
STANDING = 0.35  # the largest confidence of a standing camera


def texture(height: int, width: int, seed: int) -> np.ndarray:  # [height, width, 3] in [0, 1]
    noise = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    coarse = cv2.GaussianBlur(noise, (0, 0), 6) - 0.5
    return np.clip(0.5 + 4 * coarse + 2 * (cv2.GaussianBlur(noise, (0, 0), 2) - 0.5), 0, 1)


def person(number: int) -> np.ndarray:
    """A card that crosses a picture that stands still."""
    image = texture(HEIGHT, WIDTH, 1)
    left = 20 + 4 * number
    image[20:90, left : left + 30] = texture(70, 30, 2)
    return image


def shadow(number: int) -> np.ndarray:
    """Two soft shadows that cross a picture that stands still."""
    shade = np.zeros((HEIGHT, WIDTH), np.float32)
    shade[10:60, 10 + 3 * number : 50 + 3 * number] = 1
    shade[50:90, 120 - 4 * number : 150 - 4 * number] = 1
    return texture(HEIGHT, WIDTH, 1) * (1 - 0.5 * cv2.GaussianBlur(shade, (0, 0), 2)[..., None])


def tracking(far_px: float, near_px: float) -> Picture:
    """Three layers, lower is nearer; the middle one stays where it is."""
    speeds = np.repeat(np.array([far_px, 0, near_px], np.float32), HEIGHT // 3)[:, None]
    rows, columns = np.indices((HEIGHT, WIDTH), dtype=np.float32)
    image = texture(HEIGHT, 3 * WIDTH, 3)
    return lambda number: cv2.remap(image, columns + WIDTH + speeds * number, rows, cv2.INTER_LINEAR)


def estimate(picture: Picture) -> tuple[Tensor, list[float]]:  # [T, 1, H, W], confidence of each frame
    frames = torch.from_numpy(np.stack([picture(n) for n in range(FRAMES)]).transpose(0, 3, 1, 2).copy())
    estimates = list(make_depth_estimator("motion", None, "cpu")(frames.split(5)))
    return torch.cat([e.depth for e in estimates]), [e.confidence for e in estimates]


@pytest.mark.parametrize("picture", [person, shadow])
def test_a_standing_camera_is_recognised_whatever_moves_before_it(picture: Picture) -> None:
    _, confidence = estimate(picture)
    assert max(confidence) <= STANDING


def test_shadows_do_not_change_depth() -> None:
    depth, _ = estimate(shadow)
    still, _ = estimate(lambda number: shadow(FRAMES // 2))
    shaded, steady = (plane[FRAMES // 2, 0].numpy().ravel() for plane in (depth, still))
    assert np.corrcoef(shaded, steady)[0, 1] > 0.95
    prior = position_prior(np.ascontiguousarray(shadow(FRAMES // 2)))
    assert np.corrcoef(shaded, prior.ravel())[0, 1] > 0.8


@pytest.mark.parametrize(("far_px", "near_px"), [(-2, 2), (3, -1)])
def test_depth_has_a_sign_when_the_middle_distance_stays_in_place(far_px: float, near_px: float) -> None:
    depth, confidence = estimate(tracking(far_px, near_px))
    far, middle, near = depth[2:].mean((0, 1, 3)).view(3, -1).mean(1)
    assert far + 0.1 < middle < near - 0.1
    assert min(confidence) > STANDING


def rigid_flow(travel: np.ndarray, rotation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flow [h, w, 2] px of a ground and a disc, seen by a moving camera, and their inverse depth."""
    height, width = 216, 384
    rows, columns = np.indices((height, width))
    x, y = (columns - (width - 1) / 2) / width, (rows - (height - 1) / 2) / width
    nearness = 0.2 + np.maximum(y, 0) * 2 + 0.5 * (np.hypot(x - 0.2, y) < 0.1)
    a, b, c = rotation
    turned = np.stack([x * y * a - (1 + x * x) * b + y * c, (1 + y * y) * a - x * y * b - x * c], -1)
    moved = nearness[..., None] * (np.stack([x, y], -1) * travel[2] - travel[:2])
    return ((turned + moved) * width).astype(np.float32), nearness


@pytest.mark.parametrize("travel", [(0.1, 0.02, 1.0), (1.0, 0.0, 0.1), (0.3, 0.8, -0.5)])
def test_camera_motion_is_found_despite_something_that_moves_by_itself(travel: tuple[float, ...]) -> None:
    true_travel = np.array(travel) / np.linalg.norm(travel)
    flow, nearness = rigid_flow(0.1 * true_travel, np.array([0.01, -0.02, 0.005]))
    flow[:60, :60] = 6, -3
    found = fit_camera_motion(flow, np.ones(flow.shape[:2], np.float32))
    assert abs(found.travel @ true_travel) > 0.97
    assert np.abs(found.rotation - [0.01, -0.02, 0.005]).max() < 0.01
    if abs(true_travel[2]) < 0.5:
        along = parallax(flow, *found) * np.sign(found.travel @ true_travel)
        assert np.corrcoef(along[60:].ravel(), nearness[60:].ravel())[0, 1] > 0.9


def test_what_stays_is_compared_without_brightness_and_only_where_there_is_texture() -> None:
    gray, other, flat = (
        (texture(HEIGHT, WIDTH, seed)[..., 0] * level).astype(np.uint8)
        for seed, level in ((1, 200), (2, 200), (1, 0))
    )
    here = detail(gray)
    assert still_share(here, here) == 1 and still_share(here, detail(gray // 2)) > 0.9
    assert still_share(here, detail(other)) < 0.3
    assert still_share(detail(flat), here) == 1


def test_motion_against_the_rest_is_counted_on_both_sides() -> None:
    flow = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    flow[: HEIGHT // 3, :, 1], flow[HEIGHT // 3 :, :, 1] = 3, -2
    everywhere = np.ones((HEIGHT, WIDTH), bool)
    assert moves_against(flow, everywhere, 1.0) == pytest.approx(1 / 3, abs=0.05)
    assert moves_against(abs(flow), everywhere, 1.0) == moves_against(flow, ~everywhere, 1.0) == 0


def forward(scene: Scene) -> Scene:
    near = min(body.centre[2] for body in scene.bodies if not body.infinite)
    camera = replace(
        scene.camera, travel=np.array([0, 0, 0.5]) * near, swing=0.0, tilt=0.0, rate=0.8, phase=-0.2
    )
    return replace(scene, camera=camera, bodies=[replace(b, rate=0.0) for b in scene.bodies])


def test_rendered_shots_can_be_edited() -> None:
    still = render_shot(4, 2, 24, 32, edit=lambda scene: replace(forward(scene), camera=still_camera(scene)))
    assert torch.equal(still.disparity[0], still.disparity[1])
    moved = render_shot(4, 2, 24, 32, edit=forward)
    assert not torch.equal(moved.disparity[0], moved.disparity[1])


def still_camera(scene: Scene) -> Camera:
    hold = np.concatenate([np.zeros((1, 4)), scene.camera.hand[1:]])
    return replace(scene.camera, travel=np.zeros(3), swing=0.0, tilt=0.0, hand=hold)


@pytest.mark.slow(seconds=20)
@pytest.mark.parametrize("size", [(108, 192), (216, 384)])
def test_driving_forward_is_depth_or_has_low_confidence(size: tuple[int, int]) -> None:
    """In a small film of this scene the flow is too short to tell: depth is inverted, at 0.4."""
    shot = render_shot(4_202, FRAMES, *size, edit=forward)
    estimates = list(make_depth_estimator("motion", None, "cpu")([shot.left]))
    depth = torch.cat([e.depth for e in estimates])
    ranks = [plane[-1].flatten().argsort().argsort().float() for plane in (depth, shot.disparity)]
    correlation = float(torch.corrcoef(torch.stack(ranks))[0, 1])
    if size == (216, 384):
        assert correlation > 0.5
    assert correlation > 0.3 or estimates[-1].confidence < 0.45


def test_a_conversion_is_weaker_if_people_walk_before_a_standing_camera(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    write_film(film, ((person(n) * 255).astype(np.uint8) for n in range(FRAMES)), Fraction(25))
    command = [
        "convert",
        str(film),
        "--output",
        str(tmp_path / "out.mp4"),
        "--depth",
        "motion",
        "--inpainter",
        "fill",
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    line = next(line for line in result.output.splitlines() if "depth confidence" in line)
    assert float(line.split("depth confidence ")[1].split(",")[0]) <= STANDING
