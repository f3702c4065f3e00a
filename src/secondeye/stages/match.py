"""Stage `match`: compute the disparity of every clip's left view by stereo matching."""

from pathlib import Path

from secondeye.dataset.reader import Dataset, DatasetClip
from secondeye.dataset.schema import ClipDisparity, Correction
from secondeye.dataset.tables import write_table
from secondeye.execution.incremental import BadClip, Job, build_missing, make_key
from secondeye.matching.match_clip import match_clip, network_identity
from secondeye.params import DatasetParams, Match
from secondeye.system.process import lock_dir

_BYTES_PER_PIXEL = 0.7  # upper bound: gray16 disparity in FFV1 took 0.37 (synthetic) to 0.44 (real films)


def run(data: Path, *, match: Match, dataset: DatasetParams) -> None:
    """Read `split` and `shift`; write each clip's disparity and `match.parquet`."""
    reader = Dataset(data)
    out = reader.folder("match")
    network = network_identity(match)
    jobs = [
        Job(
            clip.id,
            make_key("match", ClipDisparity, [match], [clip.correction.key, *network]),
            (reader, clip, match),
            clip.clip.pixels * _BYTES_PER_PIXEL,
            film=clip.film.name,
        )
        for clip in reader.join(Correction)
    ]
    with lock_dir(out):
        done = build_missing(
            out, jobs, _match_clip, ClipDisparity, label="match", max_bad_fraction=dataset.max_bad_fraction
        )
        write_table(reader.path(ClipDisparity), done.rows, ClipDisparity)


def _match_clip(
    out: Path, clip_id: str, key: str, reader: Dataset, clip: DatasetClip, match: Match
) -> tuple[ClipDisparity, list[Path]]:
    from secondeye.dataset.clip_files import write_disparity

    left, right = reader.views(clip)
    disparity, consistent = match_clip(match, left, right)
    share = float(consistent.double().mean())
    if share == 0:
        raise BadClip("nothing matched", "no pixel passed the left-right check")
    span, width = float(disparity.max() - disparity.min()), disparity.shape[-1]
    if span > width:
        detail = f"disparities span {span:.0f} px in a view {width} px wide; check match.exported.scale"
        raise BadClip("impossible disparity", detail)
    path = reader.file("match", clip_id, "disparity")
    offset_px = write_disparity(path, disparity)
    return ClipDisparity(clip_id, key, offset_px, round(share, 4)), [path]
