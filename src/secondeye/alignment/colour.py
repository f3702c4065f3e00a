"""Whether one eye is brighter or tinted, told by what both of them see (ours)."""

from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from secondeye.alignment.correspondences import Correspondences

_PATCH = 5  # px, averaged: noise and half a pixel of error do not matter then
_QUANTILES = np.linspace(0.05, 0.95, 19)
_MIN_RANGE = 10.0  # levels between the 5th and the 95th percentile, to tell a gain from an offset
_GAINS = 0.25, 4.0
_CAST = 1.5  # levels that the correction must change the middle half by; less is left exactly alone
_BETTER = 0.85  # share of the difference that may be left after it; more, and there was no cast


class Colours(NamedTuple):
    """Channel c of the right eye looks like the left one's as gain[c] * c + offset[c], values in [0, 1]."""

    gain: tuple[float, float, float]
    offset: tuple[float, float, float]
    difference: float  # levels of 255 between the eyes that are left after that: median, largest channel


def fit_colours(
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
    matches: Correspondences,  # at least one
) -> Colours:
    """One gain and offset for each channel, by quantiles of what matches; 1 and 0 where nothing differs."""
    own, other = (_smooth(eye) for eye in (left, right))
    there = matches.x - matches.disparity, matches.y + matches.vertical
    ours, theirs = _sample(own, matches.frame, matches.x, matches.y), _sample(other, matches.frame, *there)
    fits = [_fit(*pair) for pair in zip(theirs.T, ours.T, strict=True)]
    gain, offset = np.array(fits).round(5).T
    before, after = _difference(theirs, ours), _difference(theirs * gain + offset * 255, ours)
    changed = max(_change(values, *fit) for values, fit in zip(theirs.T, fits, strict=True))
    if changed <= _CAST or after.sum() > _BETTER * before.sum():
        return Colours((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), float(before.max()))
    return Colours(tuple(gain.tolist()), tuple(offset.tolist()), float(after.max()))


def _difference(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:  # [3] levels
    return np.asarray(np.median(np.abs(np.clip(values, 0, 255) - wanted), axis=0))


def _smooth(frames: Tensor) -> np.ndarray:  # [T, H, W, 3] levels
    means = F.avg_pool2d(frames, _PATCH, 1, _PATCH // 2, count_include_pad=False)
    return means.permute(0, 2, 3, 1).numpy()


def _sample(frames: np.ndarray, frame: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:  # [N, 3]
    height, width = frames.shape[1:3]
    column, row = x.round().clip(0, width - 1).astype(int), y.round().clip(0, height - 1).astype(int)
    return frames[frame, row, column].astype(np.float64) * 255


def _fit(values: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """Gain and offset (of [0, 1]) by a line through quantiles: noise in `values` does not flatten it."""
    given, goal = np.quantile(values, _QUANTILES), np.quantile(wanted, _QUANTILES)
    gain = 1.0
    if given[-1] - given[0] >= _MIN_RANGE:
        gain = float(np.clip(np.polyfit(given, goal, 1)[0], *_GAINS))
    return gain, float(np.median(goal - gain * given)) / 255


def _change(values: np.ndarray, gain: float, offset: float) -> float:
    """Levels by which the correction moves what is neither the darkest nor the brightest quarter, at most."""
    middle = np.quantile(values, [0.25, 0.5, 0.75])
    return float(np.abs(middle * (gain - 1) + offset * 255).max())
