"""How good two eyes are together: is everything at the disparity it should have, and comfortable?"""

import math
from collections.abc import Iterable, Iterator, Mapping

import cv2
import numpy as np
import torch
from torch import Tensor

from secondeye.metrics.masked_sums import Sum, sum_where

_EDGE_LEVELS = (100, 200)  # SIoU: both thresholds of Canny
_DIFFERENT_LEVELS = 5  # SIoU: more than this is a difference
_EDGE_SHARE = 0.75  # SIoU: of the edges in the score
_WRONG_PX, _WRONG_SHARE = 3.0, 0.05  # D1: beyond both
_FLAT = 1e-12  # of the mean square: less spread than this is rounding
_BINS = 100  # of the histogram, for each percent of the width
_LARGEST_PERCENT = 50  # of the width, to both sides; what is beyond counts as this
_BORDER_PERCENT = 1.0  # of the width: what lies this near to the frame's sides is cut by it
_SCREEN_PERCENT = 0.2  # of the width: what is nearer than this is in front of the screen


def siou(
    right: Tensor,  # [T, 3, H, W] in [0, 1]
    truth: Tensor,  # [T, 3, H, W] in [0, 1]
    left: Tensor,  # [T, 3, H, W] in [0, 1]
) -> Tensor:  # float64 [T] in [0, 1]
    """Stereo intersection over union (Yu et al., CVPR 2025: Mono2Stereo).

    Three quarters are the edges of right and truth, a quarter is where each differs from left. The released
    code subtracts bytes, which wraps around; here a difference is its size.
    """
    triples = zip(_levels(right), _levels(truth), _levels(left), strict=True)
    return torch.tensor([_siou(*triple) for triple in triples], dtype=torch.float64)


def _siou(right: np.ndarray, truth: np.ndarray, left: np.ndarray) -> float:  # each uint8 [H, W, 3]
    edges = [cv2.Canny(_grey(picture), *_EDGE_LEVELS) > 0 for picture in (right, truth)]
    changed = [_grey(cv2.absdiff(picture, left)) > _DIFFERENT_LEVELS for picture in (right, truth)]
    return _EDGE_SHARE * _overlap(*edges) + (1 - _EDGE_SHARE) * _overlap(*changed)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def _levels(frames: Tensor) -> Iterator[np.ndarray]:  # of each frame uint8 [H, W, 3]
    for frame in frames:
        yield cv2.merge(list((frame * 255).round().clamp(0, 255).byte().numpy()))


