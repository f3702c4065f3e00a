"""Disparity of every clip's left eye."""

from pathlib import Path

from secondeye.clips import clip_file, write_disparity
from secondeye.keep import BadClip, Job, finish_jobs, make_key
from secondeye.matching.clip import match_clip, network_identity
from secondeye.params import Dataset, Match
from secondeye.process import alone_in
from secondeye.rows import Clip, Matched, Shifted
from secondeye.tables import read_table, write_table
from secondeye.views import load

_BYTES_PER_PIXEL = 0.7  # a bound: gray16 disparity in FFV1 took 0.37 (synthetic) to 0.44 (real films)


def run(split: Path, shift: Path, out: Path, *, match: Match, dataset: Dataset) -> None:
    """Write each clip's disparity and `match.parquet`."""
    shifted = read_table(shift / "shift.parquet", Shifted)
    clips = {clip.id: clip for clip in read_table(split / "clips.parquet", Clip)}
    network = network_identity(match)
    jobs = [
        Job(
            row.id,
            make_key("match", Matched, [match], [row.key, *network]),
            (split, row, match),
            clips[row.id].pixels * _BYTES_PER_PIXEL,
        )
        for row in shifted
    ]
    with alone_in(out):
        done = finish_jobs(
            out, jobs, _match_clip, Matched, label="match", max_bad_fraction=dataset.max_bad_fraction
        )
        write_table(out / "match.parquet", done.rows, Matched)


def _match_clip(
    out: Path, name: str, key: str, split: Path, shifted: Shifted, match: Match
) -> tuple[Matched, list[Path]]:
    left, right = load(split, shifted)
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
    return Matched(name, key, offset_px, round(share, 4)), [path]
