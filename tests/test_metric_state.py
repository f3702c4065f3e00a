"""Sums that add, and the squares that the perceptual scores look at."""

import math

import numpy as np
import pytest
import torch

from secondeye.evaluation.metric_state import MetricState, total
from secondeye.evaluation.score_crops import SMALLEST_PX, around, cut, side_of


def test_two_tallies_make_the_whole() -> None:
    one = MetricState({"a": (6.0, 2.0), "b": (1.0, 1.0)}, {"jump": 3.0}, np.array([1, 0]), [0.5])
    other = MetricState({"a": (1.0, 5.0)}, {"jump": 2.0}, np.array([1, 4]), [0.7])
    both = one + other
    assert both.mean("a") == 1 and both.mean("b") == 1 and both.largest == {"jump": 3.0}
    assert both.disparities.tolist() == [2, 4] and (MetricState() + one).disparities.tolist() == [1, 0]
    assert both.medians == [0.5, 0.7] and one.sums["a"] == (6.0, 2.0)


def test_what_was_not_counted_is_no_number() -> None:
    tally = MetricState({"a": (1.0, 2.0), "none": (0.0, 0.0), "zero": (0.0, 3.0)})
    assert math.isnan(tally.mean("none")) and math.isnan(tally.mean("other"))
    assert tally.ratio("zero", "a") == 0 and math.isnan(tally.ratio("a", "zero"))


def test_a_total_leaves_out_what_is_no_number() -> None:
    values = torch.tensor([1.0, math.nan, 3.0])
    assert total(values) == (4.0, 2.0) and total(values[1:2]) == (0.0, 0.0)
    assert total(values, torch.tensor([2.0, 5.0, 1.0])) == (5.0, 3.0)


def test_crops_are_centred_on_what_is_disoccluded_and_lie_inside_the_picture() -> None:
    holes = torch.zeros(2, 1, 128, 256, dtype=torch.bool)
    holes[1, 0, 0:8, 0:2] = True  # 16 px at the corner of the first cell of 64 x 64
    holes[1, 0, 70, 70:75] = True  # 5 px: too few
    crops = around(holes)
    assert crops.side_px == SMALLEST_PX == 64
    assert crops.places.tolist() == [[1, 0, 0]] and crops.weights.tolist() == [16]
    holes[0, 0, 70:91, 140:181] = True  # 21 x 41 px about row 80 and column 160
    crops = around(holes)
    assert crops.places.tolist() == [[0, 48, 128], [1, 0, 0]] and crops.weights.tolist() == [861, 16]
    frames = torch.arange(2 * 3 * 128 * 256).reshape(2, 3, 128, 256).float()
    assert torch.equal(cut(frames, crops)[0], frames[0, :, 48:112, 128:192])


def test_every_disoccluded_pixel_is_counted_once() -> None:
    holes = torch.rand(3, 1, 128, 192, generator=torch.Generator().manual_seed(0)) < 0.2
    assert around(holes).weights.sum() == holes.sum()


def test_without_disocclusions_there_is_no_crop() -> None:
    crops = around(torch.zeros(2, 1, 96, 160, dtype=torch.bool))
    assert cut(torch.rand(2, 3, 96, 160), crops).shape == (0, 3, 64, 64)


@pytest.mark.parametrize(("width", "side_px"), [(160, 64), (448, 64), (1280, 184), (1920, 276)])
def test_crops_grow_with_the_picture(width: int, side_px: int) -> None:
    assert side_of(width) == side_px
