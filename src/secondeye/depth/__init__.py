"""Depth estimation: relative inverse depth of a shot, by one of several estimators."""

from secondeye.depth.estimators import (
    DEPTH_ESTIMATORS,
    FALLBACK,
    best_available,
    choose_best,
    find_weights,
    locate,
    make_depth_estimator,
    max_map_pixels,
    peak_bytes,
    public_name,
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
    "FALLBACK",
    "FAR_QUANTILE",
    "NEAR_QUANTILE",
    "DepthEstimate",
    "DepthEstimator",
    "DepthOptions",
    "DepthState",
    "MemoryCheckedEstimator",
    "SmallFrameEstimator",
    "best_available",
    "choose_best",
    "find_weights",
    "locate",
    "make_depth_estimator",
    "max_map_pixels",
    "peak_bytes",
    "public_name",
    "require_known_estimator",
    "split_source",
]
