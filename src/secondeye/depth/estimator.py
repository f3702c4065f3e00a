"""The types that every depth estimator shares."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from torch import Tensor


class DepthEstimate(NamedTuple):
    """Depth of a few consecutive frames of one shot."""

    depth: Tensor
    """[t, 1, h, w] raw relative inverse depth, finite, larger is nearer; at most H x W, same aspect."""
    confidence: float
    """[0, 1]: how reliable the depth is; 1 for Depth Anything."""


DepthEstimator = Callable[[Iterable[Tensor]], Iterator[DepthEstimate]]
"""Windows of frames [t, 3, H, W] of ONE shot, in order -> estimates of the same frames, in order.

Windows and estimates may differ in length. An estimator looks a bounded number of frames ahead.
"""

FAR_QUANTILE, NEAR_QUANTILE = 0.01, 0.99  # of a shot's raw depth, mapped to 0 and 1: ignores outliers
