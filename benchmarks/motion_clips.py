"""Clips with known disparity for `motion_confidence.py`: real stereo films, moved stills, rendered scenes.

The half of a clip follows from its source, so that no film, still or scene is in both. Films and stills were
assigned before anything was measured; rendered scenes with an even seed are for tuning.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from aligned_views import align_views
from numpy.random import Generator
from torch import Tensor

from secondeye.film.packing import crop_and_resize, unpack
from secondeye.imaging.arrays import frames_from_uint8, frames_to_uint8
from secondeye.matching import make_matcher
from secondeye.matching.consistency import fill_from_background, match_both_ways
from secondeye.report.contact_sheet import read_image
from secondeye.synthetic import render_shot, silhouettes
from secondeye.synthetic.scene import Body, Scene
from secondeye.training.monocular import fill_shot
from secondeye.video.read import decode_film
from secondeye.warp import warp

WIDTH, FRAMES, EVERY = 384, 33, 8  # disparity is known of every eighth frame
MAX_DISPARITY_SHARE = 0.2  # of the width
GRAIN = 1.5  # levels
TUNING = ("candle", "motorcycle")  # the other films and stills are held out
SEEDS = range(4_200, 4_206)  # of rendered scenes; no preset uses them


class Clip(NamedTuple):
    """A few frames with the disparity of some of them."""

    source: str  # film, still or seed
    kind: str  # what camera and things do
    tuning: bool
    frames: Tensor  # uint8 [T, H, W, 3]
    disparity: Tensor  # [t, 1, H, W] px, of every eighth frame
    known: Tensor  # bool [t, 1, H, W]


class Still(NamedTuple):
    """A picture with a dense disparity."""

    source: str
    image: np.ndarray  # uint8 [H, W, 3]
    disparity: np.ndarray  # [H, W] px, filled where unknown
    known: np.ndarray  # bool [H, W]


def all_clips(footage: Path) -> Iterator[Clip]:
    """Yield every clip; the same for every call."""
    yield from real_clips(footage)
    for number, still in enumerate(stills(footage)):
        for kind, move in MOVES.items():
            yield from move(still, kind, np.random.default_rng(number))
    for kind, edit in EDITS.items():
        for seed in SEEDS:
            yield rendered(kind, edit, seed)


# ---- real stereo films


def real_clips(footage: Path) -> Iterator[Clip]:
    """Yield pieces of the stereo films, and the street also backwards."""
    for source, film in (("candle", CANDLE), ("toon", TOON)):
        pairs = [unpack(frame.rgb, "sbs") for frame in decode_film(footage / film)]
        for start in range(0, len(pairs) - 24, PIECE_STEP):
            kind = {"candle": "real, standing, a man", "toon": "drawn, standing, a figure"}[source]
            yield matched(source, kind, pairs[start : start + FRAMES])
    street = list(kitti_pairs(footage))
    yield matched("kitti", "real, forward", street)
    yield matched("kitti", "real, backward", street[::-1])


PIECE_STEP = 66  # frames from one piece of a film to the next
CANDLE, TOON = "sv_candle_ego/candle_ego_sbs_2560x720.mp4", "sv_toon_shot/shot_sbs.mp4"


def kitti_pairs(footage: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield both views of a street, uint8 [H, W, 3]."""
    eyes = [sorted((footage / "sq_kitti1" / name).glob("*.png")) for name in ("image_l", "image_r")]
    for left, right in zip(*eyes, strict=True):
        yield read_image(left), read_image(right)


def matched(source: str, kind: str, pairs: list[tuple[np.ndarray, np.ndarray]]) -> Clip:
    """Return a clip whose disparity is matched."""
    left, right = (small_frames([pair[eye] for pair in pairs]) for eye in (0, 1))
    near, far = align_views(left, right, EVERY)
    matcher = make_matcher("block", round(MAX_DISPARITY_SHARE * WIDTH))
    disparity, known = match_both_ways(matcher, near[::EVERY], far[::EVERY], tolerance_px=1.0)
    return Clip(source, kind, source in TUNING, frames_to_uint8(near), disparity, known)


