"""Depth estimation: relative inverse depth of a shot, by one of several estimators."""

from pathlib import Path

from secondeye.depth.estimator import (
    FAR_QUANTILE,
    NEAR_QUANTILE,
    DepthEstimate,
    DepthEstimator,
    DepthState,
    SmallFrameEstimator,
)

__all__ = [
    "DEPTH_ESTIMATORS",
    "FAR_QUANTILE",
    "NEAR_QUANTILE",
    "DepthEstimate",
    "DepthEstimator",
    "DepthState",
    "SmallFrameEstimator",
    "best_available",
    "make_depth_estimator",
]

DEPTH_ESTIMATORS = ("motion", "student", "depth-anything-v2")


def make_depth_estimator(
    name: str,  # one of DEPTH_ESTIMATORS
    weights: Path | None,  # folder of a student's weights; unused by the others
    device: str,  # cpu or cuda; inputs and outputs stay on the CPU
) -> DepthEstimator:
    """Return the depth estimator called `name`.

    Raises ValueError for an unknown name and for a student without a folder, UserError if weights cannot be
    loaded.
    """
    match name:
        case "motion":
            from secondeye.depth.motion import MotionEstimator

            return MotionEstimator()
        case "student":
            from secondeye.depth.student import load_student

            if weights is None:
                raise ValueError("the student needs the folder of its weights")
            return load_student(weights, device)
        case "depth-anything-v2":
            from secondeye.depth.depth_anything import load_depth_anything

            return load_depth_anything(device=device)
    raise ValueError(f"the depth estimator must be one of {', '.join(DEPTH_ESTIMATORS)}, got {name!r}")


def best_available() -> str:
    """Return the best estimator that needs no download: Depth Anything if it is cached, else motion."""
    from secondeye.depth.depth_anything import is_cached

    return "depth-anything-v2" if is_cached() else "motion"
