"""The files of Video Depth Anything: given ones, those in the Hugging Face cache, or downloaded ones.

Without the network, whose libraries take seconds to import.
"""

from pathlib import Path

from secondeye.depth.hub import NOT_STATED
from secondeye.system.errors import UserError
from secondeye.system.files import hash_file
from secondeye.system.hub import find_cached, find_model

SMALL = "depth-anything/Video-Depth-Anything-Small"
_NON_COMMERCIAL = "CC-BY-NC-4.0"
RELEASED = {  # Hugging Face id: file, and licence as the authors state it
    SMALL: ("video_depth_anything_vits.pth", "Apache-2.0"),
    "depth-anything/Video-Depth-Anything-Base": ("video_depth_anything_vitb.pth", _NON_COMMERCIAL),
    "depth-anything/Video-Depth-Anything-Large": ("video_depth_anything_vitl.pth", _NON_COMMERCIAL),
    "depth-anything/Metric-Video-Depth-Anything-Small": ("metric_video_depth_anything_vits.pth", NOT_STATED),
    "depth-anything/Metric-Video-Depth-Anything-Base": ("metric_video_depth_anything_vitb.pth", NOT_STATED),
    "depth-anything/Metric-Video-Depth-Anything-Large": ("metric_video_depth_anything_vitl.pth", NOT_STATED),
}
SUFFIXES = (".pth", ".safetensors")


def identify(source: str) -> tuple[str, str]:
    """Return the hash of the weights and their licence; NOT_STATED for files."""
    licence = NOT_STATED if Path(source).expanduser().exists() else RELEASED.get(source, ("", NOT_STATED))[1]
    return hash_file(find_weights(source)), licence


def find_weights(source: str) -> Path:
    """Return the file of the weights, downloaded if necessary; UserError if there is none."""
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        if len(files) != 1:
            raise UserError(
                f"{source}: has {len(files)} files of weights ({', '.join(SUFFIXES)}); name one file"
            )
        return files[0]
    if source not in RELEASED:
        raise UserError(f"{source}: no such file or folder, and not one of {', '.join(RELEASED)}")
    return _download(source)


def is_cached(repository: str) -> bool:  # a key of RELEASED
    """Return whether the weights are in the local Hugging Face cache, without network access."""
    return find_cached(repository, lambda folder: _has_weights(folder, repository)) is not None


def _has_weights(folder: Path, repository: str) -> bool:
    return (folder / RELEASED[repository][0]).is_file()


def _download(repository: str) -> Path:
    """Return the file of weights in the cache, downloaded if it is not there."""
    name, _ = RELEASED[repository]
    remedy = (
        f"connect to the internet and run `hf download {repository} {name}`, or give its file, as "
        "--depth video-depth-anything:FILE"
    )
    folder = find_model(
        repository, [name], remedy, is_complete=lambda folder: _has_weights(folder, repository)
    )
    return folder / name
