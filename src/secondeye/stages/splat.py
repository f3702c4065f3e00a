"""Stage `splat`: forward-warp the left view to the right view and mark occlusions (paper, section 3.2)."""

from pathlib import Path

from secondeye.dataset.reader import Dataset, DatasetClip
from secondeye.dataset.schema import ClipDisparity, ClipOcclusion, Correction
from secondeye.dataset.tables import write_table
from secondeye.execution.incremental import Job, build_missing, make_key
from secondeye.params import DatasetParams, SplatParams
from secondeye.system.process import best_device, lock_dir

_BYTES_PER_PIXEL = 1.9  # upper bound: FFV1 RGB and a mask took 0.5 (real) to 1.2 (synthetic films)


def run(data: Path, *, splat: SplatParams, dataset: DatasetParams) -> None:
    """Read `split`, `shift` and `match`; write each clip's warped view and occlusion, and `splat.parquet`."""
    reader = Dataset(data)
    out = reader.folder("splat")
    jobs = [
        Job(
            clip.id,
            make_key("splat", ClipOcclusion, [splat], [clip.disparity.key]),
            (reader, clip, splat),
            clip.clip.pixels * _BYTES_PER_PIXEL,
            film=clip.film.name,
        )
        for clip in reader.join(Correction, ClipDisparity)
    ]
    with lock_dir(out):
        done = build_missing(
            out, jobs, _splat_clip, ClipOcclusion, label="splat", max_bad_fraction=dataset.max_bad_fraction
        )
        write_table(reader.path(ClipOcclusion), done.rows, ClipOcclusion)


def _splat_clip(
    out: Path, clip_id: str, key: str, reader: Dataset, clip: DatasetClip, splat: SplatParams
) -> tuple[ClipOcclusion, list[Path]]:
    from secondeye.dataset.clip_files import write_frames, write_occlusion
    from secondeye.imaging.arrays import occlusion_mask
    from secondeye.splat import exponent_at_width
    from secondeye.splat import splat as splat_forward

    left, _ = reader.views(clip)
    exponent = exponent_at_width(left.shape[-1], splat.weight_exponent_per_px)
    device = best_device()
    warped, coverage = splat_forward(
        left.to(device), reader.disparity(clip).to(device), weight_exponent_per_px=exponent
    )
    holes = occlusion_mask(coverage)
    occlusion = holes.cpu()
    files = [reader.file("splat", clip_id, "warped"), reader.file("splat", clip_id, "occlusion")]
    write_frames(files[0], (warped * ~holes).cpu())
    write_occlusion(files[1], occlusion)
    return ClipOcclusion(clip_id, key, round(float(occlusion.double().mean()), 5)), files