def small_frames(images: list[np.ndarray]) -> Tensor:  # uint8 [H, W, 3] each -> [T, 3, h, w]
    """Reduce images to the working width."""
    height = round(WIDTH * images[0].shape[0] / images[0].shape[1])
    fitted = [crop_and_resize(image, height, WIDTH, Fraction(1)) for image in images]
    return frames_from_uint8(torch.from_numpy(np.stack(fitted)))


# ---- stills, moved


def stills(footage: Path) -> Iterator[Still]:
    """Yield pictures with the disparity that the matcher finds."""
    film = (unpack(next(islice(decode_film(footage / f), 20, None)).rgb, "sbs") for f in (CANDLE, TOON))
    pairs = {
        "motorcycle": still_pair(footage / "pair_motorcycle"),
        "candle": next(film),
        "toon": next(film),
        "cones": still_pair(footage / "pair_cones", "im2", "im6"),
        "creste": still_pair(footage / "pair_creste"),
        "kitti": next(kitti_pairs(footage)),
    }
    for source, pair in pairs.items():
        clip = matched(source, "still", [pair])
        dense = fill_from_background(clip.disparity, clip.known)[0, 0].numpy()
        smooth = cv2.medianBlur(dense, 5)
        yield Still(source, clip.frames[0].numpy(), smooth, clip.known[0, 0].numpy())


def still_pair(folder: Path, left: str = "left", right: str = "right") -> tuple[np.ndarray, np.ndarray]:
    """Read both views, uint8 [H, W, 3]."""
    return read_image(folder / f"{left}.png"), read_image(folder / f"{right}.png")


Move = Callable[[Still, str, Generator], Iterator[Clip]]


def stand(still: Still, kind: str, rng: Generator) -> Iterator[Clip]:
    """Yield the still as a film with grain."""
    yield moved(still, kind, [still.image] * FRAMES, rng)


def turn(still: Still, kind: str, rng: Generator) -> Iterator[Clip]:
    """Yield a pan: a rotation of the camera that shows a part of the still."""
    height, width = still.disparity.shape
    camera = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]])
    zoom = np.diag([1.3, 1.3, 1.0])
    zoom[:2, 2] = -0.15 * width, -0.15 * height
    planes = []
    for time in np.linspace(-1, 1, FRAMES):
        yaw, pitch, roll = np.radians([5.0, 1.0, 1.0]) * time
        rotation, _ = cv2.Rodrigues(np.array([pitch, yaw, roll]))
        view = zoom @ camera @ rotation @ np.linalg.inv(camera)
        look = (still.image, still.disparity, still.known.astype(np.float32))
        planes.append([cv2.warpPerspective(plane, view, (width, height)) for plane in look])
    images, disparity, known = zip(*planes, strict=True)
    yield moved(still, kind, list(images), rng, np.stack(disparity), np.stack(known) > 0.99)


def travel(still: Still, kind: str, rng: Generator) -> Iterator[Clip]:
    """Yield a camera that travels sideways and pans against it, so that the middle distance stays."""
    image = frames_from_uint8(torch.from_numpy(still.image)[None])
    plane = torch.from_numpy(still.disparity)[None, None]
    low, high = np.percentile(still.disparity, [2, 98])
    relative = (plane - float((low + high) / 2)) / float(max(high - low, 1e-6))
    reach_px = 0.5 * FRAMES  # of the nearest relative to the farthest, in half the clip
    frames, disparity, known = [], [], []
    for time in np.linspace(-1, 1, FRAMES):
        amount = reach_px * float(time)
        flip = (-1,) if amount < 0 else ()  # the mirrored camera sees the same surfaces in front
        arguments = (image.flip(flip), (relative * abs(amount)).flip(flip))
        seen = warp(*arguments)
        filled, surface = fill_shot(*seen)
        frames.append(frames_to_uint8(filled.flip(flip))[0].numpy())
        disparity.append((surface / max(abs(amount), 1e-6)).flip(flip)[0, 0].numpy())
        known.append((seen.coverage > 0.99).flip(flip)[0, 0].numpy())
    middle = FRAMES // 2
    disparity[middle] = relative[0, 0].numpy()
    yield moved(still, kind, frames, rng, np.stack(disparity), np.stack(known))


