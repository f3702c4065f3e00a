"""What stages wrote: the side entry `<id>.json` of an item knows its files' lengths and digests.

Files are held against them before they are read: FFmpeg shows the picture before a damaged one in its place,
and raises nothing.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secondeye.system.errors import UserError
from secondeye.system.files import hash_file

_ENTRY = "[0-9a-f]" * 16 + ".json"


@dataclass(frozen=True)
class FileRecord:
    """A file of an item, as it was when it was written."""

    id: str  # of the item
    name: str
    bytes: int
    digest: str  # SHA-256


def list_files(
    folder: Path,  # of a stage
) -> list[FileRecord]:
    """Every file that the side entries of a folder list, by name; of half an entry the entry, as damaged."""
    found = [file for entry in folder.glob(_ENTRY) for file in _listed(entry)]
    return sorted(found, key=lambda file: file.name)


def is_damaged(path: Path, stored: FileRecord) -> bool:
    """Whether a file is gone or not the bytes that its stage wrote."""
    return not path.is_file() or hash_file(path) != stored.digest


def verify_checksum(path: Path) -> Path:
    """The path itself. Raises Refusal when a file is gone, or not what its side entry, if any, says."""
    item = path.name.partition(".")[0]
    entry = path.with_name(f"{item}.json")
    stored = [file for file in _listed(entry) if file.name == path.name] if entry.is_file() else []
    if path.is_file() and not any(is_damaged(path, file) for file in stored):
        return path
    what = "is not what its stage wrote" if path.is_file() else "is gone"
    raise UserError(f"{path}: {what}; delete {path.with_name(item)}.* and repeat `dvc repro`")


def _listed(entry: Path) -> list[FileRecord]:
    try:
        files: dict[str, Any] = json.loads(entry.read_text())["files"]
    except ValueError:  # half an entry, as a loss of power leaves it
        return [FileRecord(entry.stem, entry.name, 0, "")]
    return [FileRecord(entry.stem, name, told["bytes"], told["sha256"]) for name, told in files.items()]
