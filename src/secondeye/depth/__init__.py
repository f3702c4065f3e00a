"""Depth estimation: relative inverse depth of a shot, by one of several estimators."""

from secondeye.depth.estimators import (
    DEPTH_ESTIMATORS,
    MAX_MAP_PIXELS,
    best_available,
    make_depth_estimator,
    require_known_estimator,
    split_source,
)
from secondeye.depth.interface import (
    FAR_QUANTILE,
    NEAR_QUANTILE,
    DepthEstimate,
    DepthEstimator,
    DepthState,
    MemoryCheckedEstimator,
    SmallFrameEstimator,
)
from secondeye.depth.options import DepthOptions

__all__ = [
    "DEPTH_ESTIMATORS",
    "FAR_QUANTILE",
    "MAX_MAP_PIXELS",
    "NEAR_QUANTILE",
    "DepthEstimate",
    "DepthEstimator",
    "DepthOptions",
    "DepthState",
    "MemoryCheckedEstimator",
    "SmallFrameEstimator",
    "best_available",
    "make_depth_estimator",
    "require_known_estimator",
    "split_source",
]
