"""Stereo quality: SIoU, disparity errors, vertical disparity, depth jumps and window violations."""

import math
from collections.abc import Iterable, Iterator, Mapping

import cv2
import numpy as np
import torch
from torch import Tensor

from secondeye.metrics.masked_sums import Sum, sum_where

_EDGE_LEVELS = (100, 200)  # SIoU: thresholds of Canny
_DIFFERENT_LEVELS = 5  # SIoU: larger differences count
_EDGE_SHARE = 0.75  # SIoU: weight of the edges
_OUTLIER_PX, _OUTLIER_SHARE = 3.0, 0.05  # D1: an outlier exceeds both
_MIN_VARIANCE = 1e-12  # relative to the mean square; less is rounding error
_BINS = 100  # histogram bins per percent of the width
_MAX_PERCENT = 50  # of the width; the histogram clips to [-50, 50]
_BORDER_PERCENT = 1.0  # of the width: size of the bands at the left and right frame border
_SCREEN_PERCENT = 0.2  # of the width: larger disparities are in front of the screen


def siou(
    right: Tensor,  # [T, 3, H, W] in [0, 1]
    truth: Tensor,  # [T, 3, H, W] in [0, 1]
    left: Tensor,  # [T, 3, H, W] in [0, 1]
) -> Tensor:  # float64 [T] in [0, 1]
    """Return stereo intersection over union (Yu et al., CVPR 2025: Mono2Stereo).

    Three quarters compare the edges of right and truth, one quarter the pixels that differ from left. The
    released code subtracts uint8 values, which wraps around; here the absolute difference is used.
    """
    triples = zip(_to_images(right), _to_images(truth), _to_images(left), strict=True)
    return torch.tensor([_siou(*triple) for triple in triples], dtype=torch.float64)


def _siou(right: np.ndarray, truth: np.ndarray, left: np.ndarray) -> float:  # each uint8 [H, W, 3]
    edges = [cv2.Canny(_to_gray(image), *_EDGE_LEVELS) > 0 for image in (right, truth)]
    differs = [_to_gray(cv2.absdiff(image, left)) > _DIFFERENT_LEVELS for image in (right, truth)]
    return _EDGE_SHARE * _iou(*edges) + (1 - _EDGE_SHARE) * _iou(*differs)


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def _to_images(frames: Tensor) -> Iterator[np.ndarray]:  # uint8 [H, W, 3] each
    for frame in frames:
        yield cv2.merge(list((frame * 255).round().clamp(0, 255).byte().numpy()))


