"""Accumulated metric sums, and the crops of the perceptual scores."""

import math

import numpy as np
import pytest
import torch

from secondeye.evaluation.metric_state import MetricState, weighted_sum
from secondeye.evaluation.score_crops import MIN_SIDE_PX, crop_side_px, extract_crops, find_crops


def test_states_add_up() -> None:
    one = MetricState({"a": (6.0, 2.0), "b": (1.0, 1.0)}, {"jump": 3.0}, np.array([1, 0]), [0.5])
    other = MetricState({"a": (1.0, 5.0)}, {"jump": 2.0}, np.array([1, 4]), [0.7])
    both = one + other
    assert both.mean("a") == 1 and both.mean("b") == 1 and both.maxima == {"jump": 3.0}
    assert both.disparities.tolist() == [2, 4] and (MetricState() + one).disparities.tolist() == [1, 0]
    assert both.medians == [0.5, 0.7] and one.sums["a"] == (6.0, 2.0)


def test_a_mean_without_counts_is_nan() -> None:
    state = MetricState({"a": (1.0, 2.0), "none": (0.0, 0.0), "zero": (0.0, 3.0)})
    assert math.isnan(state.mean("none")) and math.isnan(state.mean("other"))
    assert state.ratio("zero", "a") == 0 and math.isnan(state.ratio("a", "zero"))


def test_a_weighted_sum_skips_nan() -> None:
    values = torch.tensor([1.0, math.nan, 3.0])
    assert weighted_sum(values) == (4.0, 2.0) and weighted_sum(values[1:2]) == (0.0, 0.0)
    assert weighted_sum(values, torch.tensor([2.0, 5.0, 1.0])) == (5.0, 3.0)


def test_crops_are_centred_on_disocclusions_and_inside_the_image() -> None:
    holes = torch.zeros(2, 1, 128, 256, dtype=torch.bool)
    holes[1, 0, 0:8, 0:2] = True  # 16 px at the corner of the first cell of 64 x 64
    holes[1, 0, 70, 70:75] = True  # 5 px: too few
    crops = find_crops(holes)
    assert crops.side_px == MIN_SIDE_PX == 64
    assert crops.corners.tolist() == [[1, 0, 0]] and crops.weights.tolist() == [16]
    holes[0, 0, 70:91, 140:181] = True  # 21 x 41 px about row 80 and column 160
    crops = find_crops(holes)
    assert crops.corners.tolist() == [[0, 48, 128], [1, 0, 0]] and crops.weights.tolist() == [861, 16]
    frames = torch.arange(2 * 3 * 128 * 256).reshape(2, 3, 128, 256).float()
    assert torch.equal(extract_crops(frames, crops)[0], frames[0, :, 48:112, 128:192])


def test_every_disoccluded_pixel_is_counted_once() -> None:
    holes = torch.rand(3, 1, 128, 192, generator=torch.Generator().manual_seed(0)) < 0.2
    assert find_crops(holes).weights.sum() == holes.sum()


def test_without_disocclusions_there_is_no_crop() -> None:
    crops = find_crops(torch.zeros(2, 1, 96, 160, dtype=torch.bool))
    assert extract_crops(torch.rand(2, 3, 96, 160), crops).shape == (0, 3, 64, 64)


@pytest.mark.parametrize(("width", "side_px"), [(160, 64), (448, 64), (1280, 184), (1920, 276)])
def test_crops_grow_with_the_image(width: int, side_px: int) -> None:
    assert crop_side_px(width) == side_px
