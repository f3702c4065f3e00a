"""The depth estimators, by name. To add one, write its module, and add its name and its `case` here."""

from pathlib import Path

from secondeye.depth.interface import DepthEstimator
from secondeye.depth.options import DepthOptions

MAX_MAP_PIXELS = {  # of an estimate, for the disk space that a conversion needs
    "motion": 384 * 384,
    "student": 512 * 512,
    "depth-anything-v2": 518 * 924,
    "depthcrafter": 1024 * 1024,  # at its own resolution
    "video-depth-anything": 1280 * 960,
}
DEPTH_ESTIMATORS = tuple(MAX_MAP_PIXELS)
WITH_SOURCE = (
    "depthcrafter",
    "video-depth-anything",
)  # may be given the place of their weights, as NAME:SOURCE


def split_source(depth: str) -> tuple[str, str | None]:
    """Split `NAME:SOURCE`, of which the source is optional, into the estimator and where its weights are."""
    name, colon, source = depth.partition(":")
    return name, source if colon else None


def require_known_estimator(depth: str) -> None:
    """Raise ValueError unless `depth` is the name of an estimator, with a source if it takes one."""
    name, source = split_source(depth)
    if name not in DEPTH_ESTIMATORS:
        raise ValueError(f"the depth estimator must be one of {', '.join(DEPTH_ESTIMATORS)}, got {name!r}")
    if source is not None and (not source or name not in WITH_SOURCE):
        raise ValueError(f"{name} takes no source, or none that is empty, got {depth!r}")


def make_depth_estimator(
    depth: str,  # one of DEPTH_ESTIMATORS; `NAME:SOURCE` for those in WITH_SOURCE
    weights: Path | None,  # folder of a student's weights; unused by the others
    device: str,  # cpu or cuda; inputs and outputs stay on the CPU
    options: DepthOptions | None = None,
) -> DepthEstimator:
    """Return the depth estimator called `depth`.

    Raises ValueError for an unknown name and for a student without a folder, UserError if weights cannot be
    loaded.
    """
    require_known_estimator(depth)
    name, source = split_source(depth)
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
        case "depthcrafter":
            from secondeye.depth.depthcrafter import load_depthcrafter

            return load_depthcrafter(Path(source) if source else None, device, options or DepthOptions())
        case "video-depth-anything":
            from secondeye.depth.video_depth_anything import load_video_depth_anything
            from secondeye.depth.video_depth_weights import SMALL

            return load_video_depth_anything(source or SMALL, device)
    raise AssertionError(name)


def best_available() -> str:
    """Return the best estimator that needs no download: Depth Anything if it is cached, else motion."""
    from secondeye.depth.depth_anything import is_cached

    return "depth-anything-v2" if is_cached() else "motion"
