"""Shots of the synthetic world, with what is known about them exactly: what no real film can teach."""

import hashlib
from pathlib import Path

import numpy as np

from secondeye.clips import clip_file, write_disparity, write_frames, write_occlusion
from secondeye.keep import Job, finish_jobs, make_key
from secondeye.params import World
from secondeye.process import alone_in
from secondeye.rows import Rendered
from secondeye.tables import write_table
from secondeye.world import render_shot

_BYTES_PER_PIXEL = 6.0  # a bound, of all files together
_PLACE = 4  # the sample films are drawn from places 0 to 3: they show none of these shots


def run(out: Path, *, world: World) -> None:
    """Write each shot's eyes, disparities and occlusions, and `world.parquet`."""
    with alone_in(out):
        jobs = [_job(number, world) for number in range(world.shots)]
        done = finish_jobs(out, jobs, _render, Rendered, label="world", max_bad_fraction=0.0, unit="shot")
        write_table(out / "world.parquet", done.rows, Rendered)


def _job(number: int, world: World) -> Job:
    seed = int(np.random.SeedSequence([world.seed, _PLACE, number]).generate_state(1, np.uint64)[0])
    shape = (world.frames, world.height, world.width)
    name = hashlib.sha256(f"{seed} {shape}".encode()).hexdigest()[:16]
    # The number of shots is no part of the key: more shots render only what is new.
    key = make_key("world", Rendered, [], [name])
    return Job(name, key, (seed, *shape), float(np.prod(shape)) * _BYTES_PER_PIXEL)


def _render(
    out: Path, name: str, key: str, seed: int, frames: int, height: int, width: int
) -> tuple[Rendered, list[Path]]:
    shot = render_shot(seed, frames, height, width)
    kinds = ("left", "right", "disparity", "right_disparity", "right_occlusion")
    files = {kind: clip_file(out, name, kind) for kind in kinds}
    write_frames(files["left"], shot.left)
    write_frames(files["right"], shot.right)
    offset_px = write_disparity(files["disparity"], shot.disparity)
    right_offset_px = write_disparity(files["right_disparity"], shot.right_disparity)
    write_occlusion(files["right_occlusion"], shot.right_occlusion)
    return Rendered(name, key, frames, offset_px, right_offset_px), list(files.values())
