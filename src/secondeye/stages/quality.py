"""Every score of every clip. Reads pixels; knows no threshold."""

from pathlib import Path

import numpy as np

from secondeye.clips import clip_file, read_disparity, read_frames, read_occlusion
from secondeye.keep import Job, finish_jobs, make_key
from secondeye.metrics.pictures import psnr_db
from secondeye.params import Dataset
from secondeye.process import alone_in
from secondeye.rows import Matched, Scored, Shifted, Splatted
from secondeye.tables import read_table, write_table
from secondeye.views import load


def run(split: Path, shift: Path, match: Path, splat: Path, out: Path, *, dataset: Dataset) -> None:
    """Write `quality.parquet`."""
    shifted = {row.id: row for row in read_table(shift / "shift.parquet", Shifted)}
    matched = {row.id: row for row in read_table(match / "match.parquet", Matched)}
    jobs = [
        Job(
            row.id,
            make_key("quality", Scored, [], [row.key, matched[row.id].key, shifted[row.id].key]),
            (split, match, splat, shifted[row.id], matched[row.id], row),
            0,
        )
        for row in read_table(splat / "splat.parquet", Splatted)
    ]
    with alone_in(out):
        done = finish_jobs(
            out, jobs, _score_clip, Scored, label="quality", max_bad_fraction=dataset.max_bad_fraction
        )
        write_table(out / "quality.parquet", done.rows, Scored)


def _score_clip(
    out: Path,
    name: str,
    key: str,
    split: Path,
    match: Path,
    splat: Path,
    shifted: Shifted,
    matched: Matched,
    splatted: Splatted,
) -> tuple[Scored, list[Path]]:
    _, right = load(split, shifted)
    warped = read_frames(clip_file(splat, name, "warped"))
    occlusion = read_occlusion(clip_file(splat, name, "occlusion"))
    disparity = read_disparity(clip_file(match, name, "disparity"), matched.offset_px)
    far, near = np.percentile(disparity.numpy(), [1, 99]) * 100 / right.shape[-1]
    return Scored(
        id=name,
        key=key,
        psnr_db=round(psnr_db(warped, right, ~occlusion), 3),
        occlusion_share=splatted.occlusion_share,
        matched_share=matched.matched_share,
        disparity_min_percent=round(float(far), 3),
        disparity_max_percent=round(float(near), 3),
        width=right.shape[-1],
    ), []
