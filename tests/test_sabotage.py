"""Every degradation shows in the scores that docs/metrics.md names, by as much as it says."""

import math
import re
from pathlib import Path

import pytest
import torch
from sabotage import CAUGHT_BY, SABOTAGES, honest, is_worse, prepared, scores_of
from torch import Tensor

from secondeye.evaluation.columns import COLUMNS
from secondeye.evaluation.methods import fit_scale_and_shift
from secondeye.evaluation.score import compute, prepare, score_depth, update

METRICS = (Path(__file__).parent.parent / "docs" / "metrics.md").read_text()
TABLE = METRICS.partition("\n## Sabotage\n")[2].partition("\n## ")[0]


def test_every_degradation_is_listed() -> None:
    assert CAUGHT_BY.keys() == SABOTAGES.keys()


@pytest.mark.parametrize("name", CAUGHT_BY)
def test_a_degradation_lowers_the_scores_named_for_it(name: str) -> None:
    before, after = scores_of("honest"), scores_of(name)
    missed = [column for column in CAUGHT_BY[name] if not is_worse(column, after[column], before[column])]
    assert not missed, {column: (before[column], after[column]) for column in missed}

    (line,) = re.findall(rf"^\| {re.escape(name)} \| (.*) \|$", TABLE, re.M)
    cells = re.findall(r"`(\w+)` ([-.\de]+), ([-.\de]+)", line)
    assert tuple(column for column, _, _ in cells) == CAUGHT_BY[name], "the table of docs/metrics.md"
    for column, honest_score, spoilt in cells:
        assert float(honest_score) == pytest.approx(before[column], rel=0.02, abs=0.005), column
        assert float(spoilt) == pytest.approx(after[column], rel=0.02, abs=0.005), column


def test_blur_raises_psnr_in_holes_but_lowers_the_primary_score() -> None:
    before, after = scores_of("honest"), scores_of("blurred")
    assert after["psnr_disoccluded_db"] > before["psnr_disoccluded_db"]
    assert after["haarpsi"] < before["haarpsi"]


def test_the_true_right_view_scores_best() -> None:
    clip, _ = honest()
    truth = compute(update(prepared(), clip.right, overlap=0, learned=None))
    scored = [c for c, value in scores_of("honest").items() if COLUMNS[c].better and not math.isnan(value)]
    fooled = {column for column in scored if is_worse(column, truth[column], scores_of("honest")[column])}
    assert fooled <= {"vertical_px"}, "the vertical flow of the true view is small, but not 0"
    assert truth["haarpsi"] == truth["siou"] == truth["gradient_ratio"] == 1 and truth["epe_px"] == 0


def test_alignment_does_not_rescue_inverted_depth() -> None:
    clip, _ = honest()

    def scored(depth: Tensor) -> dict[str, float]:
        scale, shift = fit_scale_and_shift(depth, clip.disparity)
        return score_depth(scale * depth + shift, clip)

    scores, exact = scored(-clip.disparity), scored(3 * clip.disparity + 1)
    assert scores["rank_correlation"] == 0 and exact["rank_correlation"] == pytest.approx(1)
    assert scores["disparity_error_percent"] > 10 * exact["disparity_error_percent"] + 0.1
    assert scores["hole_area_ratio"] < 0.1 and exact["hole_area_ratio"] == pytest.approx(1, abs=0.01)
    assert scores["edge_f_score"] == 0 and exact["edge_f_score"] == pytest.approx(1)


@pytest.mark.parametrize("window", [5, 12])
def test_windows_add_up(window: int) -> None:
    clip, made = honest()
    state = None
    for start in range(0, len(made), window):
        first = max(start - 1, 0)
        part = slice(first, start + window)
        window_inputs = prepare(clip.left[part], clip.right[part], clip.regions[part])
        found = update(window_inputs, made[part], overlap=start - first, learned=None)
        state = found if state is None else state + found
    assert state is not None and len(state.medians) == len(made)
    whole = scores_of("honest")
    for column, value in compute(state).items():
        assert value == pytest.approx(whole[column], abs=1e-4, nan_ok=True), column


def test_without_the_true_view_only_stereo_and_stability_are_scored() -> None:
    clip, made = honest()
    scores = compute(update(prepare(clip.left, None, None), made, overlap=0, learned=None))
    found = {column for column, value in scores.items() if not math.isnan(value)}
    assert found == {
        "sharpness_ratio",
        "vertical_px",
        "warping_ratio",
        "flicker",
        "worst_jump",
        "far_percent",
        "near_percent",
        "window_violation_percent",
    }
    whole = scores_of("honest")
    assert scores["sharpness_ratio"] == whole["sharpness_ratio"]
    assert scores["near_percent"] == pytest.approx(whole["near_percent"], abs=0.3)


def test_learned_metrics_are_scored_if_given() -> None:
    clip, made = honest()
    inputs = prepare(clip.left, clip.right, clip.regions)
    state = update(
        inputs,
        made,
        overlap=0,
        learned=lambda here, there: {"lpips": (here - there).abs().mean((1, 2, 3))},
    )
    assert 0 < compute(state)["lpips"] < 1 and math.isnan(compute(state)["dists"])


@pytest.mark.parametrize("rows", [1, 3, 6])
def test_vertical_disparity_is_measured_without_the_true_view(rows: int) -> None:
    clip, made = honest()
    lower = torch.cat([made[:2, :, :1]] * rows + [made[:2, :, :-rows]], 2)
    scores = compute(update(prepare(clip.left[:2], None, None), lower, overlap=0, learned=None))
    assert scores["vertical_px"] == pytest.approx(rows, abs=0.15)
