"""One film of data/raw, and the hash of what it holds."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from secondeye.sources.stills import IMAGE_SUFFIXES, pictures_of
from secondeye.system.errors import UserError

FILM_SUFFIXES = {
    *(".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".wmv", ".flv", ".ogv", ".hevc"),
    *(".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob"),
}
STILL_SUFFIXES = {".jps", ".mpo", *IMAGE_SUFFIXES}


@dataclass(frozen=True)
class Source:
    """One stereo film, or one stereo picture, of data/raw."""

    name: str  # of the file or folder; of a pair, the left one's
    paths: tuple[Path, ...]  # one file; or two files, or two folders, left eye first
    packing: str
    split: str  # train, test or "" for left open
    licence: str  # "" for not stated
    remark: str  # what was guessed, and from what


@dataclass(frozen=True)
class MonoFilm:
    """One film of data/raw with one eye, to learn from."""

    path: Path
    licence: str  # "" for not stated


def strip_paths(source: Source, line: str) -> str:
    """A line about a source as a row keeps it, whatever the film will be called and wherever it lies.

    A row has the film's name, of a pair the left eye's; the right eye is called so.
    """
    line = line.removeprefix(f"{source.paths[0]}: ")
    for path, eye in zip(source.paths, ("left eye", "right eye"), strict=False):
        for after in (":", "/"):  # a file, or a picture in a folder
            line = line.replace(f"{path}{after}", f"{eye}{after}")
    return line


def is_still(path: Path) -> bool:
    """Whether a path is one picture, not a film or a folder."""
    return path.suffix.lower() in STILL_SUFFIXES and not path.is_dir()


def hash_source(source: Source) -> str:
    """16 hex digits of the SHA-256 of all its files' bytes, in order; names do not count. Raises Refusal."""
    files = [file for path in source.paths for file in (pictures_of(path) if path.is_dir() else [path])]
    if len(files) == 1:
        return _sha256(files[0])[:16]
    return hashlib.sha256("".join(_sha256(file) for file in files).encode()).hexdigest()[:16]


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: can not be read ({error.strerror})") from error
