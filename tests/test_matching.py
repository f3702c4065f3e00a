from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from conftest import a_clip, a_film, a_shift, coarse_cards
from exported_networks import BestShift, program_of, write_pt2
from small_dataset import write_rows

from secondeye.dataset.clip_files import write_frames
from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import Clip, ClipDisparity, Correction, Film
from secondeye.matching import make_matcher
from secondeye.matching.consistency import fill_from_background, is_consistent, match_both_ways
from secondeye.matching.flow_matcher import match_flow
from secondeye.matching.match_clip import match_clip
from secondeye.params import Exported, Match, Matcher, PairMatcher, load_params
from secondeye.stages import match as match_stage
from secondeye.synthetic import two_planes

PROJECT = Path(__file__).parent.parent

NAN = float("nan")


# Flow extrapolates smoothly into hidden regions, in both directions.
@pytest.mark.parametrize(("name", "max_false"), [("block", 0.35), ("flow", 0.75)])
def test_matchers_find_two_planes(name: str, max_false: float) -> None:
    shot = two_planes(frames=2, height=96, width=192, near_px=16, far_px=3, seed=1)
    matcher = make_matcher(name, 32)
    disparity, consistent = match_both_ways(matcher, shot.left, shot.right, tolerance_px=1.0)
    assert disparity.shape == (2, 1, 96, 192) and disparity.dtype == torch.float32
    error = (disparity - shot.disparity).abs()[consistent]
    assert error.median() <= 1 / 16 and (error > 1).float().mean() < 0.05
    visible = ~shot.left_occlusion
    assert consistent[visible].float().mean() > 0.85
    assert consistent[shot.left_occlusion].float().mean() < max_false


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported matcher of whole shifts up to 12 px with the sign of an optical flow."""
    path = tmp_path_factory.mktemp("network") / "best_shift.pt2"
    return write_pt2(path, program_of(BestShift(12)))


@pytest.mark.parametrize("name", get_args(Matcher))
def test_laws_of_every_matcher(name: str, network: Path) -> None:
    exported = Exported(
        path=str(network), sign=-1, scale=1.0, multiple=16, min_size=32, window_frames=2, overlap_frames=1
    )
    match = Match(matcher=name, max_disparity_percent=10.0, tolerance_px=1.0, exported=exported)

    shot = coarse_cards(frames=3, height=96, width=160, near_px=8, far_px=4, card_px=80, seed=1)
    disparity, consistent = match_clip(match, shot.left, shot.right)
    assert disparity.shape == consistent.shape == (3, 1, 96, 160)
    assert disparity.dtype == torch.float32 and consistent.dtype == torch.bool
    assert disparity.isfinite().all()
    found, truth = disparity[consistent], shot.disparity[consistent]
    assert found[truth == 8].median() > found[truth == 4].median() + 3, "larger is nearer"
    assert ((found - truth).abs() > 1).double().mean() < 0.05
    assert consistent[~shot.left_occlusion].double().mean() > 0.8

    alone, agreed = match_clip(match, shot.left[1:2], shot.right[1:2])
    assert alone.shape == (1, 1, 96, 160)
    if name != "video":  # uses neighbouring frames
        assert torch.equal(alone, disparity[1:2]) and torch.equal(agreed, consistent[1:2])

    wide = textured(64, 160)
    flat, _ = match_clip(match, wide[..., 10:138], wide[..., 15:143])
    inside = flat[..., 8:-8]
    torch.testing.assert_close(inside.median(), torch.tensor(5.0), atol=1 / 16, rtol=0)
    assert ((inside - 5).abs() < 0.5).double().mean() > 0.97


@pytest.mark.parametrize("name", get_args(PairMatcher))
def test_pair_matchers_are_checked_and_filled(name: str) -> None:
    shot = two_planes(frames=2, height=48, width=96, seed=1)
    exported = Exported(path="", sign=1, scale=1.0, multiple=1, min_size=1, window_frames=1, overlap_frames=0)
    match = Match(matcher=name, max_disparity_percent=18.0, tolerance_px=1.0, exported=exported)
    matched = match_both_ways(make_matcher(name, 17), shot.left, shot.right, tolerance_px=1.0)
    disparity, consistent = match_clip(match, shot.left, shot.right)
    assert torch.equal(disparity, fill_from_background(*matched)) and torch.equal(consistent, matched[1])


@pytest.mark.parametrize("name", ["block", "flow"])
def test_frames_are_independent(name: str) -> None:
    shot = two_planes(frames=2, height=64, width=128, seed=1)
    together = make_matcher(name, 16)(shot.left, shot.right)
    alone = make_matcher(name, 16)(shot.left[1:], shot.right[1:])
    assert torch.equal(together[1:].nan_to_num(-1), alone.nan_to_num(-1))


def test_an_unknown_matcher_is_rejected() -> None:
    with pytest.raises(ValueError, match="block or flow"):
        make_matcher("magic", 16)


def textured(height: int = 64, width: int = 160) -> torch.Tensor:
    """Return smooth noise [1, 3, H, W]."""
    coarse = torch.rand(1, 3, height // 4, width // 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("disparity_px", [-7, 5])
def test_flow_finds_either_sign_and_nothing_outside_the_frame(disparity_px: int) -> None:
    wide = textured()
    left, right = wide[..., 10:130], wide[..., 10 + disparity_px : 130 + disparity_px]
    found = make_matcher("flow", 16)(left, right)
    place = torch.arange(120) - disparity_px
    inside = (place >= 0) & (place < 120)
    seen = found[..., inside & inside.roll(2) & inside.roll(-2)]
    torch.testing.assert_close(seen.nanmedian(), torch.tensor(float(disparity_px)), atol=0.05, rtol=0)
    assert seen.isnan().double().mean() < 0.02
    assert found[..., ~inside].isnan().double().mean() > 0.8
    assert make_matcher("flow", 4)(left, right).isnan().double().mean() > 0.9, "beyond the largest"


@pytest.mark.parametrize(("lower_px", "answered"), [(0.75, True), (4, False)])
def test_flow_measures_vertical_disparity(lower_px: float, answered: bool) -> None:
    wide = textured(144, 280)
    left = wide[..., 16:112, 16:256]
    rows = [wide[..., 16 - lower : 112 - lower, 18:258] for lower in (int(lower_px), int(lower_px) + 1)]
    share = lower_px % 1
    right = (1 - share) * rows[0] + share * rows[1]
    found = match_flow(left, right)
    assert float(found.vertical.median()) == pytest.approx(lower_px, abs=0.1)
    assert (float(found.disparity.isnan().double().mean()) < 0.1) == answered
    if answered:
        assert float(found.disparity.nanmedian()) == pytest.approx(2, abs=0.1)


def row(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(1, 1, 1, -1)


def test_consistency_by_hand() -> None:
    left = row(0, 2, 2, 2, NAN, 1)
    right = row(0, 2, 0, 2, 1, 0)
    # Matches: x=0 -> 0: 0 and 0; x=1 -> outside; x=2 -> 0: 2 and 0; x=3 -> 1: 2 and 2; x=5 -> 4: 1 and 1
    assert is_consistent(left, right, 0.5).flatten().tolist() == [True, False, False, True, False, True]


def test_gaps_take_the_smaller_disparity() -> None:
    known = torch.tensor([[False, True, False, False, True, False]]).view(1, 1, 1, 6)
    filled = fill_from_background(row(NAN, 7, NAN, NAN, 3, NAN), known)
    assert filled.flatten().tolist() == [7, 7, 3, 3, 3, 3]


def run_match(data: Path, disparity_px: int, *, near_px: float, percent: float) -> Dataset:
    """Run the stage `match` on a textured wall at one disparity, which `shift` found to be `near_px`."""
    scene = textured(64, 160 + disparity_px).expand(2, -1, -1, -1)
    left, right = scene[..., :160], scene[..., disparity_px:]  # x_right = x_left - disparity
    dataset = Dataset(data)
    for stage in ("split", "match"):
        dataset.folder(stage).mkdir(parents=True)
    write_frames(dataset.file("split", "c" * 16, "left"), left)
    write_frames(dataset.file("split", "c" * 16, "right"), right)
    clip = a_clip("c" * 16, "f", stop=2, width=160)
    write_rows(data, {Film: [a_film("f")], Clip: [clip], Correction: [a_shift(clip.id, near_px=near_px)]})
    params = load_params(PROJECT / "params.yaml")
    section = replace(params.match, matcher="block", max_disparity_percent=percent)
    match_stage.run(data, match=section, dataset=replace(params.dataset, max_bad_fraction=1.0))
    return Dataset(data)


@pytest.mark.parametrize(
    ("exact_px", "near_px", "percent", "searched"),
    [
        (28, 9.0, 18.0, [18.0, 27.0]),  # of 160 px: at the bound of 29 px
        (26, 9.0, 18.0, [18.0]),
        (48, 48.0, 20.0, [33.0]),  # far beyond it, known from the stage `shift`
        (70, 9.0, 43.75, [43.75, 50.0]),
    ],
)
def test_disparities_at_the_bound_are_matched_in_a_wider_range(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    exact_px: int,
    near_px: float,
    percent: float,
    searched: list[float],
) -> None:
    monkeypatch.setenv("SECONDEYE_WORKERS", "1")
    percents = []

    def record(section: Match, *views: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        percents.append(section.max_disparity_percent)
        return match_clip(section, *views)

    monkeypatch.setattr(match_stage, "match_clip", record)
    dataset = run_match(tmp_path, exact_px, near_px=near_px, percent=percent)
    assert percents == pytest.approx(searched) and dataset.failed("match") == []
    disparity = dataset.disparity(dataset.join(Correction, ClipDisparity)[0])
    assert ((disparity[..., exact_px:] - exact_px).abs() <= 0.25).double().mean() > 0.95


def test_disparities_at_half_of_the_width_are_refused_with_that_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECONDEYE_WORKERS", "1")
    (failed,) = run_match(tmp_path, 80, near_px=9.0, percent=50.0).failed("match")
    assert failed.reason == "disparity at the bound"
    assert failed.detail.endswith("% of the pixels match at the largest disparity, 50 % of the width")


def test_unknown_rows_copy_neighbours_and_unknown_frames_become_0() -> None:
    disparity = torch.full((2, 1, 4, 3), NAN)
    known = torch.zeros(2, 1, 4, 3, dtype=torch.bool)
    disparity[0, 0, 1], known[0, 0, 1] = 5.0, True
    filled = fill_from_background(disparity, known)
    assert (filled[0] == 5).all() and (filled[1] == 0).all()


def test_known_values_and_the_input_are_unchanged() -> None:
    disparity, known = torch.rand(2, 1, 7, 9), torch.rand(2, 1, 7, 9) > 0.5
    before = disparity.clone()
    filled = fill_from_background(disparity, known)
    assert torch.equal(filled[known], disparity[known]) and torch.equal(disparity, before)
