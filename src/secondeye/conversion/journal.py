"""The folder beside the output in which a conversion keeps what it has finished, to go on later."""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from secondeye import modules
from secondeye.conversion.plan import Plan
from secondeye.conversion.settings import Settings
from secondeye.video.probe import FilmInfo

_LIBRARIES = ("torch", "opencv-python-headless", "numba", "numpy", "av")


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
        part = self.folder / "plan.json.part"
        part.write_text(json.dumps(record))
        os.replace(part, self.folder / "plan.json")

    def recall(self, info: FilmInfo) -> Plan | None:
        """The plan of an earlier run, if it got that far."""
        path = self.folder / "plan.json"
        if not path.exists():
            return None
        record = json.loads(path.read_text())
        shots = [(start, stop) for start, stop in record["shots"]]
        return Plan(info, record["stamps"], shots, record["broken"])

    def remove(self) -> None:
        """The film is finished."""
        shutil.rmtree(self.folder)


def open_journal(output: Path, info: FilmInfo, settings: Settings) -> Journal:
    """Continue the journal of this output, or begin a new one when film, settings or code changed."""
    folder = output.parent / f".{output.name}.unfinished"
    key = _key(info.path, settings)
    stored = folder / "key"
    if folder.exists() and not (stored.exists() and stored.read_text() == key):
        shutil.rmtree(folder)
    folder.mkdir(exist_ok=True)
    stored.write_text(key)
    return Journal(folder)


def _key(film: Path, settings: Settings) -> str:
    with film.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    parts = {
        "code": modules.code_hash(modules.reached("secondeye.conversion.convert")),
        "film": content,
        "libraries": {name: version(name) for name in _LIBRARIES},
        "settings": asdict(settings),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
