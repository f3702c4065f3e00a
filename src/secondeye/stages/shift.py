"""Find what each clip's eyes need to be a pair: order, colours, rows, and where disparity zero lies."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from secondeye.keep import BadClip, Job, finish_jobs, make_key
from secondeye.parallax import parallax_of, range_of
from secondeye.parallax.colour import Colours, fit_colours
from secondeye.parallax.matches import Matches, find_matches, swap
from secondeye.parallax.order import order_evidence
from secondeye.parallax.rows import fit_rows, on_rows
from secondeye.parallax.sync import find_lag
from secondeye.params import Dataset, Shift
from secondeye.process import alone_in
from secondeye.rows import Clip, Shifted
from secondeye.tables import read_table, write_table
from secondeye.views import apply_colours, apply_vertical, load_raw

_FLAT_PERCENT = 0.2  # of the width: a scene with less between far and near is a picture on a wall
_SAME_PERCENT = 0.1  # of the width: moved by less, it is the same picture twice
_MAX_SPREAD_PERCENT = 1.5  # of the height, between the corners: a turn by half a degree, in wide pictures
_MIN_SPREAD_PX = 1.5  # below it, it is no more than how well matches can be placed
_SWAPPED = -0.15  # pairs in order came no nearer than -0.06, and -0.12 under heavy noise
_ORDER_FRAMES = 3  # of those sampled: each costs four dense matchings


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
    return find_corrections(*load_raw(split, name), shift, name, key), []


def find_corrections(
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
    shift: Shift,
    name: str,
    key: str,
) -> Shifted:
    """The row of a clip. Raises BadClip for eyes that no whole pixel and no gain makes a pair."""
    height, width = left.shape[-2:]
    frames = torch.linspace(0, len(left) - 1, min(shift.sampled_frames, len(left))).round().long()
    search = {
        "max_disparity_percent": shift.max_disparity_percent,
        "max_vertical_percent": 2 * shift.max_vertical_percent,  # what is too much must be seen, too
    }
    matches = find_matches(left[frames], right[frames], **search)
    _require_pair(matches, shift.min_support)
    _require_depth(matches, width)
    lag = find_lag(left, right, frames, matches, **search)
    if lag.frames:
        raise BadClip("out of sync", f"the right eye is {_lag_text(lag.frames, lag.before_px, lag.after_px)}")
    vertical_px = _vertical(matches, height, width, shift.max_vertical_percent)
    matches = on_rows(matches, height, width)
    evidence = _evidence(left[frames], right[frames], matches, vertical_px)
    swapped = evidence <= _SWAPPED
    if swapped:
        left, right, matches, vertical_px = right, left, swap(matches), -vertical_px
    colours = _colours(left[frames], right[frames], matches, shift.max_colour_difference)
    parallax = parallax_of(matches, shift.margin_px)
    _require_width(parallax.shift_px, width, shift.min_width_percent)
    return Shifted(
        id=name,
        key=key,
        swapped=swapped,
        red_gain=colours.gain[0],
        red_offset=colours.offset[0],
        green_gain=colours.gain[1],
        green_offset=colours.offset[1],
        blue_gain=colours.gain[2],
        blue_offset=colours.offset[2],
        vertical_px=vertical_px,
        shift_px=parallax.shift_px,
        near_px=round(parallax.near_px, 3),
        support=round(parallax.support, 4),
        order_evidence=round(evidence, 4),
    )


def _require_pair(matches: Matches, min_support: float) -> None:
    if matches.support < min_support or not matches.offered:
        raise BadClip(
            "no stereo pair",
            f"{matches.support:.0%} of what has texture matches, {min_support:.0%} needed",
        )


def _require_depth(matches: Matches, width: int) -> None:
    far, near = range_of(matches)
    if near - far > _FLAT_PERCENT / 100 * width:
        return
    moved = float(np.median(matches.disparity))
    told = f"disparities differ by {near - far:.2f} px, more than {_FLAT_PERCENT / 100 * width:.2f} needed"
    if abs(moved) <= _SAME_PERCENT / 100 * width:
        raise BadClip("same picture", told)
    raise BadClip("no depth", f"everything is moved by {moved:.1f} px; {told}")


def _lag_text(frames: int, before_px: float, after_px: float) -> str:
    what = f"{abs(frames)} frame{'s' * (abs(frames) > 1)} {'late' if frames > 0 else 'early'}"
    return f"{what}: rows are missed by {before_px:.2f} px, by {after_px:.2f} px with that taken out"


def _vertical(matches: Matches, height: int, width: int, max_percent: float) -> int:
    """How far the right view must move down."""
    rows = fit_rows(matches, height, width)
    allowed = max(_MIN_SPREAD_PX, _MAX_SPREAD_PERCENT / 100 * height)
    if rows.spread_px > allowed:
        raise BadClip(
            "not rectified",
            f"rows miss by {rows.spread_px:.1f} px more in one corner than in another, {allowed:.1f} allowed",
        )
    most = max_percent / 100 * height
    if abs(rows.vertical_px) > most:
        where = "low" if rows.vertical_px > 0 else "high"
        raise BadClip(
            "vertical misalignment",
            f"the right eye is {abs(rows.vertical_px):.1f} px too {where}, {most:.1f} allowed",
        )
    return -round(rows.vertical_px)


def _evidence(left: Tensor, right: Tensor, matches: Matches, vertical_px: int) -> float:
    chosen = torch.linspace(0, len(left) - 1, min(_ORDER_FRAMES, len(left))).round().long()
    far, near = range_of(matches)
    colours = fit_colours(left, right, matches)
    eyes = apply_vertical(
        left[chosen], apply_colours(right[chosen], colours.gain, colours.offset), vertical_px
    )
    return order_evidence(*eyes, far_px=far, near_px=near)


def _colours(left: Tensor, right: Tensor, matches: Matches, max_difference: float) -> Colours:
    colours = fit_colours(left, right, matches)
    if colours.difference > max_difference:
        raise BadClip(
            "colours differ",
            f"by {colours.difference:.1f} levels after the best gains, {max_difference:g} allowed",
        )
    return colours


def _require_width(shift_px: int, width: int, min_percent: float) -> None:
    share = 100 * (1 - abs(shift_px) / width)
    if share < min_percent:
        raise BadClip(
            "too little width",
            f"{share:.0f}% is left after a shift of {shift_px} px, {min_percent:g}% needed",
        )
