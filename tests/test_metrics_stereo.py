import math

import numpy as np
import pytest
import torch

from secondeye.metrics.stereo import (
    correlation,
    disparity_error,
    disparity_histogram,
    histogram_percentile,
    largest_jump,
    median_disparities,
    siou,
    temporal_disparity_error,
    vertical_disparity_px,
    window_violation,
)
from secondeye.synthetic import render_shot

NAN = math.nan


def row(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 1, -1)


def all_of(plane: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(plane, dtype=torch.bool)


def squares(*columns: int) -> torch.Tensor:
    """White squares on black, [1, 3, 40, 80], at these columns."""
    frames = torch.zeros(1, 3, 40, 80)
    for column in columns:
        frames[..., 12:28, column : column + 16] = 1
    return frames


def test_siou_by_hand() -> None:
    left, truth = squares(30), squares(26)
    assert siou(truth, truth, left).tolist() == [1]
    # No edge but in the truth, and the flat image differs from left where left is white (16 columns), the
    # truth in 4 columns beside it and 4 within: 4 columns are in both, 20 in either.
    found = siou(torch.zeros_like(truth), truth, left)
    assert found.tolist() == pytest.approx([0.25 * 4 / 20])
    assert siou(left * 0, truth * 0, left * 0).tolist() == [1], "nothing to compare"


def test_siou_uses_absolute_differences() -> None:
    left = torch.full((1, 3, 20, 20), 0.5)
    truth = left.clone()
    truth[..., :10] -= 20 / 255
    right = left.clone()
    right[..., :10] -= 4 / 255  # too little to count; in bytes it would wrap around to 252
    no_edges = 0.75  # Canny sees none: four times any step here is less than 100
    assert siou(right, truth, left).tolist() == pytest.approx([no_edges])
    right[..., :5] = left[..., :5] + 20 / 255
    assert siou(right, truth, left).tolist() == pytest.approx([no_edges + 0.25 * 0.5])


def test_siou_of_the_left_view_is_lower_than_of_a_close_prediction() -> None:
    shot = render_shot(5, 1, 96, 160)
    copy, nearly = siou(shot.left, shot.right, shot.left), siou(shot.right * 0.98, shot.right, shot.left)
    assert float(copy) < 0.5 < float(nearly)


def test_disparity_errors_by_hand() -> None:
    wanted = row(10, 10, 100, 100, 2, 7)
    found = row(12, 13.5, 104, 106, NAN, 500)
    where = row(1, 1, 1, 1, 1, 0) > 0
    sums = disparity_error(found, wanted, where)
    assert sums["epe_px"] == (2 + 3.5 + 4 + 6, 4)
    assert sums["d1"] == (3, 5), "3.5 of 10, 6 of 100, and no answer; 4 of 100 is less than 5 %"
    assert disparity_error(found, wanted, where & False)["epe_px"] == (0, 0)


def test_a_constant_shift_changes_epe_only() -> None:
    wanted = torch.rand(3, 1, 20, 30) * 20
    sums = disparity_error(wanted + 2, wanted, all_of(wanted))
    assert sums["epe_px"][0] / sums["epe_px"][1] == pytest.approx(2, abs=1e-5)
    assert sums["d1"][0] == 0
    total, count = temporal_disparity_error(wanted + 2, wanted, all_of(wanted))
    assert total / count == pytest.approx(0, abs=1e-5)
    assert correlation(sums) == pytest.approx(1)


def test_swapped_views_have_negative_correlation() -> None:
    wanted = torch.rand(2, 1, 20, 30) * 20
    where = all_of(wanted)
    assert correlation(disparity_error(-wanted + 3, wanted, where)) == pytest.approx(-1)
    assert abs(correlation(disparity_error(torch.rand(2, 1, 20, 30), wanted, where))) < 0.2


def test_correlation_matches_numpy_and_is_0_or_nan_for_constants() -> None:
    found, wanted = row(1, 2, 4, 9, NAN), row(3, 1, 5, 6, 100)
    sums = disparity_error(found, wanted, all_of(wanted))
    assert correlation(sums) == pytest.approx(np.corrcoef([1, 2, 4, 9], [3, 1, 5, 6])[0, 1])
    flat, none = torch.full_like(wanted, 0.1), torch.full_like(wanted, NAN)
    assert correlation(disparity_error(flat, wanted, all_of(wanted))) == 0
    assert math.isnan(correlation(disparity_error(wanted, flat, all_of(wanted))))
    assert math.isnan(correlation(disparity_error(none, wanted, all_of(wanted))))


def test_temporal_disparity_error_by_hand() -> None:
    wanted = torch.cat([row(1, 1, 1), row(2, 2, 2), row(4, 4, 4)])
    found = torch.cat([row(1, 5, 1), row(2, 6, NAN), row(7, 8, 4)])
    # From the first to the second all is right where there is an answer; then 3 px too far, and right.
    assert temporal_disparity_error(found, wanted, all_of(wanted)) == (3, 4)
    where = all_of(wanted)
    where[2, ..., 0] = False
    assert temporal_disparity_error(found, wanted, where) == (0, 3)


def test_windows_that_share_a_frame_add_up() -> None:
    found, wanted = torch.rand(5, 1, 8, 9) * 9, torch.rand(5, 1, 8, 9) * 9
    where = torch.rand(5, 1, 8, 9) > 0.3
    cuts = (slice(0, 3), slice(2, 5))
    whole = temporal_disparity_error(found, wanted, where)
    parts = [temporal_disparity_error(found[cut], wanted[cut], where[cut]) for cut in cuts]
    assert whole == (pytest.approx(parts[0][0] + parts[1][0]), parts[0][1] + parts[1][1])


def test_disjoint_windows_add_up() -> None:
    found, wanted = torch.rand(5, 1, 8, 9) * 9, torch.rand(5, 1, 8, 9) * 9
    where = torch.rand(5, 1, 8, 9) > 0.3
    cuts = (slice(0, 3), slice(3, 5))
    whole = disparity_error(found, wanted, where)
    parts = [disparity_error(found[cut], wanted[cut], where[cut]) for cut in cuts]
    for name, (total, count) in whole.items():
        assert (total, count) == (
            pytest.approx(parts[0][name][0] + parts[1][name][0]),
            parts[0][name][1] + parts[1][name][1],
        )
    whole_violation = window_violation(found, where)
    violations = [window_violation(found[cut], where[cut]) for cut in cuts]
    assert whole_violation == tuple(map(sum, zip(*violations, strict=True)))
    counts = [disparity_histogram(found[cut], where[cut]) for cut in cuts]
    assert np.array_equal(sum(counts), disparity_histogram(found, where))


def test_medians_by_hand() -> None:
    plane = torch.cat([row(-1, 3, -5, 100, NAN), row(NAN, 1, 2, 3, 4)])
    where = torch.cat([row(1, 1, 1, 0, 1), row(1, 0, 0, 0, 0)]) > 0
    vertical = vertical_disparity_px(plane, where)
    assert vertical[0] == 3 and vertical[1].isnan() and vertical.shape == (2,)
    found = median_disparities(plane, where)
    assert found[0] == -20 and found[1].isnan(), "-1 px of 5 is -20 % of the width"


def test_the_largest_jump_at_a_cut() -> None:
    medians = [1.0, 1.5, 5.0, 5.0, 4.0, NAN, 9.0]
    assert largest_jump(medians, [2, 4]) == 3.5
    assert largest_jump(medians, [4]) == 1
    assert largest_jump(medians, [4, 5]) == 1, "frames without a disparity are skipped"
    assert math.isnan(largest_jump(medians, [])) and math.isnan(largest_jump(medians, [6]))


def test_percentiles_of_disparity_by_hand() -> None:
    disparity = torch.zeros(1, 1, 10, 1000)
    disparity[..., :5], disparity[..., 900:] = -30.04, 12.3
    disparity[..., 5:9], disparity[..., 9:10] = NAN, -700
    counts = disparity_histogram(disparity)
    assert counts.shape == (10001,) and counts.dtype == np.int64 and counts.sum() == 9960
    assert counts[0] == 10, "larger disparities are clipped to half the width"
    # Of 996 columns 1 lies at -50 %, 5 at -3.00 %, 890 at 0, 100 at 1.23 %.
    asked = (0, 1 / 1000, 0.003, 0.05, 0.5, 0.89, 0.9, 1)
    answers = [histogram_percentile(counts, share) for share in asked]
    assert answers == pytest.approx([-50, -50, -3, 0, 0, 0, 1.23, 1.23])
    assert histogram_percentile(disparity_histogram(row(7, 7, 8)), 0) == 50, "700 % of the width"
    assert histogram_percentile(disparity_histogram(row(0.3, *[0.6] * 99)), 0) == pytest.approx(0.3)
    none = disparity_histogram(disparity, torch.zeros_like(disparity) > 0)
    assert not none.any() and math.isnan(histogram_percentile(none, 0.5))


def test_window_violation_by_hand() -> None:
    disparity = torch.zeros(1, 1, 2, 300)  # a side is 3 px wide, in front is more than 0.6 px
    assert window_violation(disparity) == (0, 12)
    disparity[..., 100:200] = 30
    assert window_violation(disparity) == (0, 12), "objects away from the border do not count"
    assert window_violation(torch.full_like(disparity, 0.4)) == (0, 12)
    assert window_violation(torch.full_like(disparity, 2.0)) == (12, 12)
    assert window_violation(torch.full_like(disparity, -2.0)) == (0, 12)


@pytest.mark.parametrize("disparity_px", [2.0, 30.0])
def test_window_violation_at_the_left_border_uses_the_right_view(disparity_px: float) -> None:
    disparity = torch.zeros(1, 1, 1, 300)
    disparity[..., :60] = disparity_px
    seen = torch.arange(300) - disparity >= 0  # the rest has no match
    assert window_violation(disparity, seen) == window_violation(disparity) == (3, 6)
    assert window_violation(torch.where(seen, disparity, NAN)) == (3, 6)
