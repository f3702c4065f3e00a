import math

import pytest
import torch
from conftest import coarse_cards
from torch import Tensor

from secondeye.alignment.correspondences import find_correspondences
from secondeye.alignment.disparity_range import DisparityRange, disparity_range
from secondeye.alignment.vertical import filter_by_row
from secondeye.dataset.corrections import apply_shift, apply_vertical
from secondeye.synthetic import Shot
from secondeye.synthetic.render import render_shot


def find_shift(left: Tensor, right: Tensor) -> DisparityRange:
    """Find the shift that brings the far end to 0, as the stage `shift` does."""
    matches = find_correspondences(left, right, max_disparity_percent=25.0, max_vertical_percent=3.0)
    return disparity_range(filter_by_row(matches, *left.shape[-2:]), margin_px=0)


@pytest.mark.parametrize("offset_px", [-40, -12, 0, 9, 31])
def test_a_known_shift_is_found_to_a_pixel(offset_px: int) -> None:
    shot = coarse_cards(frames=3, height=128, width=256, near_px=16, far_px=4, card_px=80, seed=3)
    # Roll the right view left by the offset: every disparity grows by it.
    right = torch.roll(shot.right, -offset_px, dims=-1)
    found = find_shift(shot.left, right)
    assert abs(found.shift_px - (4 + offset_px)) <= 1
    assert found.near_px == pytest.approx(12, abs=1.5)
    assert found.match_ratio > 0.5
    left, moved = apply_shift(shot.left, right, found.shift_px)
    again = find_shift(left, moved)
    assert abs(again.shift_px) <= 1


GRID = [(0, 0, 1.0), (80, 8, 1.15), (-80, -8, 0.85), (37, -5, 0.9), (-13, 3, 1.1), (0, 8, 1.0), (80, 0, 0.8)]


def error_px(shot: Shot, offset_px: int, down_px: int, cast: float) -> float:
    """Return the error of the shift after offsetting and tinting the right view."""
    exact = math.floor(torch.quantile(shot.disparity[..., ::2, ::2], 0.01))
    colours = torch.tensor([cast, 1.0, 1 / cast]).view(3, 1, 1)
    left, right = apply_vertical(shot.left, shot.right, -down_px)
    right = (torch.roll(right, -offset_px, dims=-1) * colours + 0.03).clamp(0, 1)
    return find_shift(left, right).shift_px - (exact + offset_px)


@pytest.mark.parametrize(("offset_px", "down_px", "cast"), GRID)
def test_shift_is_robust_to_vertical_offset_and_tint(offset_px: int, down_px: int, cast: float) -> None:
    shot = coarse_cards(frames=1, height=256, width=1280, near_px=64, far_px=12, card_px=320, seed=4)
    assert abs(error_px(shot, offset_px, down_px, cast)) <= 1


@pytest.mark.slow(seconds=5)
def test_shift_is_robust_in_a_rendered_scene() -> None:
    shot = render_shot(12, 1, 360, 1280)  # textured up to the far end
    assert max(abs(error_px(shot, *case)) for case in GRID) <= 1


def noise(shape: torch.Size, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def small() -> Shot:
    return render_shot(3, 3, 256, 448)


def test_shift_is_robust_to_independent_noise() -> None:
    shot = small()
    calm = find_shift(shot.left, shot.right)
    left, right = (
        (eye + 8 / 255 * noise(eye.shape, seed)).clamp(0, 1)
        for seed, eye in enumerate((shot.left, shot.right))
    )
    assert abs(find_shift(left, right).shift_px - calm.shift_px) <= 1


@pytest.mark.parametrize("grain", [1, 4])
def test_water_does_not_change_the_shift(grain: int) -> None:
    shot = small()
    dry = find_shift(shot.left[..., :171, :], shot.right[..., :171, :])
    eyes = []
    for seed, eye in enumerate((shot.left, shot.right)):
        waves = noise(torch.Size([3, 1, 88 // grain, 448 // grain]), seed).mul(0.15).add(0.4).clamp(0, 1)
        waves = torch.nn.functional.interpolate(waves, scale_factor=float(grain), mode="bilinear")
        eyes.append(torch.cat([eye[..., :171, :], waves[..., :85, :].expand(3, 3, -1, -1)], dim=-2))
    assert abs(find_shift(eyes[0], eyes[1]).shift_px - dry.shift_px) <= 1


def test_sky_and_repetitive_walls_do_not_change_the_shift() -> None:
    shot = coarse_cards(frames=2, height=192, width=384, near_px=16, far_px=4, card_px=120, seed=5)
    stripes = (torch.arange(384) // 6 % 2).float()
    sky = torch.linspace(0.5, 0.9, 32)[:, None].expand(32, 384)

    def with_sky_and_wall(eye: Tensor, moved_px: int) -> Tensor:
        eye = eye.clone()
        eye[..., :32, :] = sky
        eye[..., 150:, :] = stripes.roll(-moved_px)
        return eye

    # The wall repeats every 12 px, so it also matches at negative disparities.
    found = find_shift(with_sky_and_wall(shot.left, 0), with_sky_and_wall(shot.right, 4))
    assert abs(found.shift_px - 4) <= 1


def test_unrelated_views_have_no_support() -> None:
    left, right = torch.rand(2, 2, 3, 96, 160, generator=torch.Generator().manual_seed(0))
    assert find_shift(left, right).match_ratio < 0.1
    one, other = (render_shot(seed, 1, 256, 448).left for seed in (3, 4))
    assert find_shift(one, other).match_ratio < 0.1


def test_blank_views_have_no_support() -> None:
    blank = torch.full((2, 3, 64, 96), 0.5)
    assert find_shift(blank, blank).match_ratio < 0.1
    assert find_shift(blank[..., :9, :17], blank[..., :9, :17]).match_ratio == 0


def test_shift_is_identical_for_any_number_of_threads() -> None:
    import cv2

    shot, before = small(), cv2.getNumThreads()
    found = []
    for threads in (1, 2):
        cv2.setNumThreads(threads)
        found.append(find_shift(shot.left, shot.right))
    cv2.setNumThreads(before)
    assert found[0] == found[1]
