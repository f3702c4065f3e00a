"""The folder beside the output in which a conversion keeps what it has finished, to go on later."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from secondeye import modules
from secondeye.conversion.plan import Plan
from secondeye.conversion.settings import Settings
from secondeye.files import write_whole
from secondeye.process import alone_in
from secondeye.video.probe import FilmInfo

_OURS = ("shot_*.mp4", "film.*", "depth.f32", "sheet.png", "segment.part", "plan.json", "key", ".*.part*")


@dataclass(frozen=True)
class Journal:
    """One folder for one output; what is in it was made from one film with one set of settings."""

    folder: Path

    @property
    def spill(self) -> Path:
        """Raw depth of the shot at work."""
        return self.folder / "depth.f32"

    @property
    def film(self) -> Path:
        """The whole film before it gets its final name."""
        return self.folder / "film"

    @property
    def sheet(self) -> Path:
        """A picture of what was done to the film's middle frame."""
        return self.folder / "sheet.png"

    def segment(self, shot: int) -> Path:
        """The encoded pictures of one shot; there when they are whole."""
        return self.folder / f"shot_{shot:05d}.mp4"

    def remember(self, plan: Plan) -> None:
        """Keep the plan, so that continuing does not decode the film again to find it."""
        record = {"stamps": plan.stamps, "shots": plan.shots, "broken": plan.broken}
        write_whole(self.folder / "plan.json", json.dumps(record))

    def recall(self, info: FilmInfo) -> Plan | None:
        """The plan of an earlier run, if it got that far."""
        path = self.folder / "plan.json"
        if not path.exists():
            return None
        record = json.loads(path.read_text())
        shots = [(start, stop) for start, stop in record["shots"]]
        return Plan(info, record["stamps"], shots, record["broken"])

    def clear(self) -> None:
        """Remove what conversions put here, and nothing else."""
        for pattern in _OURS:
            for path in self.folder.glob(pattern):
                path.unlink()

    def remove(self) -> None:
        """The film is finished."""
        self.clear()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()


@contextmanager
def open_journal(output: Path, info: FilmInfo, settings: Settings) -> Iterator[Journal]:
    """Hold the journal of this output, emptied when film, settings or code changed; gone when it was removed.

    Raises Refusal when another process works on the same output.
    """
    folder = output.parent / f".{output.name}.unfinished"
    with alone_in(folder):
        journal = Journal(folder)
        key = _key(info.path, settings)
        stored = folder / "key"
        if not stored.exists() or stored.read_text() != key:
            journal.clear()
            write_whole(stored, key)
        yield journal


def _key(film: Path, settings: Settings) -> str:
    with film.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    parts = modules.made_by("secondeye.conversion.convert") | {
        "film": content,
        "settings": settings.describe(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
