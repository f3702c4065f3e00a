"""Find how far each clip's right view must move so that disparity starts at nearly zero."""

from pathlib import Path

import torch

from secondeye.keep import BadClip, Job, finish_jobs, make_key
from secondeye.parallax import find_shift
from secondeye.params import Dataset, Shift
from secondeye.process import alone_in
from secondeye.rows import Clip, Shifted
from secondeye.tables import read_table, write_table
from secondeye.views import load_raw


def run(split: Path, out: Path, *, shift: Shift, dataset: Dataset) -> None:
    """Write `shift.parquet`: numbers that `views.load` applies."""
    clips = read_table(split / "clips.parquet", Clip)
    jobs = [
        Job(clip.id, make_key("shift", Shifted, [shift], [clip.key]), (split, shift), 0) for clip in clips
    ]
    with alone_in(out):
        done = finish_jobs(
            out, jobs, _shift_clip, Shifted, label="shift", max_bad_fraction=dataset.max_bad_fraction
        )
        write_table(out / "shift.parquet", done.rows, Shifted)


def _shift_clip(out: Path, name: str, key: str, split: Path, shift: Shift) -> tuple[Shifted, list[Path]]:
    left, right = load_raw(split, name)
    sampled = torch.linspace(0, len(left) - 1, min(shift.sampled_frames, len(left))).round().long()
    parallax = find_shift(
        left[sampled],
        right[sampled],
        max_disparity_percent=shift.max_disparity_percent,
        margin_px=shift.margin_px,
    )
    if parallax.support < shift.min_support:
        raise BadClip(
            "no parallax found",
            f"{parallax.support:.0%} of what has texture matches, {shift.min_support:.0%} needed",
        )
    return Shifted(name, key, parallax.shift_px, round(parallax.near_px, 3), round(parallax.support, 4)), []
