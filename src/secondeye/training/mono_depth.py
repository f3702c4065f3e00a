"""Monocular films as training data of the depth student, with `motion` as its teacher.

Where the camera travels, `motion` sees depth by parallax. The student learns this depth from single frames,
without motion cues, and so has it when a camera stands (ours).
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from secondeye.dataset.clip_files import read_disparity, read_frames, write_disparity, write_frames
from secondeye.depth.motion import LONG_SIDE_PX, MotionEstimator
from secondeye.imaging.arrays import resize
from secondeye.params import TrainDepth
from secondeye.system.text import pluralize
from secondeye.training.depth_shots import DepthFrames
from secondeye.training.film_runs import prepare_once, read_runs

RUN_FRAMES = 24  # `motion` looks 12 frames back and ahead
MAX_RUNS = 24  # of one film
MIN_CONFIDENCE = 0.5  # of `motion`, mean of a run: what a travelling camera reaches if parallax is clear
DEPTH_SCALE = 100.0  # depth is stored like a disparity, in 1/64 px


@dataclass(frozen=True)
class MonoDepthRun:
    """Consecutive frames of a monocular film with the depth that `motion` estimates."""

    folder: str
    number: int  # of its files
    film: str  # file name
    frames: int
    offset_px: float  # of its depth file
    confidence: float  # of `motion`, [0, 1]

    @property
    def visits(self) -> int:
        """How often an epoch visits the run, relative to others."""
        return round(10 * self.confidence)

    def read(self, frames: Sequence[int]) -> DepthFrames:
        left, depth = _files(Path(self.folder), self.number)
        disparity = read_disparity(depth, self.offset_px, frames)
        return DepthFrames(read_frames(left, frames), disparity, torch.ones_like(disparity, dtype=torch.bool))


def prepare_mono_depth(
    films: Sequence[Path],
    folder: Path,  # created if missing; a finished one is used again
    settings: TrainDepth,
) -> list[MonoDepthRun]:
    """Write the runs of each film in which `motion` has a high confidence, and list them.

    `motion` sees the frames at its own size; frames and depth are stored at the student's. Raises
    UnreadableFilm if a film cannot be read.
    """
    if not films:
        return []
    frames = max(RUN_FRAMES, settings.frames)
    enlargement = max(1.0, LONG_SIDE_PX / max(settings.height, settings.width))
    size = round(settings.height * enlargement), round(settings.width * enlargement)

    def write() -> Iterator[MonoDepthRun]:
        written = 0
        for film in films:
            read, first = 0, written
            for run in read_runs(film, frames, *size, MAX_RUNS):
                read += 1
                estimates = list(MotionEstimator()([run]))
                confidence = float(np.mean([estimate.confidence for estimate in estimates]))
                if confidence < MIN_CONFIDENCE:
                    continue
                depth = torch.cat([estimate.depth for estimate in estimates])
                left, stored = _files(folder, written)
                write_frames(left, resize(run, settings.height, settings.width).clamp(0, 1))
                scaled = DEPTH_SCALE * resize(depth, settings.height, settings.width)
                offset_px = write_disparity(stored, scaled)
                yield MonoDepthRun(str(folder), written, film.name, frames, offset_px, confidence)
                written += 1
            taught = f"{written - first} of {pluralize(read, 'run')}"
            print(f"train_depth: {film.name}: depth by motion in {taught}", file=sys.stderr)

    return [MonoDepthRun(**row) for row in prepare_once(folder, write)]


def _files(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f"{number:06d}.frames.mkv", folder / f"{number:06d}.depth.mkv"
