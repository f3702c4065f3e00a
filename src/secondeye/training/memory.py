"""Does what a training learns from fit in memory, where it lies? Each process has all of it."""

import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from secondeye.clips import clip_file
from secondeye.disk import readable
from secondeye.process import is_main_process
from secondeye.refusal import Refusal
from secondeye.rows import Clip, Kept, Rendered
from secondeye.tables import read_table
from secondeye.video.probe import probe


def require_memory(need_bytes: float, label: str) -> None:
    """Print the estimate; raise Refusal when that much memory is not free."""
    free = psutil.virtual_memory().available
    told = f"{label}: what is learnt from takes about {readable(need_bytes)} of memory, {readable(free)} free"
    if need_bytes > free:
        raise Refusal(
            f"{told}; hold more films out (split test in sources.csv), or make views smaller or shots of the "
            "world fewer (split and world in params.yaml)"
        )
    if is_main_process():
        print(told, file=sys.stderr)


def clips_of(split: Path, kept: Sequence[Kept]) -> list[Clip]:
    """The clips that were kept."""
    clips = {clip.id: clip for clip in read_table(split / "clips.parquet", Clip)}
    return [clips[row.id] for row in kept]


def world_frames(world: Path) -> int:
    """Of all shots of the synthetic world together."""
    return sum(shot.frames for shot in read_table(world / "world.parquet", Rendered))


def world_pixels(world: Path) -> int:
    """Of all frames of one eye of the synthetic world, whose shots are all of one size."""
    shots = read_table(world / "world.parquet", Rendered)
    if not shots:
        return 0
    first = probe(clip_file(world, shots[0].id, "left"))
    return world_frames(world) * first.height * first.width
