"""What a dataset will need before the long work starts: disk and hours, by stage.

The figures are means over synthetic and real films of benchmarks/dataset_throughput.py, with the `video`
matcher: an order of magnitude, as noise decides how well pictures compress. DVC's cache may take as much disk
again. Before a stage writes, it asks the disk again, for a bound.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from secondeye.execution.dvc_cache import places_of
from secondeye.execution.parallel import worker_count
from secondeye.system.disk import format_bytes
from secondeye.system.errors import UserError
from secondeye.system.text import pluralize

# For a pixel of one eye at working size, both eyes included.
BYTES_PER_PIXEL = {"split": 1.56, "match": 0.41, "splat": 0.86, "quality": 0.25}
MICROSECONDS_PER_PIXEL = {"split": 0.40, "shift": 0.74, "match": 1.86, "splat": 0.28, "quality": 0.58}


@dataclass(frozen=True)
class Estimate:
    """About what the stages from split to quality need."""

    cores: int
    bytes: dict[str, float]  # by stage; stages that write numbers only are left out
    seconds: dict[str, float]  # by stage, on that many cores


def estimate(
    pixels: int,  # frames x height x width, of one eye at working size
    cores: int,
) -> Estimate:
    """What so many pixels need."""
    return Estimate(
        cores,
        {stage: pixels * each for stage, each in BYTES_PER_PIXEL.items()},
        {stage: pixels * each / 1e6 / cores for stage, each in MICROSECONDS_PER_PIXEL.items()},
    )


def announce(
    out: Path,  # the split stage's folder
    frames: int,
    height: int,  # px, working size of an eye
    width: int,  # px
    known_by: str = "",  # where the number of frames is from, if it is not certain
) -> None:
    """Say what a dataset of so many frames needs here; raises Refusal when the disk has not that much."""
    cores = worker_count(max(1, frames))
    require_room(out, frames, estimate(frames * height * width, cores), known_by)


def require_room(
    out: Path,  # the split stage's folder; the other stages' lie beside it
    frames: int,
    needs: Estimate,
    known_by: str = "",
) -> None:
    """Print what is needed, where it is not there yet; raises Refusal when the disk has not that much."""
    missing = {stage: max(0.0, size - _size(out.parent / stage)) for stage, size in needs.bytes.items()}
    if not (need := sum(missing.values())):
        return
    places = places_of(out)
    told = pluralize(frames, "frame") + f" ({known_by})" * bool(known_by)
    asked = f"{told} need about {format_bytes(need)} more on disk"
    asked += f" ({', '.join(f'{stage} {format_bytes(size)}' for stage, size in missing.items() if size)})"
    asked += ", and as much for DVC's cache" * (sum(place.times for place in places) > 1)
    hours = duration(sum(needs.seconds.values()))
    print(f"dataset: {asked}; from nothing, {hours} on {pluralize(needs.cores, 'core')}", flush=True)
    for folder, times in places:
        if times * need > (free := shutil.disk_usage(folder).free):
            raise UserError(
                f"dataset: {asked}, but the disk of {folder} has {format_bytes(free)}; free some, take fewer "
                "films or a smaller split.height and split.width"
            )


def duration(seconds: float) -> str:
    """A time as people read it."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _size(folder: Path) -> int:
    """Of the files right in a folder."""
    if not folder.is_dir():
        return 0
    with os.scandir(folder) as entries:
        return sum(entry.stat().st_size for entry in entries if entry.is_file())
