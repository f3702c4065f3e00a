"""Check that the training data fits in memory; every process holds all of it."""

import sys
from collections.abc import Iterable

import psutil
from humanize import naturalsize

from secondeye.dataset.reader import Dataset, DatasetClip
from secondeye.dataset.schema import SyntheticShot
from secondeye.system.errors import UserError
from secondeye.system.process import is_main_process
from secondeye.video.probe import probe


def require_free_memory(need_bytes: float, label: str) -> None:
    """Print the estimate. Raises UserError if less memory is free."""
    free = psutil.virtual_memory().available
    need_size, free_size = naturalsize(need_bytes, binary=True), naturalsize(free, binary=True)
    message = f"{label}: samples take about {need_size} of memory, {free_size} free"
    if need_bytes > free:
        raise UserError(
            f"{message}; hold out more films (split test in sources.csv), or lower the size of views or the "
            "number of synthetic shots (split and synthetic in params.yaml)"
        )
    if is_main_process():
        print(message, file=sys.stderr)


def count_frames(clips: Iterable[DatasetClip], synthetic: Iterable[SyntheticShot]) -> int:
    """Return the frames of all clips and synthetic shots."""
    return sum(one.clip.stop - one.clip.start for one in clips) + sum(shot.frames for shot in synthetic)


def synthetic_pixels(dataset: Dataset) -> int:
    """Return the pixels of all frames of one view of the synthetic shots, which share one size."""
    shots = dataset.rows(SyntheticShot)
    if not shots:
        return 0
    first = probe(dataset.file("synthetic", shots[0].id, "left"))
    return sum(shot.frames for shot in shots) * first.height * first.width
