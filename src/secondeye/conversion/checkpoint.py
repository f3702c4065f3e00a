"""The checkpoint of a conversion: a folder beside the output that holds what is finished, to resume from.

key                              hash of film, settings and code
plan.json, inpaint.json          the shots, and the plans of the inpainter
shot_START.json                  depths, strength and convergence of a shot: shot_record.py
depth_START.json                 size, range and confidence of a shot's raw depth, once its pass is finished
depth_START.f32                  raw depth of the shot that begins at frame START
depth_START.safetensors          state of the depth estimator, while its pass runs
segment_START_STOP.mp4           encoded frames START to STOP - 1, of one shot
inpaint_STOP.safetensors         state of the inpainter after frame STOP - 1
segment_START.part               the segment that is being encoded
depth_maps*                      depth maps of `secondeye depth`, before they are moved to the output
depth_replaced                   the maps that were there before
preview.png                      the preview, before it is moved to its name
workers.lock                     held by every process that converts shots for this run
film.NAME                        a muxed film
finished                         size and time of the films or the maps, before they are moved to the output

A file appears under its name when it is complete, and a segment after the state that continues it.
"""

import hashlib
import json
import re
import shutil
from base64 import b64decode, b64encode
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from secondeye.conversion.settings import ConversionSettings
from secondeye.execution import code_hash
from secondeye.film.letterbox import Letterbox
from secondeye.film.shots import ShotPlan
from secondeye.film.still_parts import StillParts
from secondeye.inpaint import InpainterState, InpaintPlan
from secondeye.system.files import publish, write_atomic
from secondeye.system.process import lock_dir, wait_for_shared_locks
from secondeye.video.probe import FilmInfo

_FILES = (
    "shot_*.mp4",  # of earlier versions, as segment.part
    "shot_*.json",
    "segment_*.mp4",
    "segment*.part",
    "inpaint_*.safetensors",
    "depth_*",
    "film.*",
    "finished",
    "preview.png",
    "plan.json",
    "inpaint.json",
    "key",
    "workers.lock",
    ".*.part*",
)
_SEGMENT = re.compile(r"segment_(\d+)_(\d+)\.mp4")
_STATE = re.compile(r"inpaint_(\d+)\.safetensors")


