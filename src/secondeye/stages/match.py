"""Disparity of every clip's left eye."""

from pathlib import Path

from secondeye.dataset.clip_files import clip_file, write_disparity
from secondeye.dataset.corrections import load_views
from secondeye.dataset.schema import Clip, ClipDisparity, Correction
from secondeye.dataset.tables import read_table, write_table
from secondeye.execution.incremental import BadClip, Job, build_missing, make_key
from secondeye.matching.match_clip import match_clip, network_identity
from secondeye.params import DatasetParams, Match
from secondeye.system.process import lock_dir

_BYTES_PER_PIXEL = 0.7  # a bound: gray16 disparity in FFV1 took 0.37 (synthetic) to 0.44 (real films)


def run(split: Path, shift: Path, out: Path, *, match: Match, dataset: DatasetParams) -> None:
    """Write each clip's disparity and `match.parquet`."""
    shifted = read_table(shift / "shift.parquet", Correction)
    clips = {clip.id: clip for clip in read_table(split / "clips.parquet", Clip)}
    network = network_identity(match)
    jobs = [
        Job(
            row.id,
            make_key("match", ClipDisparity, [match], [row.key, *network]),
            (split, row, match),
            clips[row.id].pixels * _BYTES_PER_PIXEL,
        )
        for row in shifted
    ]
    with lock_dir(out):
        done = build_missing(
            out, jobs, _match_clip, ClipDisparity, label="match", max_bad_fraction=dataset.max_bad_fraction
        )
        write_table(out / "match.parquet", done.rows, ClipDisparity)


def _match_clip(
    out: Path, name: str, key: str, split: Path, shifted: Correction, match: Match
) -> tuple[ClipDisparity, list[Path]]:
    left, right = load_views(split, shifted)
    disparity, consistent = match_clip(match, left, right)
    share = float(consistent.double().mean())
    if share == 0:
        raise BadClip("nothing matched", "no pixel passed the left-right check")
    span, width = float(disparity.max() - disparity.min()), disparity.shape[-1]
    if span > width:
        told = f"spans {span:.0f} px of a view {width} px wide; is match.exported.scale right?"
        raise BadClip("impossible disparity", told)
    path = clip_file(out, name, "disparity")
    offset_px = write_disparity(path, disparity)
    return ClipDisparity(name, key, offset_px, round(share, 4)), [path]
