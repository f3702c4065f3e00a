"""The folder beside the output in which a conversion keeps what it has finished, to go on later."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from secondeye.conversion.settings import ConversionSettings
from secondeye.execution import code_hash
from secondeye.film.shots import ShotPlan
from secondeye.system.files import write_atomic
from secondeye.system.process import lock_dir
from secondeye.video.probe import FilmInfo

_OURS = ("shot_*.mp4", "film.*", "depth.f32", "sheet.png", "segment.part", "plan.json", "key", ".*.part*")


@dataclass(frozen=True)
class Checkpoint:
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

    def remember(self, plan: ShotPlan) -> None:
        """Keep the plan, so that continuing does not decode the film again to find it."""
        record = {"timestamps": plan.timestamps, "shots": plan.shots, "error": plan.error}
        write_atomic(self.folder / "plan.json", json.dumps(record))

    def recall(self, info: FilmInfo) -> ShotPlan | None:
        """The plan of an earlier run, if it got that far."""
        path = self.folder / "plan.json"
        if not path.exists():
            return None
        record = json.loads(path.read_text())
        shots = [(start, stop) for start, stop in record["shots"]]
        return ShotPlan(info, record["timestamps"], shots, record["error"])

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
def open_checkpoint(output: Path, info: FilmInfo, settings: ConversionSettings) -> Iterator[Checkpoint]:
    """Hold the journal of this output, emptied when film, settings or code changed; gone when it was removed.

    Raises Refusal when another process works on the same output.
    """
    folder = output.parent / f".{output.name}.unfinished"
    with lock_dir(folder):
        journal = Checkpoint(folder)
        key = _key(info.path, settings)
        stored = folder / "key"
        if not stored.exists() or stored.read_text() != key:
            journal.clear()
            write_atomic(stored, key)
        yield journal


def _key(film: Path, settings: ConversionSettings) -> str:
    with film.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    parts = code_hash.code_and_versions("secondeye.conversion.convert") | {
        "film": content,
        "settings": settings.describe(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