@dataclass(frozen=True)
class Segment:
    """An encoded part of one shot."""

    start: int  # first frame, of the film
    stop: int  # one past the last
    path: Path


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint folder of one output, valid for one film and one set of settings."""

    folder: Path

    @property
    def workers_lock(self) -> Path:
        """File that every process which converts shots for the run holds a shared lock on."""
        return self.folder / "workers.lock"

    @property
    def preview(self) -> Path:
        """Preview picture of the film's middle frame."""
        return self.folder / "preview.png"

    def film(self, output: Path) -> Path:
        """Return the path at which a film is muxed before it is moved to the output."""
        return self.folder / f"film.{output.name}"

    def raw_depth(self, shot_start: int) -> Path:
        """Return the file for the raw depth of a shot; its pass keeps two more files of this stem."""
        return self.folder / f"depth_{shot_start:08d}.f32"

    def segments(self, shots: Sequence[tuple[int, int]]) -> list[list[Segment]]:
        """Return the finished segments of each shot, without gaps from its first frame on."""
        found = {}
        for path in self.folder.iterdir():
            if match := _SEGMENT.fullmatch(path.name):
                found[int(match[1])] = Segment(int(match[1]), int(match[2]), path)
        chains = []
        for start, stop in shots:
            chain = list[Segment]()
            while start < stop and start in found:
                chain.append(found[start])
                start = found[start].stop
            chains.append(chain)
        return chains

    def resume(self, start: int, stop: int) -> tuple[int, InpainterState | None]:
        """Return the first frame of a shot that is not encoded, and the inpainter's state before it.

        A shot without that state, after an interrupted `forget_shots`, starts over.
        """
        (finished,) = self.segments([(start, stop)])
        if not finished or finished[-1].stop == stop:
            return (stop if finished else start), None
        state = self._state(finished[-1].stop)
        if not state.exists():
            self._delete_encoded([(start, stop)])
            return start, None
        return finished[-1].stop, load_file(state)

    def part(self, start: int) -> Path:
        """Return the path at which the segment that begins with frame `start` is encoded."""
        return self.folder / f"segment_{start:08d}.part"

    def finish_segment(self, start: int, stop: int, state: InpainterState | None) -> None:
        """Give the segment at `part(start)` its name, after the state that continues it; None ends a shot."""
        if state is not None:
            write_atomic(self._state(stop), save_tensors(state))
        publish(self.part(start), self.folder / f"segment_{start:08d}_{stop:08d}.mp4")
        self._state(start).unlink(missing_ok=True)

    def _state(self, stop: int) -> Path:
        return self.folder / f"inpaint_{stop:08d}.safetensors"

    def unfinished(self, plan: ShotPlan) -> list[int]:
        """Return the numbers of the shots that are not encoded to their end."""
        return [
            number
            for number, ((_, stop), chain) in enumerate(
                zip(plan.shots, self.segments(plan.shots), strict=True)
            )
            if not chain or chain[-1].stop < stop
        ]

    def frames_done(self, shots: Sequence[tuple[int, int]]) -> int:
        """Return the number of frames of these shots that are encoded."""
        return sum(segment.stop - segment.start for chain in self.segments(shots) for segment in chain)

    def save_shot(self, start: int, record: Mapping[str, Any]) -> None:
        """Save what a shot is rendered with; no segment of it exists before."""
        write_atomic(self._shot(start), json.dumps(record))

    def load_shot(self, start: int) -> dict[str, Any] | None:
        """Return what a shot was rendered with; None if none of it was."""
        path = self._shot(start)
        return json.loads(path.read_text()) if path.exists() else None

    def _shot(self, start: int) -> Path:
        return self.folder / f"shot_{start:08d}.json"

    def forget_shots(self, shots: Sequence[tuple[int, int]]) -> None:
        """Delete what is encoded of these shots, and last what they were rendered with."""
        self._delete_encoded(shots)
        for start, _ in shots:
            self._shot(start).unlink(missing_ok=True)

    def _delete_encoded(self, shots: Sequence[tuple[int, int]]) -> None:
        """Delete segments and states of shots; the first segment first, so that no chain is left half."""
        ordered = sorted(shots)
        starts = [start for start, _ in ordered]

        def is_of_them(frame: int) -> bool:
            position = bisect_right(starts, frame) - 1
            return position >= 0 and frame < ordered[position][1]

        names = sorted(path.name for path in self.folder.iterdir())
        for pattern, offset in ((_SEGMENT, 0), (_STATE, 1)):
            for name in names:
                match = pattern.fullmatch(name)
                if match and is_of_them(int(match[1]) - offset):
                    (self.folder / name).unlink()

    def save_plan(self, plan: ShotPlan) -> None:
        """Save the shot plan, so that resuming does not search for cuts again."""
        record = {
            "timestamps": plan.timestamps,
            "shots": plan.shots,
            "error": plan.error,
            "lost": plan.lost,
            "concealed": plan.concealed,
            "letterboxes": [still.letterbox for still in plan.still],
            "overlays": [b64encode(still.overlay).decode() for still in plan.still],
        }
        write_atomic(self.folder / "plan.json", json.dumps(record))

    def load_plan(self, info: FilmInfo) -> ShotPlan | None:
        """Return the saved shot plan; None if there is none."""
        path = self.folder / "plan.json"
        if not path.exists():
            return None
        record = json.loads(path.read_text())
        shots = [(start, stop) for start, stop in record["shots"]]
        still = [
            StillParts(Letterbox(*bands), b64decode(overlay))
            for bands, overlay in zip(record["letterboxes"], record["overlays"], strict=True)
        ]
        frames = record["lost"], record["concealed"]
        return ShotPlan(info, record["timestamps"], shots, record["error"], *frames, still)

    def save_inpaint_plans(self, plans: Sequence[InpaintPlan]) -> None:
        """Save the inpainter's plans, so that resuming gives the same pixels with other free memory."""
        record = [plan.describe() for plan in plans]
        write_atomic(self.folder / "inpaint.json", json.dumps(record, indent=1) + "\n")

    def load_inpaint_plans(self) -> list[InpaintPlan]:
        """Return the saved plans of the inpainter, one for each size of picture; none if there are none."""
        path = self.folder / "inpaint.json"
        return list(map(InpaintPlan.from_dict, json.loads(path.read_text()))) if path.exists() else []

    def publish_films(self, outputs: Sequence[Path]) -> None:
        """Move the muxed films to their outputs."""
        muxed = [self.film(output) for output in outputs]
        self.finish(*muxed)
        for film, output in zip(muxed, outputs, strict=True):
            publish(film, output)

    def finish(self, *parts: Path) -> None:
        """Note that files or folders, complete here, are about to be moved to their outputs."""
        write_atomic(self._finished, "\n".join(map(_size_and_time, parts)))

    def has_published(self, output: Path) -> bool:
        """Return whether the output is a film, or the depth maps, that were made here."""
        return (
            output.exists()
            and self._finished.exists()
            and _size_and_time(output) in self._finished.read_text().splitlines()
        )

    @property
    def _finished(self) -> Path:
        return self.folder / "finished"

    def clear(self) -> None:
        """Delete the files that conversions write here, and no others."""
        for pattern in _FILES:
            for path in self.folder.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def keep(self) -> int:  # bytes
        """Delete what only an unfinished conversion needs; return the size of what another one can use."""
        for pattern in ("film.*", "finished", "depth_*", "segment*.part"):
            for path in self.folder.glob(pattern):
                path.unlink()
        return sum(path.stat().st_size for path in self.folder.iterdir())

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
    checkpoint = _checkpoint_of(output)
    folder = checkpoint.folder
    with lock_dir(folder):
        # Workers may still write for a moment after their run was killed.
        wait_for_shared_locks(checkpoint.workers_lock)
        key = _key(info.path, settings)
        stored = folder / "key"
        if not stored.exists() or stored.read_text() != key:
            checkpoint.clear()
            write_atomic(stored, key)
        yield checkpoint