def shade(still: Still, kind: str, rng: Generator) -> Iterator[Clip]:
    """Yield shadows that move over the still."""
    height, width = still.disparity.shape
    shapes = [shape_mask(rng, silhouettes.blob, int(0.5 * height)) for _ in range(4)]
    starts, speeds = rng.uniform(0, 1, (4, 2)) * [width, height], rng.uniform(-3, 3, (4, 2))
    images = []
    for time in range(FRAMES):
        shadow = np.zeros((height, width), np.float32)
        for shape, start, speed in zip(shapes, starts, speeds, strict=True):
            shadow = np.maximum(shadow, placed(shape, start + time * speed, height, width))
        soft = cv2.GaussianBlur(shadow, (0, 0), 2)
        images.append((still.image * (1 - 0.5 * soft[..., None])).astype(np.uint8))
    yield moved(still, kind, images, rng)


def walk(still: Still, kind: str, rng: Generator) -> Iterator[Clip]:
    """Yield people who walk through the still, nearer than most of it."""
    height, width = still.disparity.shape
    images = [still.image.copy() for _ in range(FRAMES)]
    disparity = np.repeat(still.disparity[None], FRAMES, 0)
    known = np.repeat(still.known[None], FRAMES, 0)
    for near in (60, 90):  # percentile of the disparity
        size = int(rng.uniform(0.5, 0.8) * height)
        shape = shape_mask(rng, silhouettes.person, size)
        noise = rng.uniform(0, 255, (size // 6 + 2, size // 6 + 2, 3)).astype(np.float32)
        cloth = cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
        start = np.array([rng.uniform(0.2, 0.8) * width, height - 0.45 * size])
        speed = np.array([rng.choice([-1, 1]) * rng.uniform(1.5, 3), 0])
        for time in range(FRAMES):
            at = start + time * speed
            mask = placed(shape, at, height, width)[..., None]
            texture = placed(cloth, at, height, width)
            images[time] = (images[time] * (1 - mask) + texture * mask).clip(0, 255).astype(np.uint8)
            inside = mask[..., 0] > 0.5
            disparity[time][inside] = np.percentile(still.disparity, near)
            known[time] |= inside
    yield moved(still, kind, images, rng, disparity, known)


MOVES: dict[str, Move] = {
    "still": stand,
    "moved still, pan": turn,
    "moved still, travel": travel,
    "still, shadows": shade,
    "still, people": walk,
}


def shape_mask(
    rng: Generator, draw: Callable[[Generator, np.ndarray], None], size: int
) -> np.ndarray:  # [size, size] in [0, 1]
    """Return a silhouette."""
    return silhouettes.draw_silhouette(rng, draw, size)[..., 0]


def placed(picture: np.ndarray, centre: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the picture on an empty frame, its centre at (x, y) px."""
    shift = np.eye(2, 3)
    shift[:, 2] = centre - np.array(picture.shape[1::-1]) / 2
    return cv2.warpAffine(picture, shift, (width, height))


def moved(
    still: Still,
    kind: str,
    images: list[np.ndarray],  # uint8 [H, W, 3] each
    rng: Generator,
    disparity: np.ndarray | None = None,  # [T, H, W] px; None: the still's
    known: np.ndarray | None = None,  # bool [T, H, W]
) -> Clip:
    """Return the clip, with grain."""
    grainy = [np.clip(i + rng.normal(0, GRAIN, i.shape), 0, 255).astype(np.uint8) for i in images]
    if disparity is None or known is None:
        disparity = np.repeat(still.disparity[None], FRAMES, 0)
        known = np.repeat(still.known[None], FRAMES, 0)
    planes = (torch.from_numpy(plane[::EVERY])[:, None] for plane in (disparity, known))
    return Clip(still.source, kind, still.source in TUNING, torch.from_numpy(np.stack(grainy)), *planes)


# ---- rendered scenes

Edit = Callable[[Scene, Generator], Scene]


def rendered(kind: str, edit: Edit, seed: int) -> Clip:
    """Return a rendered shot."""
    height = round(WIDTH * 9 / 16)
    rng = np.random.default_rng(seed)
    shot = render_shot(seed, FRAMES, height, WIDTH, edit=lambda scene: edit(scene, rng))
    disparity = shot.disparity[::EVERY]
    known = torch.ones_like(disparity, dtype=torch.bool)
    return Clip(f"scene {seed}", kind, seed % 2 == 0, frames_to_uint8(shot.left), disparity, known)


def with_camera(
    scene: Scene, *, travel: tuple[float, float, float] = (0, 0, 0), swing: float = 0.0, hand: float = 0.0
) -> Scene:
    """Return the scene without moving bodies; travel is in units of the nearest distance."""
    near = min(body.centre[2] for body in scene.bodies if body.centre[2] > 0.5 and not body.infinite)
    shake = hand * np.array([[0.01 * near, 0.01 * near, 0.008, 0.006]])
    camera = replace(
        scene.camera,
        travel=np.array(travel) * near,
        swing=swing,
        tilt=0.2 * swing,
        rate=2 * np.pi / 8,
        phase=-0.5,
        hand=np.concatenate([shake, scene.camera.hand[1:]]),
    )
    bodies = [replace(body, sway=np.zeros(3), rate=0.0) for body in scene.bodies]
    return replace(scene, camera=camera, bodies=bodies)


def with_people(scene: Scene, rng: Generator) -> Scene:
    """Add people who walk across."""
    people = []
    for _ in range(3):
        z = rng.uniform(2, 6)
        reach = z * 0.5 / scene.camera.focal
        half = np.array([0.5, 0.5, 1.0]) * reach * rng.uniform(0.5, 0.9)
        normal, offset = scene.shadow_plane
        bottom = offset if normal[1] else 0.6 * reach
        people.append(
            Body(
                centre=np.array([rng.uniform(-0.7, 0.7) * reach, bottom - half[1], z]),
                axes=np.diag([half[0], half[1], 1.0]),
                texture=int(rng.integers(14)),
                silhouette=PERSON,
                casts_shadow=True,
                sway=np.array([reach * rng.uniform(0.3, 0.8) * rng.choice([-1, 1]), 0, 0]),
                rate=2 * np.pi / 5,
                phase=rng.uniform(-0.6, 0.0),
            )
        )
    return replace(scene, bodies=scene.bodies + people)


PERSON = silhouettes.STANDING.index(silhouettes.person)


def with_shadows(scene: Scene, rng: Generator) -> Scene:
    """Add bodies far outside of the frame whose shadows move through it."""
    normal, offset = scene.shadow_plane
    half_width = 0.5 / scene.camera.focal
    casters = []
    for _ in range(6):
        z = rng.uniform(2, 8)
        at = np.array([rng.uniform(-1, 1) * half_width * z, offset, z])
        if not normal[1]:
            at = np.array([*(rng.uniform(-1, 1, 2) * half_width * offset), offset])
        size = rng.uniform(0.2, 0.4) * at[2] * half_width
        casters.append(
            Body(
                centre=at - 200 * scene.light,
                axes=np.diag([size, size, 1.0]),
                texture=0,
                silhouette=int(rng.integers(len(silhouettes.STANDING))),
                casts_shadow=True,
                sway=np.array([rng.choice([-1, 1]) * at[2] * half_width * 0.6, 0, 0]),
                rate=2 * np.pi / 5,
                phase=rng.uniform(-0.6, 0.0),
            )
        )
    return replace(scene, bodies=scene.bodies + casters)


EDITS: dict[str, Edit] = {
    "rendered, travel": lambda scene, rng: with_camera(scene, travel=(0.4, 0, 0)),
    "rendered, forward": lambda scene, rng: with_camera(scene, travel=(0, 0, 0.6), hand=0.1),
    "rendered, pan": lambda scene, rng: with_camera(scene, swing=0.25),
    "rendered, people": lambda scene, rng: with_people(with_camera(scene), rng),
    "rendered, shadows": lambda scene, rng: with_shadows(with_camera(scene), rng),
    "rendered, anything": lambda scene, rng: scene,
}
