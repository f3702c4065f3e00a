"""Names of clips and of their files."""

import hashlib
from pathlib import Path


def clip_id(film_id: str, start: int, stop: int) -> str:
    """Hash film, first and last frame; the same on every machine."""
    return hashlib.sha256(f"{film_id} {start} {stop}".encode()).hexdigest()[:16]


def clip_file(folder: Path, clip: str, kind: str) -> Path:
    """Return the path of a clip's file of one kind, such as left, right, disparity, warped or occlusion."""
    return folder / f"{clip}.{kind}.mkv"
