"""One source in data/raw, and its content hash."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from secondeye.sources.stills import IMAGE_SUFFIXES, list_images
from secondeye.system.errors import UserError

FILM_SUFFIXES = {
    *(".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".wmv", ".flv", ".ogv", ".hevc"),
    *(".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob"),
}
STILL_SUFFIXES = {".jps", ".mpo", *IMAGE_SUFFIXES}


@dataclass(frozen=True)
class Source:
    """A stereo film or stereo image in data/raw."""

    name: str  # of the file or folder; of a pair, the left view's
    paths: tuple[Path, ...]  # one file; or two files or two folders, left view first
    packing: str
    split: str  # train, test, or "" if sources.csv does not say
    licence: str  # "" if sources.csv does not say
    remark: str  # what was inferred, and from what


@dataclass(frozen=True)
class MonoFilm:
    """A monocular film in data/raw, for training."""

    path: Path
    licence: str  # "" if sources.csv does not say


def strip_paths(source: Source, message: str) -> str:
    """Remove a source's paths from a message, so that it stays valid when files are moved or renamed.

    The path of the only or left file is dropped in front; elsewhere paths become `left view` or `right view`.
    """
    message = message.removeprefix(f"{source.paths[0]}: ")
    for path, view in zip(source.paths, ("left view", "right view"), strict=False):
        for after in (":", "/"):  # a file, or an image in a folder
            message = message.replace(f"{path}{after}", f"{view}{after}")
    return message


def is_still(path: Path) -> bool:
    """Whether a path is a single image, not a film or a folder."""
    return path.suffix.lower() in STILL_SUFFIXES and not path.is_dir()


def _files(source: Source) -> list[Path]:
    return [file for path in source.paths for file in (list_images(path) if path.is_dir() else [path])]


def size_bytes(source: Source) -> int:
    """Return the size of its files together."""
    return sum(file.stat().st_size for file in _files(source))


def hash_source(source: Source) -> str:
    """Return 16 hex digits of the SHA-256 of its files' contents, in order; names do not matter.

    Raises UserError if a file cannot be read.
    """
    files = _files(source)
    if len(files) == 1:
        return _sha256(files[0])[:16]
    return hashlib.sha256("".join(_sha256(file) for file in files).encode()).hexdigest()[:16]


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
