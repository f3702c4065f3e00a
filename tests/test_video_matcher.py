import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from secondeye.imaging.optical_flow import to_gray
from secondeye.matching import make_matcher
from secondeye.matching.census import matching_cost
from secondeye.matching.gap_filling import fill_by_colour
from secondeye.matching.semi_global import best_disparities
from secondeye.matching.tracks import find_tracks, fit_lines, tracks_to_neighbours
from secondeye.matching.video_matcher import match_video
from secondeye.synthetic import Shot, render_shot, two_planes

pytestmark = pytest.mark.usefixtures("one_thread")
SEARCH = {"max_disparity_px": 24, "tolerance_px": 1.0}


def noisy(frames: Tensor, seed: int) -> Tensor:
    """Add grain and quantise to 8 bit."""
    grain = torch.randn(frames.shape, generator=torch.Generator().manual_seed(seed)) * 0.03
    return (frames + grain).clamp(0, 1).mul(255).round() / 255


def noisy_shot(seed: int, frames: int = 5) -> tuple[Shot, Tensor, Tensor]:
    shot = render_shot(seed, frames, 96, 160)
    return shot, noisy(shot.left, seed), noisy(shot.right, seed + 1)


def test_reversed_time_gives_identical_results() -> None:
    _, left, right = noisy_shot(3)
    disparity, consistent = match_video(left, right, **SEARCH)
    turned = match_video(left.flip(0), right.flip(0), **SEARCH)
    assert torch.equal(turned[0].flip(0), disparity) and torch.equal(turned[1].flip(0), consistent)


def test_video_is_more_stable_and_more_accurate_than_single_frames() -> None:
    shot, left, right = noisy_shot(3)
    together, _ = match_video(left, right, **SEARCH)
    alone = torch.cat([match_video(left[t : t + 1], right[t : t + 1], **SEARCH)[0] for t in range(5)])

    def instability(disparity: Tensor) -> float:
        change = disparity.diff(dim=0) - shot.disparity.diff(dim=0)
        return float(change.abs().double().mean())

    visible = ~shot.left_occlusion
    error, before = ((d - shot.disparity).abs()[visible].double().mean() for d in (together, alone))
    assert instability(together) < 0.6 * instability(alone)
    assert error < before


def test_motion_in_depth_does_not_lag() -> None:
    """By a quarter pixel a frame: 6 px a second."""
    coarse = torch.rand(1, 3, 16, 64, generator=torch.Generator().manual_seed(0))
    wide = torch.nn.functional.interpolate(coarse, (64, 1024), mode="bicubic").clamp(0, 1)[0]
    views = [wide[..., 48 + t : 688 + t : 4] for t in range(9)]
    disparity, _ = match_video(torch.stack(views[:1] * 9), torch.stack(views), **SEARCH)
    middles = disparity[..., 24:-24].flatten(1).median(1).values
    miss = (middles - torch.arange(9) / 4).abs()
    assert miss[2:-2].max() < 0.08 and miss.max() < 0.2, "frames at a clip's ends have fewer neighbours"


def test_hidden_pixels_get_background_disparity() -> None:
    shot = two_planes(frames=3, height=96, width=192, near_px=16, far_px=3, seed=1)
    disparity, consistent = match_video(shot.left, shot.right, **SEARCH)
    hidden = shot.left_occlusion.clone()
    assert consistent[hidden].double().mean() < 0.25
    assert ((disparity - shot.disparity).abs()[hidden] < 1).double().mean() > 0.9


@pytest.mark.parametrize("size", [(1, 9, 20), (2, 15, 40), (1, 40, 8)])
def test_small_frames_are_matched(size: tuple[int, int, int]) -> None:
    frames, height, width = size
    left = torch.rand(frames, 3, height, width, generator=torch.Generator().manual_seed(0))
    disparity, consistent = match_video(left, left, **SEARCH)
    assert disparity.shape == consistent.shape == (frames, 1, height, width) and disparity.isfinite().all()


