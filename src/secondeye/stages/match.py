"""Stage `match`: compute the disparity of every clip's left view by stereo matching."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from secondeye.dataset.reader import Dataset, DatasetClip
from secondeye.dataset.schema import ClipDisparity, Correction
from secondeye.dataset.tables import write_table
from secondeye.execution.incremental import BadClip, Job, build_missing, make_key
from secondeye.matching.match_clip import match_clip, network_identity, share_at_bound
from secondeye.params import DatasetParams, Match
from secondeye.system.process import lock_dir

if TYPE_CHECKING:
    from torch import Tensor

_MAX_SEARCH_PERCENT = 50.0  # of the width
_WIDER = 1.5  # factor of the search range if disparities end at its bound
_NEAR_MARGIN = 1.1  # factor of the nearest point that the stage `shift` found
_AT_BOUND_SHARE = 0.005  # of all pixels: fewer at the bound are mismatches
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
    disparity, consistent = match_within_bound(match, left, right, clip.correction.near_px)
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


def match_within_bound(
    match: Match,
    left: "Tensor",  # [T, 3, H, W]
    right: "Tensor",  # [T, 3, H, W]
    near_px: float,  # largest disparity that the stage `shift` found
) -> tuple["Tensor", "Tensor"]:  # as of `match_clip`
    """Match with a search range that holds the clip: wider than the params' if disparities end at its bound.

    Raises BadClip if they still do at half of the width.
    """
    percent = max(match.max_disparity_percent, 100 * _NEAR_MARGIN * near_px / left.shape[-1])
    while True:
        percent = min(percent, _MAX_SEARCH_PERCENT)
        searched = replace(match, max_disparity_percent=percent)
        disparity, consistent = match_clip(searched, left, right)
        at_bound = share_at_bound(searched, disparity, consistent)
        if at_bound < _AT_BOUND_SHARE:
            return disparity, consistent
        if percent == _MAX_SEARCH_PERCENT:
            raise BadClip(
                "disparity at the bound",
                f"{at_bound:.1%} of the pixels match at the largest disparity, {percent:g} % of the width",
            )
        percent *= _WIDER
