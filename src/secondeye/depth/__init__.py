"""Depth of a shot, by one of several estimators behind one function type."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from torch import Tensor


class DepthEstimate(NamedTuple):
    """Depth of a few consecutive frames of one shot."""

    depth: Tensor
    """[t, 1, h, w] raw relative inverse depth, finite, larger is nearer; h x w at most H x W, same aspect."""
    confidence: float
    """[0, 1]: how far this depth can be trusted; 1 for Depth Anything."""


DepthEstimator = Callable[[Iterable[Tensor]], Iterator[DepthEstimate]]
"""Windows [t, 3, H, W] of ONE shot, in order -> estimates covering exactly the same frames, in order.

The sizes of windows and estimates may differ. An estimator looks a bounded number of frames ahead.
"""


FAR_QUANTILE, NEAR_QUANTILE = (
    0.01,
    0.99,
)  # of a shot's raw depth, normalised to 0 and 1: outliers must not set the range


DEPTH_ESTIMATORS = ("motion", "student", "depth-anything-v2")


def make_depth_estimator(
    name: str,  # one of DEPTH_ESTIMATORS
    weights: Path | None,  # the student's folder, which only it has
    device: str,  # cpu or cuda; frames come and depth goes on the CPU
) -> DepthEstimator:
    """Return the estimator called `name`.

    Raises ValueError for another name and for a student without a folder, Refusal where weights are missing.
    """
    match name:
        case "motion":
            from secondeye.depth.motion import motion_depth

            return motion_depth
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
    """Name the best estimator that works without the network: a learned one if its weights are cached."""
    from secondeye.depth.depth_anything import is_cached

    return "depth-anything-v2" if is_cached() else "motion"
