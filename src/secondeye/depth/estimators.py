"""The depth estimators, by name. To add one, write its module, and add its name and its `case` here."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from secondeye.depth.interface import DepthEstimator
from secondeye.depth.options import DepthOptions
from secondeye.system.errors import UserError

MAX_MAP_PIXELS = {  # of an estimate, for the disk space that a conversion needs
    "motion": 384 * 384,
    "student": 512 * 512,
    "depth-anything-v2": 518 * 924,
    "depthcrafter": 1024 * 1024,  # at its own resolution
    "video-depth-anything": 1280 * 960,
}
NEED_SOURCE = ("hf", "exported")  # hf:ORG/NAME, hf:FOLDER, exported:FILE, or a folder of weights
DEPTH_ESTIMATORS = (*MAX_MAP_PIXELS, *NEED_SOURCE)
# May be given the place of their weights, as NAME:SOURCE.
WITH_SOURCE = ("depthcrafter", "video-depth-anything", *NEED_SOURCE)
FALLBACK = "motion"  # needs no weights


class Weights(NamedTuple):
    """Weights that neither come with a model of this project nor are trained by it."""

    hash: str  # of all that results depend on
    licence: str  # as their authors state it


def split_source(depth: str) -> tuple[str, str | None]:
    """Split `NAME:SOURCE`, of which the source is optional, into the estimator and where its weights are."""
    name, colon, source = depth.partition(":")
    return name, source if colon else None


def require_known_estimator(depth: str) -> None:
    """Raise ValueError unless `depth` is the name of an estimator, with a source if it takes one."""
    name, source = split_source(depth)
    if name not in DEPTH_ESTIMATORS:
        raise ValueError(f"{name!r} is not a depth estimator; choose {', '.join(DEPTH_ESTIMATORS)}")
    if source is not None and name not in WITH_SOURCE:
        raise ValueError(f"{name} takes no source after a colon; leave out {source!r}")
    if source == "":
        raise ValueError(f"the source after {depth!r} is missing; name a file, a folder or a model")


def locate(
    depth: str,  # an estimator's name
    weights: Path | None,  # folder of its weights in a bundle, if there is one
) -> str:
    """Return the name with the place of the weights, for `hf` and `exported` in a bundle.

    Raises ValueError if there is no such folder, UserError if it does not hold one exported network.
    """
    name, source = split_source(depth)
    if name not in NEED_SOURCE or source is not None:
        return depth
    if weights is None:
        raise ValueError(f"{name} needs the folder of its weights, or a source after a colon")
    if name == "hf":
        return f"{name}:{weights}"
    from secondeye.depth.exported import SUFFIXES

    files = sorted(path for path in weights.iterdir() if path.suffix in SUFFIXES)
    if len(files) != 1:
        kinds = " or ".join(SUFFIXES)
        raise UserError(f"{weights}: holds {len(files)} files {kinds}; it must hold one network")
    return f"{name}:{files[0]}"


def make_depth_estimator(
    depth: str,  # one of DEPTH_ESTIMATORS; `NAME:SOURCE` for those in WITH_SOURCE
    weights: Path | None,  # folder of weights in a bundle: of `student`, and of NEED_SOURCE without a source
    device: str,  # cpu or cuda; inputs and outputs stay on the CPU
    options: DepthOptions | None = None,
) -> DepthEstimator:
    """Return the depth estimator called `depth`.

    Raises ValueError for an unknown name and for a missing folder or source, UserError if weights cannot be
    loaded.
    """
    require_known_estimator(depth)
    depth = locate(depth, weights)
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
        case "depth-anything-v2" | "hf":
            from secondeye.depth.hugging_face import load_hugging_face

            return load_hugging_face(_hugging_face_model(depth), device)
        case "exported":
            from secondeye.depth.exported import load_exported

            return load_exported(_path(source))
        case "depthcrafter":
            from secondeye.depth.depthcrafter import load_depthcrafter

            return load_depthcrafter(_path(source) if source else None, device, options or DepthOptions())
        case "video-depth-anything":
            from secondeye.depth.video_depth_anything import load_video_depth_anything
            from secondeye.depth.video_depth_files import SMALL

            return load_video_depth_anything(source or SMALL, device)
    raise AssertionError(name)


def find_weights(depth: str) -> Weights | None:
    """Return hash and licence of the weights of networks that are not of this project; None for others.

    Downloads weights that are missing. Raises UserError if they cannot be had.
    """
    name, source = split_source(depth)
    match name:
        case "depth-anything-v2" | "hf":
            from secondeye.depth.hub import find_folder, hash_model, read_licence

            folder = find_folder(_hugging_face_model(depth))
            return Weights(hash_model(folder), read_licence(folder))
        case "exported":
            from secondeye.depth.exported import identify

            return Weights(*identify(_path(source)))
        case "depthcrafter":
            from secondeye.depth.depthcrafter.weights import identify as identify_folders

            return Weights(*identify_folders(_path(source) if source else None))
        case "video-depth-anything":
            from secondeye.depth import video_depth_files

            return Weights(*video_depth_files.identify(source or video_depth_files.SMALL))
    return None


def public_name(depth: str) -> str:
    """Return the name of an estimator for a film's record: without the folders of a file's path."""
    name, source = split_source(depth)
    if source is None or not _path(source).exists():
        return depth
    return f"{name}:{_path(source).name}"


def max_map_pixels(depth: str, height: int, width: int) -> int:
    """Return the pixels of the largest map that an estimator gives for frames of a size."""
    name = split_source(depth)[0]
    if name == "hf":
        from secondeye.depth.hugging_face import largest_map

        return largest_map(_hugging_face_model(depth), height, width)
    return MAX_MAP_PIXELS.get(name, height * width)


def peak_bytes(depth: str, height: int, width: int) -> int:
    """Return the memory on the CPU of weights and frames of networks that do not check it; 0 of others."""
    name, source = split_source(depth)
    match name:
        case "hf":
            from secondeye.depth.hugging_face import network_bytes

            return network_bytes(_hugging_face_model(depth), height, width)
        case "exported":
            from secondeye.depth.exported import network_bytes as file_bytes

            return file_bytes(_path(source))
        case "video-depth-anything":
            from secondeye.depth.video_depth_anything import network_bytes as video_bytes
            from secondeye.depth.video_depth_files import SMALL

            return video_bytes(source or SMALL, height, width)
    return 0


def _hugging_face_model(depth: str) -> str:
    """Return the id or the folder of a model."""
    name, source = split_source(depth)
    if name == "depth-anything-v2":
        from secondeye.depth.hugging_face import DEPTH_ANYTHING_V2

        return DEPTH_ANYTHING_V2
    return str(_path(source))


def _path(source: str | None) -> Path:
    return Path(source or "").expanduser()


def best_available() -> str:
    """Return the best estimator that needs no download; FALLBACK if no learned one is on this machine."""
    from secondeye.depth import hub, video_depth_files
    from secondeye.depth.hugging_face import DEPTH_ANYTHING_V2

    if video_depth_files.is_cached(video_depth_files.SMALL):
        return "video-depth-anything"
    return "depth-anything-v2" if hub.is_cached(DEPTH_ANYTHING_V2) else FALLBACK


def choose_best(log: Callable[[str], object]) -> tuple[str, str]:
    """Return the best estimator for this machine, and what would be better and how; "" if nothing would.

    Where no learned one is here, Depth Anything V2 Small is downloaded once. Offline this takes no more than
    system.hub.ANSWER_SECONDS; HF_HUB_OFFLINE=1 asks no network at all.
    """
    if (best := best_available()) != FALLBACK:
        return best, ""
    from secondeye.depth.hub import PATTERNS, find_folder
    from secondeye.depth.hugging_face import DEPTH_ANYTHING_V2
    from secondeye.system.hub import why_unavailable

    reason = why_unavailable(DEPTH_ANYTHING_V2, PATTERNS)
    if not reason:
        log(f"downloading {DEPTH_ANYTHING_V2} (Apache-2.0, about 100 MB), once; --offline never asks for it")
        try:
            find_folder(DEPTH_ANYTHING_V2)
        except UserError as error:
            reason = str(error)
        else:
            return "depth-anything-v2", ""
    return FALLBACK, (
        f"no learned depth model is here and none can be downloaded: {reason}; for better depth run "
        f"`hf download {DEPTH_ANYTHING_V2}` on a machine with a network and copy its cache"
    )
