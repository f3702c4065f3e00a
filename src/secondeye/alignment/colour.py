"""Colour differences between the views, from corresponding points (ours)."""

from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from secondeye.alignment.correspondences import Correspondences

_PATCH = 5  # px, averaged so that noise and half a pixel of error do not matter
_QUANTILES = np.linspace(0.05, 0.95, 19)
_MIN_RANGE = 10.0  # levels between the 5th and 95th percentile; below, only an offset is fitted
_GAINS = 0.25, 4.0
_MIN_CHANGE = 1.5  # levels by which a correction must change the middle half; otherwise none is applied
_MAX_REMAINING = 0.85  # share of the difference that may remain; otherwise no correction is applied


class ColourFit(NamedTuple):
    """Gain and offset per channel that map the right view's colours to the left view's, values in [0, 1]."""

    gain: tuple[float, float, float]
    offset: tuple[float, float, float]
    difference: float  # remaining median difference of the worst channel, levels of 255


def fit_colours(
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
    matches: Correspondences,  # at least one point
) -> ColourFit:
    """Fit gain and offset per channel to quantiles of matching points; 1 and 0 if the views agree."""
    left_smooth, right_smooth = (_blur(view) for view in (left, right))
    right_xy = matches.x - matches.disparity, matches.y + matches.vertical
    left_values = _sample(left_smooth, matches.frame, matches.x, matches.y)
    right_values = _sample(right_smooth, matches.frame, *right_xy)
    fits = [_fit(*pair) for pair in zip(right_values.T, left_values.T, strict=True)]
    gain, offset = np.array(fits).round(5).T
    initial = _median_difference(right_values, left_values)
    corrected = _median_difference(right_values * gain + offset * 255, left_values)
    change = max(_max_change(values, *fit) for values, fit in zip(right_values.T, fits, strict=True))
    if change <= _MIN_CHANGE or corrected.sum() > _MAX_REMAINING * initial.sum():
        return ColourFit((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), float(initial.max()))
    return ColourFit(tuple(gain.tolist()), tuple(offset.tolist()), float(corrected.max()))


def _median_difference(values: np.ndarray, target: np.ndarray) -> np.ndarray:  # [3] levels
    return np.asarray(np.median(np.abs(np.clip(values, 0, 255) - target), axis=0))


def _blur(frames: Tensor) -> np.ndarray:  # [T, H, W, 3] levels
    means = F.avg_pool2d(frames, _PATCH, 1, _PATCH // 2, count_include_pad=False)
    return means.permute(0, 2, 3, 1).numpy()


def _sample(frames: np.ndarray, frame: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:  # [N, 3]
    height, width = frames.shape[1:3]
    column, row = x.round().clip(0, width - 1).astype(int), y.round().clip(0, height - 1).astype(int)
    return frames[frame, row, column].astype(np.float64) * 255


def _fit(values: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Fit gain and offset (for values in [0, 1]) to quantiles, so that noise does not flatten the gain."""
    source_quantiles = np.quantile(values, _QUANTILES)
    target_quantiles = np.quantile(target, _QUANTILES)
    gain = 1.0
    if source_quantiles[-1] - source_quantiles[0] >= _MIN_RANGE:
        gain = float(np.clip(np.polyfit(source_quantiles, target_quantiles, 1)[0], *_GAINS))
    return gain, float(np.median(target_quantiles - gain * source_quantiles)) / 255


def _max_change(values: np.ndarray, gain: float, offset: float) -> float:
    """Return the largest change, in levels, that the correction makes to the quartiles."""
    middle = np.quantile(values, [0.25, 0.5, 0.75])
    return float(np.abs(middle * (gain - 1) + offset * 255).max())