def _grey(picture: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


def disparity_error(
    found: Tensor,  # [T, 1, H, W] px, NaN for none
    wanted: Tensor,  # [T, 1, H, W] px
    where: Tensor,  # bool [T, 1, H, W]: the pixels that count, where `wanted` is sure
) -> dict[str, Sum]:
    """Errors `epe_px` and `d1`, and the moments for `correlation`.

    `epe_px` is the mean error (Middlebury's average). `d1` is the share of pixels that are wrong by more than
    3 px and 5 % (KITTI 2015); a pixel without an answer is wrong, and in nothing but this.
    """
    there, asked = (plane.numpy()[where.numpy()].astype(np.float64) for plane in (found, wanted))
    answered = ~np.isnan(there)
    there, true = there[answered], asked[answered]
    error = np.abs(there - true)
    wrong = (error > _WRONG_PX) & (error > _WRONG_SHARE * np.abs(true))
    unanswered = len(asked) - len(there)
    values = {
        "epe_px": error,
        "found": there,
        "wanted": true,
        "found_squared": there * there,
        "wanted_squared": true * true,
        "product": there * true,
    }
    sums = {name: (float(value.sum()), float(len(there))) for name, value in values.items()}
    return sums | {"d1": (float(np.count_nonzero(wrong) + unanswered), float(len(asked)))}


def correlation(
    sums: Mapping[str, Sum],  # of `disparity_error`, of one window or added up
) -> float:
    """Pearson's correlation of found and wanted disparity.

    0 where only the found one is flat, NaN where nothing is to be found.
    """
    count = sums["found"][1]
    if not count:
        return math.nan
    found, wanted, found_squared, wanted_squared, product = (
        sums[name][0] / count for name in ("found", "wanted", "found_squared", "wanted_squared", "product")
    )
    spread_found, spread_wanted = found_squared - found**2, wanted_squared - wanted**2
    if spread_wanted <= _FLAT * wanted_squared:
        return math.nan
    if spread_found <= _FLAT * found_squared:
        return 0.0
    return (product - found * wanted) / math.sqrt(spread_found * spread_wanted)


def temporal_disparity_error(
    found: Tensor,  # [T, 1, H, W] px, NaN for none
    wanted: Tensor,  # [T, 1, H, W] px
    where: Tensor,  # bool [T, 1, H, W]: the pixels that count
) -> Sum:
    """TEPE, px: how far what changes in time is from what should (Karaev et al., CVPR 2023: DynamicStereo).

    From each frame to the next, where both count and both have an answer.
    """
    error = found - wanted
    counted = where & ~error.isnan()
    return sum_where((error[1:] - error[:-1]).abs(), counted[1:] & counted[:-1])


def vertical_disparity_px(
    vertical: Tensor,  # [T, 1, H, W] px
    where: Tensor,  # bool [T, 1, H, W]: reliable matches
) -> Tensor:  # float64 [T] px
    """Median size of each frame's vertical disparity; NaN where no match is reliable."""
    return _medians(vertical.abs(), where)


def median_disparities(
    disparity: Tensor,  # [T, 1, H, W] px, NaN for none
    where: Tensor,  # bool [T, 1, H, W]: reliable matches
) -> Tensor:  # float64 [T] % of the width
    """Median of each frame; NaN where no match is reliable."""
    return _medians(disparity, where) * (100 / disparity.shape[-1])


def _medians(plane: Tensor, where: Tensor) -> Tensor:
    counted = where & ~plane.isnan()
    chosen = [values[there] for values, there in zip(plane.numpy(), counted.numpy(), strict=True)]
    return torch.tensor([float(np.median(v)) if v.size else math.nan for v in chosen], dtype=torch.float64)


def largest_jump(
    medians: Iterable[float],  # % of the width, of every frame of a film
    cuts: Iterable[int],  # first frames of all shots but the first
) -> float:  # % of the width
    """The farthest that depth jumps at a cut; NaN where there is none."""
    series = np.array(list(medians))
    jumps = np.array([abs(series[cut] - series[cut - 1]) for cut in cuts])
    known = jumps[~np.isnan(jumps)]
    return float(known.max()) if known.size else math.nan


def disparity_histogram(
    disparity: Tensor,  # [T, 1, H, W] px, NaN for none
    where: Tensor | None = None,  # bool [T, 1, H, W]: the pixels that count; None for all
) -> np.ndarray:  # int64 [10001]
    """How many pixels have -50, -49.99, ... 50 % of the width."""
    chosen = ~disparity.isnan() if where is None else where & ~disparity.isnan()
    percent = disparity.numpy()[chosen.numpy()].astype(np.float64) * (100 / disparity.shape[-1])
    end = _LARGEST_PERCENT * _BINS
    place = np.clip(np.round(percent * _BINS), -end, end).astype(np.int64) + end
    return np.bincount(place, minlength=2 * end + 1)


def percentile_of(
    counts: np.ndarray,  # int64, of `disparity_histogram`
    share: float,  # [0, 1]
) -> float:  # % of the width
    """The disparity that this share of the pixels does not exceed; NaN where none was counted."""
    if not counts.any():
        return math.nan
    place = int(np.searchsorted(counts.cumsum(), max(share * counts.sum(), 1)))
    return (place - _LARGEST_PERCENT * _BINS) / _BINS


def window_violation(
    disparity: Tensor,  # [T, 1, H, W] px of the left eye, NaN for none
    where: Tensor | None = None,  # bool [T, 1, H, W]: the pixels that count; None for all
) -> Sum:
    """How many pixels at the frame's sides lie in front of the screen, of those that both eyes see there.

    A pixel is at a side where either eye sees it within 1 % of the width (Mendiburu, 3D Movie Making: what is
    cut by the frame and in front of it hurts). Bounds are ours.
    """
    width = disparity.shape[-1]
    band = max(1, round(_BORDER_PERCENT / 100 * width))
    column = torch.arange(width).expand_as(disparity)
    place = column - disparity
    inside = (place > -0.5) & (place < width - 0.5)  # NaN is not
    at_side = (torch.minimum(column, place) < band - 0.5) | (
        torch.maximum(column, place) > width - band - 0.5
    )
    counted = inside & at_side if where is None else inside & at_side & where
    violating = counted & (disparity > _SCREEN_PERCENT / 100 * width)
    return float(violating.sum()), float(counted.sum())