def _to_gray(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def disparity_error(
    predicted: Tensor,  # [T, 1, H, W] px, NaN where unmatched
    truth: Tensor,  # [T, 1, H, W] px
    where: Tensor,  # bool [T, 1, H, W]: pixels with a reliable truth
) -> dict[str, Sum]:
    """Return the sums of `epe_px` and `d1`, and the moments for `correlation`.

    `epe_px` is the mean absolute error (Middlebury's average). `d1` is the share of pixels that are wrong by
    more than 3 px and 5 % (KITTI 2015). Unmatched pixels count as wrong in `d1` and are left out of the rest.
    """
    answers, targets = (plane.numpy()[where.numpy()].astype(np.float64) for plane in (predicted, truth))
    answered = ~np.isnan(answers)
    answers, true = answers[answered], targets[answered]
    error = np.abs(answers - true)
    wrong = (error > _OUTLIER_PX) & (error > _OUTLIER_SHARE * np.abs(true))
    unanswered = len(targets) - len(answers)
    values = {
        "epe_px": error,
        "predicted": answers,
        "truth": true,
        "predicted_squared": answers * answers,
        "truth_squared": true * true,
        "product": answers * true,
    }
    sums = {name: (float(value.sum()), float(len(answers))) for name, value in values.items()}
    return sums | {"d1": (float(np.count_nonzero(wrong) + unanswered), float(len(targets)))}


def correlation(
    sums: Mapping[str, Sum],  # from `disparity_error`, of one or several windows
) -> float:
    """Return Pearson's correlation of predicted and true disparity.

    0 if only the prediction is constant, NaN if the truth is or nothing was compared.
    """
    count = sums["predicted"][1]
    if not count:
        return math.nan
    predicted, truth, predicted_squared, truth_squared, product = (
        sums[name][0] / count
        for name in ("predicted", "truth", "predicted_squared", "truth_squared", "product")
    )
    predicted_variance, truth_variance = predicted_squared - predicted**2, truth_squared - truth**2
    if truth_variance <= _MIN_VARIANCE * truth_squared:
        return math.nan
    if predicted_variance <= _MIN_VARIANCE * predicted_squared:
        return 0.0
    return (product - predicted * truth) / math.sqrt(predicted_variance * truth_variance)


def temporal_disparity_error(
    predicted: Tensor,  # [T, 1, H, W] px, NaN where unmatched
    truth: Tensor,  # [T, 1, H, W] px
    where: Tensor,  # bool [T, 1, H, W]: pixels to compare
) -> Sum:
    """Sum TEPE in px: the error of the frame-to-frame change (Karaev et al., CVPR 2023: DynamicStereo).

    A pixel counts if it is selected and matched in both frames.
    """
    error = predicted - truth
    counted = where & ~error.isnan()
    return sum_where((error[1:] - error[:-1]).abs(), counted[1:] & counted[:-1])


def vertical_disparity_px(
    vertical: Tensor,  # [T, 1, H, W] px
    where: Tensor,  # bool [T, 1, H, W]: reliable matches
) -> Tensor:  # float64 [T] px
    """Return the median absolute vertical disparity of each frame; NaN without reliable matches."""
    return _medians(vertical.abs(), where)


def median_disparities(
    disparity: Tensor,  # [T, 1, H, W] px, NaN where unmatched
    where: Tensor,  # bool [T, 1, H, W]: reliable matches
) -> Tensor:  # float64 [T] % of the width
    """Return the median disparity of each frame; NaN without reliable matches."""
    return _medians(disparity, where) * (100 / disparity.shape[-1])


def _medians(plane: Tensor, where: Tensor) -> Tensor:
    counted = where & ~plane.isnan()
    selected = (values[chosen] for values, chosen in zip(plane.numpy(), counted.numpy(), strict=True))
    medians = [float(np.median(values)) if values.size else math.nan for values in selected]
    return torch.tensor(medians, dtype=torch.float64)


def largest_jump(
    medians: Iterable[float],  # % of the width, of every frame of a film
    cuts: Iterable[int],  # first frame of every shot but the first
) -> float:  # % of the width
    """Return the largest change of the median disparity at a cut; NaN without cuts."""
    series = np.array(list(medians))
    jumps = np.array([abs(series[cut] - series[cut - 1]) for cut in cuts])
    known = jumps[~np.isnan(jumps)]
    return float(known.max()) if known.size else math.nan


def disparity_histogram(
    disparity: Tensor,  # [T, 1, H, W] px, NaN where unmatched
    where: Tensor | None = None,  # bool [T, 1, H, W], None for all pixels
) -> np.ndarray:  # int64 [10001]
    """Count the pixels at -50, -49.99, ... 50 % of the width."""
    counted = ~disparity.isnan() if where is None else where & ~disparity.isnan()
    percent = disparity.numpy()[counted.numpy()].astype(np.float64) * (100 / disparity.shape[-1])
    end = _MAX_PERCENT * _BINS
    place = np.clip(np.round(percent * _BINS), -end, end).astype(np.int64) + end
    return np.bincount(place, minlength=2 * end + 1)


def histogram_percentile(
    counts: np.ndarray,  # int64, from `disparity_histogram`
    share: float,  # [0, 1]
) -> float:  # % of the width
    """Return the disparity that this share of the pixels does not exceed; NaN for an empty histogram."""
    if not counts.any():
        return math.nan
    place = int(np.searchsorted(counts.cumsum(), max(share * counts.sum(), 1)))
    return (place - _MAX_PERCENT * _BINS) / _BINS


def window_violation(
    disparity: Tensor,  # [T, 1, H, W] px of the left view, NaN where unmatched
    where: Tensor | None = None,  # bool [T, 1, H, W], None for all pixels
) -> Sum:
    """Count the pixels in front of the screen near the frame's left and right borders, and all pixels there.

    A pixel is near a border if it lies within 1 % of the width in either view; pixels outside either view are
    left out. An object that is in front of the screen but cut by the frame is uncomfortable (Mendiburu, 3D
    Movie Making). The thresholds are ours.
    """
    width = disparity.shape[-1]
    band = max(1, round(_BORDER_PERCENT / 100 * width))
    column = torch.arange(width).expand_as(disparity)
    place = column - disparity
    inside = (place > -0.5) & (place < width - 0.5)  # False for NaN
    at_side = (torch.minimum(column, place) < band - 0.5) | (
        torch.maximum(column, place) > width - band - 0.5
    )
    counted = inside & at_side if where is None else inside & at_side & where
    violating = counted & (disparity > _SCREEN_PERCENT / 100 * width)
    return float(violating.sum()), float(counted.sum())
