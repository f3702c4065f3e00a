"""The record of the inbox: one entry per film, in INBOX/.films.json.

A film was replaced if its size differs, or both its time of change and its hash.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from secondeye.system.errors import UserError
from secondeye.system.files import write_atomic
from secondeye.video.probe import UnreadableFilm

RECORD = ".films.json"
OPEN, DONE, ASIDE = "open", "done", "aside"  # states of an entry
_SAMPLE_BYTES = 2**20


@dataclass
class Entry:
    """What is known of a film."""

    stem: str  # of its output; no other film gets it
    state: str = OPEN
    size: int = -1  # bytes; this and the next two of the film that was last converted or tried
    mtime_ns: int = 0
    digest: str = ""  # "" before the first attempt
    output: str = ""  # name of the film in the outbox that was made from it
    replaces: list[str] = field(default_factory=list)  # outputs of this stem before the attempt
    attempts: int = 0  # that failed
    reason: str = ""  # of the last failure; the warning of a conversion
    aside: str = ""  # its name in failed/


def read_record(inbox: Path, log: Callable[[str], object]) -> dict[str, Entry]:
    """Return film name -> entry. A damaged record is renamed; the outputs say what is converted."""
    path = inbox / RECORD
    try:
        entries = {name: Entry(**values) for name, values in json.loads(path.read_text()).items()}
        if not all(map(_has_types, entries.values())):
            raise TypeError
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError):
        kept = path.with_name(f"{RECORD}.damaged")
        os.replace(path, kept)
        log(f"{path}: damaged, renamed to {kept.name}; the outputs say which films are converted")
        return {}
    return entries


def _has_types(entry: Entry) -> bool:
    expected = asdict(Entry(""))
    return all(type(value) is type(expected[name]) for name, value in asdict(entry).items())


def write_record(inbox: Path, entries: Mapping[str, Entry]) -> None:
    """Write the record atomically. Raises UserError if that fails."""
    path = inbox / RECORD
    content = {name: asdict(entry) for name, entry in entries.items()}
    try:
        write_atomic(path, json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error


def describe(film: Path) -> tuple[int, int, str]:
    """Return a film's size in bytes, time of change in ns, and hash of size and three samples.

    The samples are the first, middle and last MiB: to read all of a long film would take minutes.
    """
    with film.open("rb") as file:
        status = os.fstat(file.fileno())
        digest = hashlib.sha256(str(status.st_size).encode())
        for start in (0, (status.st_size - _SAMPLE_BYTES) // 2, status.st_size - _SAMPLE_BYTES):
            file.seek(max(0, start))
            digest.update(file.read(_SAMPLE_BYTES))
    return status.st_size, status.st_mtime_ns, digest.hexdigest()


def identity(output: Path) -> str:
    """Return what distinguishes an output from another one of the same name."""
    status = output.stat()
    return f"{output.name} {status.st_size} {status.st_mtime_ns}"


def source_of(output: Path) -> str:
    """Return the name of the film that an output was made from; "" if it does not say."""
    from secondeye.conversion import provenance  # imports torch: seconds

    try:
        return str((provenance.read_record(output) or {}).get("source", ""))
    except UnreadableFilm:
        return ""
