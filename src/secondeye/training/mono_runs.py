"""Runs of frames of monocular films, prepared on disk before a training: its samples are read from there.

The main process writes them, the others wait for it.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from secondeye.dataset.clip_files import read_disparity, read_frames, write_disparity, write_frames
from secondeye.inpaint import Conditioning
from secondeye.system.files import write_atomic
from secondeye.system.process import is_main_process
from secondeye.training.monocular import double_warp, plausible_disparity, read_runs
from secondeye.training.stereo_shot import StereoShot, quantize

_INDEX = "index.json"  # written last
_POLL_S = 0.1


@dataclass(frozen=True)
class MonoRun:
    """Consecutive frames of a monocular film with a plausible disparity, warped to a left view and back."""

    folder: str
    number: int  # of its files
    film: str  # file name
    frames: int
    height: int
    width: int
    offset_px: float  # of its disparity file
    conditioning: Conditioning
    max_gradient: float  # see `double_warp`

    @property
    def max_stride(self) -> int:
        return 1

    def read(self, frames: Sequence[int]) -> StereoShot:
        views, disparity = _files(Path(self.folder), self.number)
        given = read_frames(views, frames), read_disparity(disparity, self.offset_px, frames)
        return quantize(double_warp(*given, self.conditioning, self.max_gradient))


def prepare_mono_runs(
    films: Sequence[Path],
    folder: Path,  # created if missing; a finished one is used again
    frames: int,  # of each run
    height: int,
    width: int,
    seed: int,  # of the disparities
    conditioning: Conditioning,
    max_gradient: float,  # see `double_warp`; 0: the disparities have sharpened edges
) -> list[MonoRun]:
    """Write at most six runs of each film, each within one shot, spread evenly, and list them.

    Raises UnreadableFilm if a film cannot be read.
    """
    index = folder / _INDEX
    if is_main_process() and not index.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed)
        runs: list[MonoRun] = []
        for film in films:
            for run in read_runs(film, frames, height, width):
                views, disparity = _files(folder, len(runs))
                write_frames(views, run)
                estimated = plausible_disparity(run, rng, sharp=not max_gradient)
                offset_px = write_disparity(disparity, estimated)
                entry = (str(folder), len(runs), film.name, frames, height, width, offset_px)
                runs.append(MonoRun(*entry, conditioning, max_gradient))
        write_atomic(index, json.dumps([asdict(run) for run in runs], indent=1) + "\n")
    while not index.is_file():
        time.sleep(_POLL_S)
    return [MonoRun(**entry) for entry in json.loads(index.read_text())]


def _files(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f"{number:06d}.frames.mkv", folder / f"{number:06d}.disparity.mkv"
