"""Depth estimation: relative inverse depth of a shot, by one of several estimators.

The estimators are in `depth.estimators`. This package does not import it: the training of the student would
otherwise depend on the code of every estimator.
"""

from secondeye.depth.interface import (
    FAR_QUANTILE,
    NEAR_QUANTILE,
    DepthEstimate,
    DepthEstimator,
    DepthState,
    MemoryCheckedEstimator,
    SmallFrameEstimator,
    SteppedEstimator,
)
from secondeye.depth.options import DepthOptions

__all__ = [
    "FAR_QUANTILE",
    "NEAR_QUANTILE",
    "DepthEstimate",
    "DepthEstimator",
    "DepthOptions",
    "DepthState",
    "MemoryCheckedEstimator",
    "SmallFrameEstimator",
    "SteppedEstimator",
]
