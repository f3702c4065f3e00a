"""The checkpoint of a conversion: a folder beside the output that holds finished shots, to resume from."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from secondeye.conversion.settings import ConversionSettings
from secondeye.execution import code_hash
from secondeye.film.shots import ShotPlan
from secondeye.inpaint import InpaintPlan
from secondeye.system.files import write_atomic
from secondeye.system.process import lock_dir
from secondeye.video.probe import FilmInfo

_FILES = (
    "shot_*.mp4",
    "film.*",
    "depth.f32",
    "preview.png",
    "segment.part",
    "plan.json",
    "inpaint.json",
    "key",
    ".*.part*",
)


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint folder of one output, valid for one film and one set of settings."""

    folder: Path

    @property
    def raw_depth(self) -> Path:
        """File for the raw depth of the current shot."""
        return self.folder / "depth.f32"

    @property
    def preview(self) -> Path:
        """Preview picture of the film's middle frame."""
        return self.folder / "preview.png"

    def film(self, suffix: str) -> Path:
        """Return the path at which the film is muxed before it is moved to the output."""
        return self.folder / f"film{suffix}"

    def segment(self, shot: int) -> Path:
        """Return the path of an encoded shot; the file exists only when it is complete."""
        return self.folder / f"shot_{shot:05d}.mp4"

    def unfinished(self, plan: ShotPlan) -> list[int]:
        """Return the numbers of the shots that are not encoded yet."""
        return [number for number in range(len(plan.shots)) if not self.segment(number).exists()]

    def save_plan(self, plan: ShotPlan) -> None:
        """Save the shot plan, so that resuming does not search for cuts again."""
        record = {"timestamps": plan.timestamps, "shots": plan.shots, "error": plan.error}
        write_atomic(self.folder / "plan.json", json.dumps(record))

    def load_plan(self, info: FilmInfo) -> ShotPlan | None:
        """Return the saved shot plan; None if there is none."""
        path = self.folder / "plan.json"
        if not path.exists():
            return None
        record = json.loads(path.read_text())
        shots = [(start, stop) for start, stop in record["shots"]]
        return ShotPlan(info, record["timestamps"], shots, record["error"])

    def save_inpaint_plan(self, plan: InpaintPlan) -> None:
        """Save the plan of the inpainter, so that resuming gives the same pixels with other free memory."""
        write_atomic(self._inpaint_plan, json.dumps(plan.describe()))

    def load_inpaint_plan(self) -> InpaintPlan | None:
        """Return the saved plan of the inpainter; None if there is none."""
        path = self._inpaint_plan
        return InpaintPlan.from_dict(json.loads(path.read_text())) if path.exists() else None

    @property
    def _inpaint_plan(self) -> Path:
        return self.folder / "inpaint.json"

    def clear(self) -> None:
        """Delete the files that conversions write here, and no others."""
        for pattern in _FILES:
            for path in self.folder.glob(pattern):
                path.unlink()

    def remove(self) -> None:
        """Delete the checkpoint folder; it stays if it holds other files."""
        self.clear()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()


@contextmanager
def open_checkpoint(output: Path, info: FilmInfo, settings: ConversionSettings) -> Iterator[Checkpoint]:
    """Lock and yield the checkpoint of an output, emptied if film, settings or code have changed.

    Raises UserError when another process is converting to the same output.
    """
    folder = output.parent / f".{output.name}.unfinished"
    with lock_dir(folder):
        checkpoint = Checkpoint(folder)
        key = _key(info.path, settings)
        stored = folder / "key"
        if not stored.exists() or stored.read_text() != key:
            checkpoint.clear()
            write_atomic(stored, key)
        yield checkpoint


def _key(film: Path, settings: ConversionSettings) -> str:
    with film.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    parts = code_hash.code_and_versions("secondeye.conversion.convert") | {
        "film": content,
        "settings": settings.describe(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
