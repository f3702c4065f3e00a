"""Verify files against the checksums in the side entry `<id>.json` of their item.

FFmpeg does not report damage: it silently repeats the previous frame. So files are verified before reading.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from secondeye.system.errors import UserError
from secondeye.system.files import hash_file

_ENTRY = "[0-9a-f]" * 16 + ".json"
_REMEMBERED = 10_000  # hashes of a process


@dataclass(frozen=True)
class FileRecord:
    """A file of an item as its stage wrote it."""

    id: str  # of the item
    name: str
    bytes: int
    digest: str  # SHA-256


def list_files(
    folder: Path,  # of a stage
) -> list[FileRecord]:
    """List the files in all side entries of a folder, by name; a truncated entry lists itself, as damaged."""
    records = [record for entry in folder.glob(_ENTRY) for record in _read_entry(entry)]
    return sorted(records, key=lambda record: record.name)


def is_damaged(path: Path, record: FileRecord) -> bool:
    """Return whether a file is missing or differs from what its stage wrote."""
    return not path.is_file() or hash_file(path) != record.digest


def verify_checksum(path: Path) -> Path:
    """Return the path. Raises UserError if the file is missing or differs from its side entry.

    A process hashes a file again only if its size or time has changed: trainings read the same files often.
    """
    item = path.name.partition(".")[0]
    entry = path.with_name(f"{item}.json")
    records = [record for record in _read_entry(entry) if record.name == path.name] if entry.is_file() else []
    if path.is_file() and not any(_hash_once(path, *_state(path)) != one.digest for one in records):
        return path
    fault = "differs from what its stage wrote" if path.is_file() else "is missing"
    raise UserError(f"{path}: {fault}; delete {path.with_name(item)}.* and run dvc repro")


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


@lru_cache(_REMEMBERED)
def _hash_once(path: Path, size: int, mtime_ns: int) -> str:
    return hash_file(path)


def _read_entry(entry: Path) -> list[FileRecord]:
    try:
        files: dict[str, Any] = json.loads(entry.read_text())["files"]
    except ValueError:  # truncated by a power loss
        return [FileRecord(entry.stem, entry.name, 0, "")]
    return [FileRecord(entry.stem, name, file["bytes"], file["sha256"]) for name, file in files.items()]