def remove_if_published(
    *outputs: Path,
    keep: bool = False,  # what another conversion to the same output can use
) -> bool:  # whether an output was still to be moved
    """Delete the checkpoint of a run that was killed after it had moved what it made to the output.

    Of a run that was killed between two outputs, the second is moved first.
    """
    checkpoint = _checkpoint_of(outputs[0])
    if not any(map(checkpoint.has_published, outputs)):
        return False
    with lock_dir(checkpoint.folder):
        waiting = [output for output in outputs if checkpoint.film(output).exists()]
        for output in waiting:
            publish(checkpoint.film(output), output)
        if keep:
            checkpoint.keep()
        else:
            checkpoint.remove()
    return bool(waiting)


def remove_checkpoint(output: Path) -> None:
    """Delete the checkpoint of an output, if there is one. Raises UserError if a process works in it."""
    checkpoint = _checkpoint_of(output)
    if checkpoint.folder.exists():
        with lock_dir(checkpoint.folder):
            wait_for_shared_locks(checkpoint.workers_lock)
            checkpoint.remove()


def _checkpoint_of(output: Path) -> Checkpoint:
    return Checkpoint(output.parent / f".{output.name}.unfinished")


def _size_and_time(film: Path) -> str:
    """Return what a file or folder keeps when it is renamed."""
    status = film.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def save_tensors(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Return tensors as the bytes of a safetensors file; they may share memory or lie on a GPU."""
    copies = {name: torch.empty_like(tensor, device="cpu").copy_(tensor) for name, tensor in tensors.items()}
    return save({name: tensor.contiguous() for name, tensor in copies.items()}, metadata)


def _key(film: Path, settings: ConversionSettings) -> str:
    with film.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    parts = code_hash.code_and_versions("secondeye.conversion.convert") | {
        "film": content,
        "settings": settings.describe(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