def test_costs_by_hand() -> None:
    left, right = np.zeros((2, 5, 9, 3), np.uint8)
    left[2, 4] = 90
    right[2, 3] = 90
    cost = matching_cost(left, right, left[..., 0], right[..., 0], 3)
    assert cost.shape == (5, 9, 3) and cost.dtype == np.uint8
    assert cost[2, 4].tolist() == [4 * 24 + 3 * 120 // 4, 0, 4 * 24 + 3 * 120 // 4]
    assert cost[2, 0].tolist() == [0, 0, 0]  # the first column is repeated beyond the border


def test_a_constant_disparity_is_exact_in_both_views() -> None:
    wide = np.random.default_rng(0).integers(0, 255, (40, 90, 3), dtype=np.uint8)
    left, right = wide[:, :80].copy(), wide[:, 7:87].copy()
    cost = matching_cost(left, right, left[..., 0], right[..., 0], 16).astype(np.int16)
    found = best_disparities(cost, left[..., 0])
    assert (found.left[:, 10:].round() == 7).all() and (found.right[:, :70].round() == 7).all()
    assert abs(found.left[:, 10:].mean() - 7) < 0.02 and (found.margin[2:-2, 12:-2] > 500).all()


def test_gaps_are_filled_by_colour() -> None:
    disparity = np.full((9, 12), 2.0, np.float32)
    disparity[:, 6:] = 7.1
    image = np.where(disparity[..., None] > 5, np.uint8(200), np.uint8(50)).repeat(3, -1)
    known = np.ones((9, 12), bool)
    known[3:5, 4:9] = False
    filled = fill_by_colour(np.where(known, disparity, np.float32(99)), known, image)
    assert np.array_equal(filled, disparity)


def fitted(values: list[float], times: list[float], valid: list[bool], stiffness: float = 0.0) -> float:
    planes = np.array(values, np.float32)[:, None, None], np.array(valid)[:, None, None]
    return float(fit_lines(*planes, np.array(times), 1.0, stiffness)[0, 0])


def test_lines_by_hand() -> None:
    assert fitted([2.0, 2.5, 9, 3, 7], [0, 1, 2, 2, 3], [True, True, True, True, False]) == 2, "rises"
    assert fitted([3, 2.5, 3.5], [0, -1, 1], [True] * 3, 1e9) == pytest.approx(3), "stiff: the mean"
    assert fitted([0, 0.5], [0, 1], [True] * 2, 1e9) == pytest.approx(0.25)
    assert fitted([5, 1], [0, 1], [True, True]) == 3 and fitted([5, 1], [0, 1], [True, False], 1) == 5


def test_tracks_concatenate_and_end_where_a_pixel_leaves_the_frame() -> None:
    wide = two_planes(frames=1, height=64, width=160, near_px=1, far_px=0, seed=4).left[0]
    wide = torch.nn.functional.avg_pool2d(wide, 3, 1, 1)
    frames = torch.stack([wide[..., 20 + 2 * t : 116 + 2 * t] for t in range(4)])
    images = (frames * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    tracks = find_tracks(images, to_gray(frames))
    found = dict(tracks_to_neighbours(tracks, 1, 2))
    assert sorted(found) == [0, 2, 3]
    for other, track in found.items():
        moved = track.flow[track.visible]
        assert np.abs(moved - (2 - 2 * other, 0)).mean() < 0.1 and track.visible[:, 8:-8].mean() > 0.9
    assert not found[3].visible[:, :4].any()


def test_results_are_bit_identical_for_any_number_of_threads(tmp_path: Path) -> None:
    """Run with two threads in a separate process; all other tests here use one."""
    code = (
        "import sys, torch; from secondeye.matching.video_matcher import match_video\n"
        "import cv2; torch.set_num_threads(2); cv2.setNumThreads(2)\n"
        "eyes = torch.load(sys.argv[1], weights_only=True)\n"
        "torch.save(match_video(*eyes, max_disparity_px=24, tolerance_px=1.0), sys.argv[2])\n"
    )
    _, left, right = noisy_shot(7, frames=3)
    torch.save((left, right), tmp_path / "eyes.pt")
    command = [sys.executable, "-c", code, str(tmp_path / "eyes.pt"), str(tmp_path / "made.pt")]
    subprocess.run(command, check=True)
    made = torch.load(tmp_path / "made.pt", weights_only=True)
    ours = match_video(left, right, **SEARCH)
    assert all(torch.equal(*pair) for pair in zip(made, ours, strict=True))


def test_a_real_pair_is_matched_better_than_by_block_matching(footage: Path) -> None:
    import cv2

    folder = footage / "pair_motorcycle"
    left, right = (
        torch.from_numpy(cv2.imread(str(folder / f"{eye}.png"))[..., ::-1].copy()).permute(2, 0, 1)[None]
        / 255
        for eye in ("left", "right")
    )
    truth = torch.from_numpy(np.load(folder / "disp.npz")["arr_0"])[None, None]
    visible = truth.isfinite()
    errors = []
    disparity, consistent = match_video(left, right, max_disparity_px=80, tolerance_px=1.0)
    for found in (disparity, make_matcher("block", 80)(left, right)):
        errors.append(float((~((found - truth).abs() <= 2))[visible & consistent].double().mean()))
    assert errors[0] < 0.75 * errors[1] and errors[0] < 0.04


def test_what_shows_nothing_to_match_is_far() -> None:
    """A textured card, 12 px near, before a bare sky with grain above a textured ground, 2 px near."""
    generator = torch.Generator().manual_seed(0)
    ground, card = (
        torch.rand(1, 3, *size, generator=generator).expand(2, -1, -1, -1) for size in ((32, 200), (40, 40))
    )

    def view(ground_px: int, card_px: int, seed: int) -> Tensor:
        image = torch.full((2, 3, 96, 192), 0.7)
        image[..., 64:, :] = ground[..., ground_px : ground_px + 192]
        image[..., 24:64, 80 - card_px : 120 - card_px] = card
        return noisy(image, seed)

    disparity, _ = match_video(view(0, 0, 1), view(2, 12, 2), **SEARCH)
    assert (disparity[..., 30:58, 85:115] - 12).abs().median() < 0.5
    beside = torch.cat([disparity[..., 30:58, 30:70], disparity[..., 30:58, 130:180]], -1)
    assert (beside < 4).double().mean() > 0.9
