"""Stereo alignment: vertical error, colour, view order, sync."""

import cv2
import numpy as np
import pytest
import torch
from conftest import coarse_cards
from torch import Tensor

from secondeye.alignment.colour import fit_colours
from secondeye.alignment.correspondences import Correspondences, find_correspondences
from secondeye.alignment.order_cues import OrderCues, judge_order, order_cues
from secondeye.alignment.sync import find_lag
from secondeye.alignment.vertical import filter_by_row, fit_vertical
from secondeye.synthetic import Shot, two_planes
from secondeye.synthetic.render import render_shot

SEARCH = {"max_disparity_percent": 25.0, "max_vertical_percent": 6.0}


@pytest.fixture(scope="module")
def shot() -> Shot:
    return render_shot(12, 2, 192, 336)


def points(count: int = 400, seed: int = 0) -> Correspondences:
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, 400, count), rng.uniform(0, 200, count)
    return Correspondences(
        np.zeros(count, int), x, y, rng.uniform(0, 20, count), rng.normal(0, 0.1, count), count
    )


def test_correspondences_match_the_exact_disparity(shot: Shot) -> None:
    found = find_correspondences(shot.left, shot.right, **SEARCH)
    exact = shot.disparity[found.frame, 0, found.y.round().astype(int), found.x.round().astype(int)].numpy()
    assert found.match_ratio > 0.5 and len(found.x) > 200
    error = np.abs(found.disparity - exact)
    assert np.median(error) < 0.35 and np.mean(error < 1) > 0.8
    assert np.median(np.abs(found.vertical)) < 0.15


def test_vertical_fit_tolerates_outliers() -> None:
    good = points()
    wrong = good.vertical.copy()
    wrong[::4] += 9
    rows = fit_vertical(good._replace(vertical=wrong + 2.3), 200, 400)
    assert rows.vertical_px == pytest.approx(2.3, abs=0.1) and rows.spread_px < 0.3
    inliers = filter_by_row(good._replace(vertical=wrong + 2.3), 200, 400)
    assert len(inliers.x) == 300 and inliers.candidates == 400


def test_vertical_spread_of_a_rotated_view() -> None:
    good = points()
    turned = good.vertical + np.deg2rad(1) * (good.x - 200)
    assert fit_vertical(good._replace(vertical=turned), 200, 400).spread_px == pytest.approx(7, abs=0.5)


@pytest.mark.parametrize("degrees", [0.0, 1.5])
def test_vertical_spread_of_a_rotated_image(shot: Shot, degrees: float) -> None:
    turn = cv2.getRotationMatrix2D((168, 96), degrees, 1)
    turned = [cv2.warpAffine(p, turn, (336, 192)) for p in shot.right.permute(0, 2, 3, 1).numpy()]
    right = torch.from_numpy(np.stack(turned)).permute(0, 3, 1, 2)
    spread = fit_vertical(find_correspondences(shot.left, right, **SEARCH), 192, 336).spread_px
    assert spread == pytest.approx(336 * np.sin(np.deg2rad(degrees)), abs=1.0)


def test_a_tint_is_fitted_and_matching_colours_are_unchanged(shot: Shot) -> None:
    matches = find_correspondences(shot.left, shot.right, **SEARCH)
    colours = fit_colours(shot.left, shot.right, matches)
    assert colours.gain == (1, 1, 1) and colours.offset == (0, 0, 0) and colours.difference < 4
    gain, offset = torch.tensor([0.8, 0.9, 0.7]), torch.tensor([0.02, 0.05, 0.1])
    tinted = shot.right * gain.view(3, 1, 1) + offset.view(3, 1, 1)
    found = fit_colours(shot.left, tinted, matches)
    assert np.allclose(found.gain, 1 / gain, atol=0.05)
    assert np.allclose(found.offset, -offset / gain, atol=0.02)
    assert found.difference < 4
    negative = fit_colours(shot.left, 1 - shot.right, matches)
    assert negative.difference > 20, "no positive gain matches a negative"


def test_view_order_evidence_has_the_correct_sign() -> None:
    cards = coarse_cards(frames=3, height=128, width=256, near_px=16, far_px=4, card_px=80, seed=3)
    dark = torch.tensor([0.2, 0.5, 1.0]).view(3, 1, 1)
    left = torch.where(cards.disparity > 8, cards.left, cards.left * dark)
    right = torch.where(cards.right_disparity > 8, cards.right, cards.right * dark)
    found = order_cues(left, right, (left, right), far_px=4, near_px=16)
    assert found.strips > 0.2 and found.uncovered == 0, "nothing moves"
    assert found.screen == 1, "16 px of 256 are in front of the screen"
    back = order_cues(right, left, (right, left), far_px=-16, near_px=-4)
    assert back == tuple(-value for value in found), "antisymmetric"
    rendered = render_shot(3, 1, 192, 336)
    far, near = (float(torch.quantile(rendered.disparity, share)) for share in (0.01, 0.99))
    still = rendered.left[:0], rendered.right[:0]
    assert order_cues(rendered.left, rendered.right, still, far_px=far, near_px=near).strips > 0.1


