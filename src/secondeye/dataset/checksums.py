"""Verify files against the checksums in the side entry `<id>.json` of their item.

FFmpeg does not report damage: it silently repeats the previous frame. So files are verified before reading.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from secondeye.system.errors import UserError
from secondeye.system.files import hash_file

_ENTRY = re.compile(r"[0-9a-f]{16}\.json")
_REMEMBERED = 10_000  # hashes of a process


@dataclass(frozen=True)
class FileRecord:
    """A file of an item as its stage wrote it."""

    id: str  # of the item
    name: str
    bytes: int
    digest: str  # SHA-256
    written_ns: int  # time of the side entry


def list_entries(
    folder: Path,  # of a stage
) -> list[str]:
    """Return the names of all side entries of a folder, sorted."""
    with os.scandir(folder) as found:
        return sorted(entry.name for entry in found if _ENTRY.fullmatch(entry.name))


def read_entry(entry: Path) -> Iterator[FileRecord]:
    """Yield the files in a side entry; a truncated entry yields itself, as damaged."""
    item = entry.name.partition(".")[0]
    try:
        files: dict[str, Any] = json.loads(entry.read_text())["files"]
    except ValueError:  # truncated by a power loss
        yield FileRecord(item, entry.name, 0, "", 0)
        return
    yield from file_records(item, files, entry.stat().st_mtime_ns)


def file_records(item: str, files: Mapping[str, Any], written_ns: int) -> Iterator[FileRecord]:
    """Yield what the content of a side entry says about its files."""
    for name, file in files.items():
        yield FileRecord(item, name, file["bytes"], file["sha256"], written_ns)


def is_intact(path: Path, record: FileRecord) -> bool:
    """Return whether a file has its recorded length, and its digest if it was modified after its record.

    So a large dataset is not read whole every time. Whoever reads a file verifies its digest.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    if status.st_size != record.bytes:
        return False
    return status.st_mtime_ns <= record.written_ns or hash_file(path) == record.digest


def verify_checksum(path: Path) -> Path:
    """Return the path. Raises UserError if the file is missing or differs from its side entry.

    A process hashes a file again only if its size or time has changed: trainings read the same files often.
    """
    item = path.name.partition(".")[0]
    entry = path.with_name(f"{item}.json")
    records = [record for record in read_entry(entry) if record.name == path.name] if entry.is_file() else []
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
