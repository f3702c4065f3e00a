"""Find what makes two views a stereo pair: their order, and the corrections of one clip."""

import numpy as np
import torch
from torch import Tensor

from secondeye.alignment.colour import ColourFit, fit_colours
from secondeye.alignment.correspondences import Correspondences, find_correspondences
from secondeye.alignment.disparity_range import disparity_range
from secondeye.alignment.order_cues import OrderCues, OrderVerdict, order_cues
from secondeye.alignment.sync import find_lag
from secondeye.alignment.takes import motion_difference
from secondeye.alignment.vertical import filter_by_row, fit_vertical
from secondeye.dataset.corrections import apply_colours, apply_vertical
from secondeye.dataset.schema import Correction
from secondeye.execution.incremental import BadClip
from secondeye.imaging.arrays import disparity_ends
from secondeye.imaging.rectification import NO_RECTIFICATION, Rectification, rectify
from secondeye.params import Shift
from secondeye.system.text import pluralize

_FLAT_PERCENT = 0.2  # of the width; a scene with a smaller disparity range is flat
_SAME_PERCENT = 0.1  # of the width; views displaced by less are the same image
_MAX_SPREAD_PERCENT = 1.5  # of the height, between the corners: a rotation of half a degree in wide frames
_MIN_SPREAD_PX = 1.5  # below the accuracy of a single match
_ORDER_FRAMES = 3


def find_order(
    left: Tensor,  # [T, 3, H, W], sampled frames
    right: Tensor,  # [T, 3, H, W]
    later: tuple[Tensor, Tensor],  # of each frame of `order_frames`; [0, 3, H, W] for a still
    matches: Correspondences,  # of the sampled frames
    shift: Shift,
) -> OrderCues:
    """Return the evidence that the views are in order. Raises BadClip if their rows do not match."""
    height, width = left.shape[-2:]
    vertical_px = _fit_vertical_px(matches, height, width, shift.max_vertical_percent)
    far, near = disparity_ends(filter_by_row(matches, height, width).disparity)
    colours = fit_colours(left, right, matches)
    chosen = order_frames(len(left))
    views, moved = (
        apply_vertical(one, apply_colours(other, colours.gain, colours.offset), vertical_px)
        for one, other in ((left[chosen], right[chosen]), later)
    )
    return order_cues(*views, moved, far_px=far, near_px=near)


def order_frames(sampled: int) -> Tensor:
    """Return which of the sampled frames show the view order, int [N]; each costs four dense matchings."""
    return torch.linspace(0, sampled - 1, min(_ORDER_FRAMES, sampled)).round().long()


def find_corrections(
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
    shift: Shift,
    clip_id: str,
    key: str,
    *,
    rectification: Rectification | None,  # of its film
    order: OrderVerdict,  # of its film
) -> Correction:
    """Return the corrections of a clip. Raises BadClip if corrections cannot make its views a pair."""
    row_move_px = rectification.largest_row_move_px(*left.shape[-2:]) if rectification else 0.0
    if rectification:
        left, right = rectify(left, right, rectification)
    if order.swapped:
        left, right = right, left
    height, width = left.shape[-2:]
    frames = sample_frames(left, shift)
    matches = find_matches(left[frames], right[frames], shift)
    lag = find_lag(left, right, frames, matches, **_search_ranges(shift))
    if lag.frames:
        view = "left" if order.swapped else "right"
        raise BadClip(
            "out of sync", f"the {view} view is {_lag_text(lag.frames, lag.before_px, lag.after_px)}"
        )
    try:
        vertical_px = _fit_vertical_px(matches, height, width, shift.max_vertical_percent)
    except BadClip:
        _require_one_take(left, right, frames, matches)
        raise
    matches = filter_by_row(matches, height, width)
    colours = _fit_colours(left[frames], right[frames], matches, shift.max_colour_difference)
    found_range = disparity_range(matches, shift.margin_px)
    _require_width(found_range.shift_px, width, shift.min_width_percent)
    return Correction(
        id=clip_id,
        key=key,
        **{f"rectify_{name}": n for name, n in (rectification or NO_RECTIFICATION)._asdict().items()},
        rectify_row_px=round(row_move_px, 2),
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
        match_ratio=round(found_range.match_ratio, 4),
        view_order_evidence=order.cues.strips,
        order_uncertain=order.uncertain,
        order_cues=order.text,
    )