def test_motion_uncovers_the_farther_surface() -> None:
    """A card moves by 8 px in front of a wall; grey texture leaves colour without evidence."""
    small = two_planes(2, 32, 64, near_px=5, far_px=1, card_px=20, step_px=2, seed=2)
    views = [
        torch.nn.functional.interpolate(view.mean(1, keepdim=True), scale_factor=4, mode="bicubic")
        .clamp(0, 1)
        .expand(-1, 3, -1, -1)
        for view in (small.left, small.right)
    ]
    at, later = ([view[frame : frame + 1] for view in views] for frame in (0, 1))
    found = order_cues(*at, (later[0], later[1]), far_px=4, near_px=20)
    assert found.uncovered > 0.25 and abs(found.ground) < 0.2
    back = order_cues(at[1], at[0], (later[1], later[0]), far_px=-20, near_px=-4)
    assert back.uncovered == -found.uncovered


@pytest.mark.parametrize(
    ("cues", "shots", "stated", "verdict"),
    [
        ([(0.4, 0, 0.5, 0)], [0], False, "in order"),
        ([(-0.4, 0, -0.5, 0)], [0], False, "swapped"),
        ([(-0.2, 0, 0.0, 0)], [0], False, "uncertain"),  # one weak cue: the film that was swapped
        ([(-0.2, 0, -0.4, 0)], [0], False, "uncertain"),  # one shot
        ([(-0.2, 0, -0.4, 0)] * 2, [0, 1], False, "swapped"),  # two
        ([(-0.2, 0, -0.4, 0)] * 2, [3, 3], False, "uncertain"),  # two clips of one shot
        ([(-0.4, 0, 0.0, 0)] * 2, [0, 1], False, "uncertain"),  # one cue only
        ([(-0.4, 0, 0.0, 0)] * 3, [0, 1, 2], False, "swapped"),  # three shots agree
        ([(-0.4, 0, 0.0, 0), (-0.4, 0, 0, 0), (0.3, 0, 0, 0)], [0, 1, 2], False, "uncertain"),
        ([(-0.4, -0.4, 0.6, 0)], [0], False, "uncertain"),  # the ground contradicts
        ([(-0.4, -0.4, 0.6, 0.9)], [0], False, "uncertain"),
        ([(-0.4, -0.4, -0.6, 0.9)], [0], False, "swapped"),  # three against one
        ([(-0.4, 0, -0.5, 0)], [0], True, "uncertain"),  # the film states its order
        ([(-0.4, 0, -0.5, -0.9)], [0], True, "swapped"),
        ([(0.0, 0, -0.9, -0.9)], [0], False, "uncertain"),  # nothing from occlusions
        ([(0.4, -0.3, 0.5, 0)], [0], False, "in order"),
        ([(-0.04, 0.1, 0, 0)], [0], False, "in order"),
        ([], [], False, "in order"),
    ],
)
def test_a_swap_needs_two_strong_cues_more_than_against_it(
    cues: list[tuple[float, ...]], shots: list[int], stated: bool, verdict: str
) -> None:
    found = judge_order([OrderCues(*clip) for clip in cues], shots, stated=stated)
    assert (found.swapped, found.uncertain) == (verdict == "swapped", verdict == "uncertain")


def test_view_order_is_undecided_without_colour_contrast() -> None:
    # White noise in front of white noise: colour cannot assign the strips.
    cards = coarse_cards(frames=3, height=128, width=256, near_px=16, far_px=4, card_px=80, seed=3)
    found = order_cues(cards.left, cards.right, (cards.left, cards.right), far_px=4, near_px=16)
    assert abs(found.strips) < 0.05


def rising(frames: int) -> tuple[Tensor, Tensor]:
    """Return two halves of noise at 6 px and 2 px of disparity; one rises and one sinks by 2 px a frame."""
    halves = torch.rand(2, 3, 60, 40, generator=torch.Generator().manual_seed(1))
    large = torch.nn.functional.interpolate(halves, scale_factor=4, mode="bicubic").clamp(0, 1)

    def eye(at: int) -> Tensor:
        moments = []
        for t in range(frames):
            up, down = large[0, :, 60 + 2 * t :][:, :128], large[1, :, 60 - 2 * t :][:, :128]
            moments.append(torch.cat([up[..., at : at + 100], down[..., at // 3 : at // 3 + 100]], dim=-1))
        return torch.stack(moments)

    return eye(0), eye(6)


@pytest.mark.parametrize("lag_frames", [-2, 0, 1, 3])
def test_a_lag_is_found_from_vertical_motion(lag_frames: int) -> None:
    left, right = rising(16)
    first = max(lag_frames, 0)
    left, right = (
        left[first : 13 + min(lag_frames, 0)],
        right[first - lag_frames : 13 + min(lag_frames, 0) - lag_frames],
    )
    frames = torch.tensor([3, 5, 7])
    matches = find_correspondences(
        left[frames], right[frames], max_disparity_percent=10, max_vertical_percent=12
    )
    lag = find_lag(left, right, frames, matches, max_disparity_percent=10, max_vertical_percent=12)
    assert lag.frames == lag_frames
    assert lag.after_px < 0.5
