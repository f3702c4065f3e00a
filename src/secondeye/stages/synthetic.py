"""Shots of the synthetic synthetic, with what is known about them exactly: what no real film can teach."""

import hashlib
from pathlib import Path

import numpy as np

from secondeye.dataset.clip_files import clip_file, write_disparity, write_frames, write_occlusion
from secondeye.dataset.schema import SyntheticShot
from secondeye.dataset.tables import write_table
from secondeye.execution.incremental import Job, build_missing, make_key
from secondeye.params import Synthetic
from secondeye.synthetic import render_shot
from secondeye.system.process import lock_dir

_BYTES_PER_PIXEL = 6.0  # a bound, of all files together
_PLACE = 4  # the sample films are drawn from places 0 to 3: they show none of these shots


def run(out: Path, *, synthetic: Synthetic) -> None:
    """Write each shot's eyes, disparities and occlusions, and `synthetic.parquet`."""
    with lock_dir(out):
        jobs = [_job(number, synthetic) for number in range(synthetic.shots)]
        done = build_missing(
            out, jobs, _render, SyntheticShot, label="synthetic", max_bad_fraction=0.0, unit="shot"
        )
        write_table(out / "synthetic.parquet", done.rows, SyntheticShot)


def _job(number: int, synthetic: Synthetic) -> Job:
    seed = int(np.random.SeedSequence([synthetic.seed, _PLACE, number]).generate_state(1, np.uint64)[0])
    shape = (synthetic.frames, synthetic.height, synthetic.width)
    name = hashlib.sha256(f"{seed} {shape}".encode()).hexdigest()[:16]
    # The number of shots is no part of the key: more shots render only what is new.
    key = make_key("synthetic", SyntheticShot, [], [name])
    return Job(name, key, (seed, *shape), float(np.prod(shape)) * _BYTES_PER_PIXEL)


def _render(
    out: Path, name: str, key: str, seed: int, frames: int, height: int, width: int
) -> tuple[SyntheticShot, list[Path]]:
    shot = render_shot(seed, frames, height, width)
    kinds = ("left", "right", "disparity", "right_disparity", "right_occlusion")
    files = {kind: clip_file(out, name, kind) for kind in kinds}
    write_frames(files["left"], shot.left)
    write_frames(files["right"], shot.right)
    offset_px = write_disparity(files["disparity"], shot.disparity)
    right_offset_px = write_disparity(files["right_disparity"], shot.right_disparity)
    write_occlusion(files["right_occlusion"], shot.right_occlusion)
    return SyntheticShot(name, key, frames, offset_px, right_offset_px), list(files.values())
