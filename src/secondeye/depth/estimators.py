"""The depth estimators, by name. To add one, write its module, and add its name and its `case` here."""

from pathlib import Path

from secondeye.depth.interface import DepthEstimator

MAX_MAP_PIXELS = {  # of an estimate, for the disk space that a conversion needs
    "motion": 384 * 384,
    "student": 512 * 512,
    "depth-anything-v2": 518 * 924,
}
DEPTH_ESTIMATORS = tuple(MAX_MAP_PIXELS)


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
