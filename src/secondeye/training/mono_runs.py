"""Runs of frames of monocular films, prepared on disk before a training: its samples are read from there.

The main process writes them, the others wait for it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from secondeye.dataset.clip_files import read_disparity, read_frames, write_disparity, write_frames
from secondeye.inpaint import Conditioning
from secondeye.training.film_runs import prepare_once, read_runs
from secondeye.training.monocular import double_warp, plausible_disparity
from secondeye.training.stereo_shot import StereoShot, quantize


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

    def write() -> Iterator[MonoRun]:
        rng = np.random.default_rng(seed)
        written = 0
        for film in films:
            for run in read_runs(film, frames, height, width):
                views, disparity = _files(folder, written)
                write_frames(views, run)
                estimated = plausible_disparity(run, rng, sharp=not max_gradient)
                offset_px = write_disparity(disparity, estimated)
                entry = (str(folder), written, film.name, frames, height, width, offset_px)
                yield MonoRun(*entry, conditioning, max_gradient)
                written += 1

    return [MonoRun(**row) for row in prepare_once(folder, write)]


def _files(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f"{number:06d}.frames.mkv", folder / f"{number:06d}.disparity.mkv"
