"""The left eye's pictures splatted to the right eye, and what that leaves open (paper, section 3.2)."""

from pathlib import Path

from secondeye.dataset.clip_files import clip_file, read_disparity, write_frames, write_occlusion
from secondeye.dataset.corrections import load_views
from secondeye.dataset.schema import Clip, ClipDisparity, ClipOcclusion, Correction
from secondeye.dataset.tables import read_table, write_table
from secondeye.execution.incremental import Job, build_missing, make_key
from secondeye.imaging.arrays import occlusion_mask
from secondeye.params import DatasetParams, Splat
from secondeye.splat import exponent_at_width
from secondeye.splat import splat as splat_forward
from secondeye.system.process import lock_dir

_BYTES_PER_PIXEL = 1.9  # a bound: FFV1 RGB and a mask took 0.5 (real) to 1.2 (synthetic films)


def run(split: Path, shift: Path, match: Path, out: Path, *, splat: Splat, dataset: DatasetParams) -> None:
    """Write each clip's warped left view and occlusion, and `splat.parquet`."""
    shifted = {row.id: row for row in read_table(shift / "shift.parquet", Correction)}
    matched = read_table(match / "match.parquet", ClipDisparity)
    clips = {clip.id: clip for clip in read_table(split / "clips.parquet", Clip)}
    jobs = [
        Job(
            row.id,
            make_key("splat", ClipOcclusion, [splat], [row.key]),
            (split, match, shifted[row.id], row.offset_px, splat),
            clips[row.id].pixels * _BYTES_PER_PIXEL,
        )
        for row in matched
    ]
    with lock_dir(out):
        done = build_missing(
            out, jobs, _splat_clip, ClipOcclusion, label="splat", max_bad_fraction=dataset.max_bad_fraction
        )
        write_table(out / "splat.parquet", done.rows, ClipOcclusion)


def _splat_clip(
    out: Path,
    name: str,
    key: str,
    split: Path,
    match: Path,
    shifted: Correction,
    offset_px: float,
    splat: Splat,
) -> tuple[ClipOcclusion, list[Path]]:
    left, _ = load_views(split, shifted)
    disparity = read_disparity(clip_file(match, name, "disparity"), offset_px)
    exponent = exponent_at_width(left.shape[-1], splat.weight_exponent_per_px)
    warped, coverage = splat_forward(left, disparity, weight_exponent_per_px=exponent)
    occlusion = occlusion_mask(coverage)
    files = [clip_file(out, name, "warped"), clip_file(out, name, "occlusion")]
    write_frames(files[0], warped * ~occlusion)
    write_occlusion(files[1], occlusion)
    return ClipOcclusion(name, key, round(float(occlusion.double().mean()), 5)), files
