"""Runs of consecutive frames of monocular films, and their preparation on disk before a training."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secondeye.film.cuts import CUT_THRESHOLD
from secondeye.film.packing import crop_and_resize
from secondeye.film.shots import plan_shots
from secondeye.imaging.arrays import frames_from_uint8
from secondeye.system.files import write_atomic
from secondeye.system.process import is_main_process
from secondeye.video.probe import probe
from secondeye.video.read import ShotReader

MIN_SHOT_FRAMES = 8  # shorter shots are merged
MAX_RUNS = 6  # of one film
_INDEX = "index.json"  # written last
_POLL_S = 0.1


def read_runs(
    film: Path, frames: int, height: int, width: int, max_runs: int = MAX_RUNS
) -> Iterator[Tensor]:  # [frames, 3, height, width] each
    """Read at most `max_runs` runs of consecutive frames, spread evenly, each within one shot.

    Black bands are cut off. Raises UnreadableFilm if the film cannot be read.
    """
    info = probe(film)
    plan = plan_shots(info, cut_threshold=CUT_THRESHOLD, min_shot_frames=MIN_SHOT_FRAMES)
    starts = [
        (start, still.letterbox)
        for (first, stop), still in zip(plan.shots, plan.still, strict=True)
        for start in range(first, stop - frames + 1, frames)
    ]
    chosen = np.linspace(0, len(starts) - 1, min(max_runs, len(starts))).round().astype(int)
    reader = ShotReader(film, plan.timestamps)
    for start, letterbox in (starts[index] for index in chosen):
        images = (frame.rgb for frame in reader.read(start, start + frames))
        pictures = (image[letterbox.inside(*image.shape[:2])] for image in images)
        fitted = [crop_and_resize(picture, height, width, info.pixel_aspect) for picture in pictures]
        yield frames_from_uint8(torch.from_numpy(np.stack(fitted)))


def prepare_once(
    folder: Path,  # created if missing; a finished one is used again
    write: Callable[[], Iterable[Any]],  # writes the files and yields a dataclass for each run
) -> list[dict[str, Any]]:
    """Call `write` in the main process unless it is done, and return its rows; other processes wait."""
    index = folder / _INDEX
    if is_main_process() and not index.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(index, json.dumps([asdict(row) for row in write()], indent=1) + "\n")
    while not index.is_file():
        time.sleep(_POLL_S)
    rows: list[dict[str, Any]] = json.loads(index.read_text())
    return rows
