"""Write files atomically and hash them."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds, else delete it."""
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that readers see the old content or the new, never a part."""
    with atomic_path(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def publish(part: Path, path: Path) -> None:
    """Rename a finished temporary file to its name, after its content has reached the disk."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(part, path)


def hash_folder(folder: Path) -> str:
    """Return the SHA-256 of all files in a folder, including their relative paths."""
    return _hash_files(folder, sorted(path for path in folder.rglob("*") if path.is_file()))


def hash_weights(folder: Path) -> str:
    """Return the SHA-256 of a model folder without run/, the record of its training run."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return _hash_files(folder, [path for path in files if path.relative_to(folder).parts[0] != "run"])


def _hash_files(folder: Path, files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder)}\0{hash_file(path)}".encode())
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
