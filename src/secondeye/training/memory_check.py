"""Does what a training learns from fit in memory, where it lies? Each process has all of it."""

import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from secondeye.dataset.clip_files import clip_file
from secondeye.dataset.schema import AcceptedClip, Clip, SyntheticShot
from secondeye.dataset.tables import read_table
from secondeye.system.disk import format_bytes
from secondeye.system.errors import UserError
from secondeye.system.process import is_main_process
from secondeye.video.probe import probe


def require_free_memory(need_bytes: float, label: str) -> None:
    """Print the estimate; raise Refusal when that much memory is not free."""
    free = psutil.virtual_memory().available
    told = f"{label}: samples take about {format_bytes(need_bytes)} of memory, {format_bytes(free)} free"
    if need_bytes > free:
        raise UserError(
            f"{told}; hold more films out (split test in sources.csv), or make views smaller or shots of the "
            "synthetic world fewer (split and synthetic in params.yaml)"
        )
    if is_main_process():
        print(told, file=sys.stderr)


def clips_of(split: Path, kept: Sequence[AcceptedClip]) -> list[Clip]:
    """The clips that were kept."""
    clips = {clip.id: clip for clip in read_table(split / "clips.parquet", Clip)}
    return [clips[row.id] for row in kept]


def synthetic_frames(synthetic: Path) -> int:
    """Of all shots of the synthetic world together."""
    return sum(shot.frames for shot in read_table(synthetic / "synthetic.parquet", SyntheticShot))


def synthetic_pixels(synthetic: Path) -> int:
    """Of all frames of one eye of the synthetic world, whose shots are all of one size."""
    shots = read_table(synthetic / "synthetic.parquet", SyntheticShot)
    if not shots:
        return 0
    first = probe(clip_file(synthetic, shots[0].id, "left"))
    return synthetic_frames(synthetic) * first.height * first.width
