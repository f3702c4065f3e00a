"""Stage `quality`: compute every score of every clip from its pixels. Thresholds belong to `filter`."""

from pathlib import Path

from secondeye.dataset.reader import Dataset, DatasetClip
from secondeye.dataset.schema import ClipDisparity, ClipOcclusion, ClipQuality, Correction
from secondeye.dataset.tables import write_table
from secondeye.execution.incremental import Job, build_missing, make_key
from secondeye.params import DatasetParams
from secondeye.system.process import lock_dir

_BYTES_PER_PIXEL = 12  # upper bound, of four images as PNG


def run(data: Path, *, dataset: DatasetParams) -> None:
    """Read `split` to `splat`; write `quality.parquet` and an image of each clip's middle frame."""
    reader = Dataset(data)
    out = reader.folder("quality")
    jobs = []
    for clip in reader.join(Correction, ClipDisparity, ClipOcclusion):
        inputs = [clip.occlusion.key, clip.disparity.key, clip.correction.key]
        key = make_key("quality", ClipQuality, [], inputs)
        size_bytes = clip.clip.height * clip.clip.width * _BYTES_PER_PIXEL
        jobs.append(Job(clip.id, key, (reader, clip), size_bytes, film=clip.film.name))
    with lock_dir(out):
        done = build_missing(
            out, jobs, _score_clip, ClipQuality, label="quality", max_bad_fraction=dataset.max_bad_fraction
        )
        write_table(reader.path(ClipQuality), done.rows, ClipQuality)


def _score_clip(
    out: Path, clip_id: str, key: str, reader: Dataset, clip: DatasetClip
) -> tuple[ClipQuality, list[Path]]:
    from secondeye.stages.clip_scores import score_clip

    return score_clip(out, clip_id, key, reader, clip)
