"""Stage `synthetic`: render shots whose disparity and occlusion are known exactly."""

import hashlib
from pathlib import Path

import numpy as np

from secondeye.dataset.clip_paths import clip_file
from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import SyntheticShot
from secondeye.dataset.tables import write_table
from secondeye.execution.incremental import Job, build_missing, make_key
from secondeye.params import Synthetic
from secondeye.system.process import lock_dir

_BYTES_PER_PIXEL = 6.0  # upper bound, of all files together
_SEED_STREAM = 4  # streams 0 to 3 seed the sample films, which therefore share no shot with these


def run(data: Path, *, synthetic: Synthetic) -> None:
    """Write each shot's views, disparities and occlusions, and `synthetic.parquet`."""
    reader = Dataset(data)
    out = reader.folder("synthetic")
    with lock_dir(out):
        jobs = [_job(number, synthetic) for number in range(synthetic.shots)]
        done = build_missing(
            out, jobs, _render, SyntheticShot, label="synthetic", max_bad_fraction=0.0, unit="shot"
        )
        write_table(reader.path(SyntheticShot), done.rows, SyntheticShot)


def _job(number: int, synthetic: Synthetic) -> Job:
    sequence = np.random.SeedSequence([synthetic.seed, _SEED_STREAM, number])
    seed = int(sequence.generate_state(1, np.uint64)[0])
    shape = (synthetic.frames, synthetic.height, synthetic.width)
    name = hashlib.sha256(f"{seed} {shape}".encode()).hexdigest()[:16]
    # The key leaves out the number of shots, so that asking for more renders only the new ones.
    key = make_key("synthetic", SyntheticShot, [], [name])
    return Job(name, key, (seed, *shape), float(np.prod(shape)) * _BYTES_PER_PIXEL)


def _render(
    out: Path, name: str, key: str, seed: int, frames: int, height: int, width: int
) -> tuple[SyntheticShot, list[Path]]:
    from secondeye.dataset.clip_files import write_disparity, write_frames, write_occlusion
    from secondeye.synthetic import render_shot

    shot = render_shot(seed, frames, height, width)
    kinds = ("left", "right", "disparity", "right_disparity", "right_occlusion")
    files = {kind: clip_file(out, name, kind) for kind in kinds}
    write_frames(files["left"], shot.left)
    write_frames(files["right"], shot.right)
    offset_px = write_disparity(files["disparity"], shot.disparity)
    right_offset_px = write_disparity(files["right_disparity"], shot.right_disparity)
    write_occlusion(files["right_occlusion"], shot.right_occlusion)
    return SyntheticShot(name, key, frames, offset_px, right_offset_px), list(files.values())