def sample_frames(frames: Tensor, shift: Shift) -> Tensor:
    """Return the numbers of the frames that a clip's alignment is measured on, int [N]."""
    return torch.linspace(0, len(frames) - 1, min(shift.sampled_frames, len(frames))).round().long()


def _search_ranges(shift: Shift) -> dict[str, float]:
    """Return the search ranges: vertically twice the allowed offset, so that larger ones are detected."""
    return {
        "max_disparity_percent": shift.max_disparity_percent,
        "max_vertical_percent": 2 * shift.max_vertical_percent,
    }


def find_matches(left: Tensor, right: Tensor, shift: Shift) -> Correspondences:
    """Match the views [T, 3, H, W]. Raises BadClip if they are not of one scene or without depth."""
    matches = find_correspondences(left, right, **_search_ranges(shift))
    _require_pair(matches, shift.min_match_ratio)
    _require_depth(matches, left.shape[-1])
    return matches


def _require_pair(matches: Correspondences, min_match_ratio: float) -> None:
    if matches.match_ratio < min_match_ratio or not matches.candidates:
        raise BadClip(
            "no stereo pair",
            f"{matches.match_ratio:.0%} of the textured corners match, {min_match_ratio:.0%} needed",
        )


def _require_depth(matches: Correspondences, width: int) -> None:
    far, near = disparity_ends(matches.disparity)
    if near - far > _FLAT_PERCENT / 100 * width:
        return
    displacement = float(np.median(matches.disparity))
    detail = f"disparity range {near - far:.2f} px, more than {_FLAT_PERCENT / 100 * width:.2f} px needed"
    if abs(displacement) <= _SAME_PERCENT / 100 * width:
        raise BadClip("same image", detail)
    raise BadClip("no depth", f"everything is displaced by {displacement:.1f} px; {detail}")


def _require_one_take(left: Tensor, right: Tensor, frames: Tensor, matches: Correspondences) -> None:
    found = motion_difference(left, right, frames, matches)
    if found.separate_takes:
        raise BadClip(
            "separate takes",
            f"matching points move differently, by {found.difference_px:.1f} px a frame; "
            f"they move by {found.motion_px:.1f} px",
        )


def _lag_text(frames: int, before_px: float, after_px: float) -> str:
    lag = f"{pluralize(abs(frames), 'frame')} {'late' if frames > 0 else 'early'}"
    return f"{lag}: vertical error {before_px:.2f} px, {after_px:.2f} px after compensation"


def allowed_spread_px(height: int) -> float:
    """Return by how much the vertical error may differ between corners without a rectification."""
    return max(_MIN_SPREAD_PX, _MAX_SPREAD_PERCENT / 100 * height)


def _fit_vertical_px(matches: Correspondences, height: int, width: int, max_percent: float) -> int:
    """Return how far the right view must move down, whole px. Raises BadClip if rows cannot be aligned so."""
    rows = fit_vertical(matches, height, width)
    allowed = allowed_spread_px(height)
    if rows.spread_px > allowed:
        raise BadClip(
            "not rectified",
            f"the vertical error varies by {rows.spread_px:.1f} px between corners, {allowed:.1f} allowed",
        )
    max_px = max_percent / 100 * height
    if abs(rows.vertical_px) > max_px:
        where = "low" if rows.vertical_px > 0 else "high"
        raise BadClip(
            "vertical misalignment",
            f"the right view is {abs(rows.vertical_px):.1f} px too {where}, {max_px:.1f} allowed",
        )
    return -round(rows.vertical_px)


def _fit_colours(left: Tensor, right: Tensor, matches: Correspondences, max_difference: float) -> ColourFit:
    colours = fit_colours(left, right, matches)
    if colours.difference > max_difference:
        raise BadClip(
            "colours differ",
            f"by {colours.difference:.1f} levels after colour matching, {max_difference:g} allowed",
        )
    return colours


def _require_width(shift_px: int, width: int, min_percent: float) -> None:
    share = 100 * (1 - abs(shift_px) / width)
    if share < min_percent:
        raise BadClip(
            "too little width",
            f"{share:.0f} % is left after a shift of {shift_px} px, {min_percent:g} % needed",
        )
