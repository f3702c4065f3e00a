"""Find what each clip's eyes need to be a pair: order, colours, rows, and where disparity zero lies."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from secondeye.alignment import disparity_percentiles, disparity_range
from secondeye.alignment.colour import ColourFit, fit_colours
from secondeye.alignment.correspondences import Correspondences, find_correspondences
from secondeye.alignment.sync import find_lag
from secondeye.alignment.vertical import filter_by_row, fit_vertical
from secondeye.alignment.view_order import view_order_evidence
from secondeye.dataset.corrections import apply_colours, apply_vertical, load_raw_views
from secondeye.dataset.schema import Clip, Correction
from secondeye.dataset.tables import read_table, write_table
from secondeye.execution.incremental import BadClip, Job, build_missing, make_key
from secondeye.params import DatasetParams, Shift
from secondeye.system.process import lock_dir
from secondeye.system.text import pluralize

_FLAT_PERCENT = 0.2  # of the width: a scene with less between far and near is a picture on a wall
_SAME_PERCENT = 0.1  # of the width: moved by less, it is the same picture twice
_MAX_SPREAD_PERCENT = 1.5  # of the height, between the corners: a turn by half a degree, in wide pictures
_MIN_SPREAD_PX = 1.5  # below it, it is no more than how well matches can be placed
# Of the median over a film's clips. Single shots in order came to -0.38 (a lattice before bars).
_SWAPPED, _SWAPPED_ALONE = -0.15, -0.5
_ORDER_FRAMES = 3  # of those sampled: each costs four dense matchings
_ORDER_CLIPS = 8  # of a film


@dataclass(frozen=True)
class Order:
    """Which eye of a film is which: a film is packed one way, and one shot of it alone may mislead."""

    id: str  # Film.id
    key: str
    evidence: float  # median over its clips, [-1, 1]; negative where the eyes are swapped
    clips: int  # that could be asked

    @property
    def swapped(self) -> bool:
        """Whether the evidence is strong enough to exchange the eyes."""
        return self.evidence <= (_SWAPPED if self.clips > 1 else _SWAPPED_ALONE)


def run(split: Path, out: Path, *, shift: Shift, dataset: DatasetParams) -> None:
    """Write `shift.parquet`: numbers that `views.load` applies."""
    clips = read_table(split / "clips.parquet", Clip)
    with lock_dir(out), lock_dir(out / "films"):
        orders = _find_orders(out / "films", clips, split, shift, dataset)
        jobs = [
            Job(
                clip.id,
                make_key("shift", Correction, [shift], [clip.key, str(orders[clip.film].evidence)]),
                (split, shift, orders[clip.film]),
                0,
            )
            for clip in clips
        ]
        done = build_missing(
            out, jobs, _shift_clip, Correction, label="shift", max_bad_fraction=dataset.max_bad_fraction
        )
        write_table(out / "shift.parquet", done.rows, Correction)


def _find_orders(
    out: Path, clips: Sequence[Clip], split: Path, shift: Shift, dataset: DatasetParams
) -> dict[str, Order]:
    films: dict[str, list[Clip]] = {}
    for clip in sorted(clips, key=lambda clip: clip.start):
        films.setdefault(clip.film, []).append(clip)
    jobs = []
    for film, its in films.items():
        asked = [
            its[k] for k in np.linspace(0, len(its) - 1, min(_ORDER_CLIPS, len(its))).round().astype(int)
        ]
        key = make_key("shift", Order, [shift], [clip.key for clip in asked])
        jobs.append(Job(film, key, (split, shift, [clip.id for clip in asked]), 0))
    done = build_missing(
        out, jobs, _order_film, Order, label="order", max_bad_fraction=dataset.max_bad_fraction, unit="film"
    )
    # A film that killed its workers is left as it is: its clips tell what is wrong with it.
    return {film: Order(film, "", 0.0, 0) for film in films} | {row.id: row for row in done.rows}


def _order_film(
    out: Path, film: str, key: str, split: Path, shift: Shift, clips: Sequence[str]
) -> tuple[Order, list[Path]]:
    found = []
    for name in clips:
        try:
            found.append(find_order(*load_raw_views(split, name), shift))
        except BadClip:  # told when the clip itself is worked on
            continue
    return Order(film, key, round(float(np.median(found)), 4) if found else 0.0, len(found)), []


def _shift_clip(
    out: Path, name: str, key: str, split: Path, shift: Shift, order: Order
) -> tuple[Correction, list[Path]]:
    return find_corrections(*load_raw_views(split, name), shift, order, name, key), []


def find_order(
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
    shift: Shift,
) -> float:
    """Evidence for the eyes being in order, [-1, 1]. Raises BadClip where they are no pair."""
    frames = _sampled(left, shift)
    matches = _matches(left[frames], right[frames], shift)
    height, width = left.shape[-2:]
    vertical_px = _vertical(matches, height, width, shift.max_vertical_percent)
    matches = filter_by_row(matches, height, width)
    return _evidence(left[frames], right[frames], matches, vertical_px)


def find_corrections(
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
    shift: Shift,
    order: Order,
    name: str,
    key: str,
) -> Correction:
    """The row of a clip. Raises BadClip for eyes that no whole pixel and no gain makes a pair."""
    if order.swapped:
        left, right = right, left
    height, width = left.shape[-2:]
    frames = _sampled(left, shift)
    matches = _matches(left[frames], right[frames], shift)
    lag = find_lag(left, right, frames, matches, **_search(shift))
    if lag.frames:
        eye = "left" if order.swapped else "right"
        raise BadClip("out of sync", f"the {eye} eye is {_lag_text(lag.frames, lag.before_px, lag.after_px)}")
    vertical_px = _vertical(matches, height, width, shift.max_vertical_percent)
    matches = filter_by_row(matches, height, width)
    colours = _colours(left[frames], right[frames], matches, shift.max_colour_difference)
    found_range = disparity_range(matches, shift.margin_px)
    _require_width(found_range.shift_px, width, shift.min_width_percent)
    return Correction(
        id=name,
        key=key,
        swapped=order.swapped,
        red_gain=colours.gain[0],
        red_offset=colours.offset[0],
        green_gain=colours.gain[1],
        green_offset=colours.offset[1],
        blue_gain=colours.gain[2],
        blue_offset=colours.offset[2],
        vertical_px=vertical_px,
        shift_px=found_range.shift_px,
        near_px=round(found_range.near_px, 3),
        support=round(found_range.support, 4),
        order_evidence=order.evidence,
    )


def _sampled(frames: Tensor, shift: Shift) -> Tensor:
    return torch.linspace(0, len(frames) - 1, min(shift.sampled_frames, len(frames))).round().long()


def _search(shift: Shift) -> dict[str, float]:
    """What is too much must be seen, too."""
    return {
        "max_disparity_percent": shift.max_disparity_percent,
        "max_vertical_percent": 2 * shift.max_vertical_percent,
    }


def _matches(left: Tensor, right: Tensor, shift: Shift) -> Correspondences:
    matches = find_correspondences(left, right, **_search(shift))
    _require_pair(matches, shift.min_support)
    _require_depth(matches, left.shape[-1])
    return matches


def _require_pair(matches: Correspondences, min_support: float) -> None:
    if matches.support < min_support or not matches.candidates:
        raise BadClip(
            "no stereo pair",
            f"{matches.support:.0%} of what has texture matches, {min_support:.0%} needed",
        )


def _require_depth(matches: Correspondences, width: int) -> None:
    far, near = disparity_percentiles(matches)
    if near - far > _FLAT_PERCENT / 100 * width:
        return
    moved = float(np.median(matches.disparity))
    told = f"disparities differ by {near - far:.2f} px, more than {_FLAT_PERCENT / 100 * width:.2f} needed"
    if abs(moved) <= _SAME_PERCENT / 100 * width:
        raise BadClip("same picture", told)
    raise BadClip("no depth", f"everything is moved by {moved:.1f} px; {told}")


def _lag_text(frames: int, before_px: float, after_px: float) -> str:
    what = f"{pluralize(abs(frames), 'frame')} {'late' if frames > 0 else 'early'}"
    return f"{what}: rows are missed by {before_px:.2f} px, by {after_px:.2f} px with that taken out"


def _vertical(matches: Correspondences, height: int, width: int, max_percent: float) -> int:
    """How far the right view must move down."""
    rows = fit_vertical(matches, height, width)
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


def _evidence(left: Tensor, right: Tensor, matches: Correspondences, vertical_px: int) -> float:
    chosen = torch.linspace(0, len(left) - 1, min(_ORDER_FRAMES, len(left))).round().long()
    far, near = disparity_percentiles(matches)
    colours = fit_colours(left, right, matches)
    eyes = apply_vertical(
        left[chosen], apply_colours(right[chosen], colours.gain, colours.offset), vertical_px
    )
    return view_order_evidence(*eyes, far_px=far, near_px=near)


def _colours(left: Tensor, right: Tensor, matches: Correspondences, max_difference: float) -> ColourFit:
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
