"""Align a film as a whole: what all of its clips share, because one rig took them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from secondeye.alignment.correspondences import Correspondences
from secondeye.alignment.order_cues import GAP_FRAMES, OrderVerdict, judge_order
from secondeye.alignment.rectification import fit_rectification
from secondeye.alignment.takes import motion_difference
from secondeye.alignment.vertical import fit_vertical
from secondeye.execution.incremental import BadClip
from secondeye.imaging.rectification import Rectification, rectify
from secondeye.params import Shift
from secondeye.stages.stereo_pair import (
    allowed_spread_px,
    find_matches,
    find_order,
    order_frames,
    sample_frames,
)

_MAX_ROW_MOVE_PERCENT = (
    6.0  # of the height, of a corner; a rig farther off is not a pair of cameras side by side
)


class SampledClip(NamedTuple):
    """Sampled frames of one clip and their matches."""

    left: Tensor  # [T, 3, H, W]
    right: Tensor  # [T, 3, H, W]
    later: tuple[Tensor, Tensor]  # both views a little later, or earlier at the end; of `order_frames`
    matches: Correspondences
    separate_takes: bool
    shot: int


class Alignment(NamedTuple):
    """What all clips of a film share."""

    rectification: Rectification | None
    order: OrderVerdict


def align_clips(clips: Sequence[SampledClip], shift: Shift, *, stated: bool) -> Alignment:
    """Find the rectification and the view order of a film from some of its clips.

    `stated`: whether the film says itself which view is the left one, see `judge_order`.
    """
    rectification = _find_rectification(clips, shift) if clips else None
    found, shots = [], []
    for clip in _rectified(clips, rectification, shift):
        try:
            found.append(find_order(clip.left, clip.right, clip.later, clip.matches, shift))
        except BadClip:  # reported when the clip itself is processed
            continue
        shots.append(clip.shot)
    return Alignment(rectification, judge_order(found, shots, stated=stated))


def sample_clip(left: Tensor, right: Tensor, shot: int, shift: Shift) -> SampledClip | None:
    """Match the sampled frames of one clip [T, 3, H, W]; None if it is no stereo pair."""
    frames = sample_frames(left, shift)
    try:
        matches = find_matches(left[frames], right[frames], shift)
    except BadClip:  # reported when the clip itself is processed
        return None
    takes = motion_difference(left, right, frames, matches).separate_takes
    chosen = frames[order_frames(len(frames))]
    later = torch.where(chosen + GAP_FRAMES < len(left), chosen + GAP_FRAMES, chosen - GAP_FRAMES)
    later = later if len(left) > GAP_FRAMES else later[:0]
    moved = left[later.clamp(0)], right[later.clamp(0)]
    return SampledClip(left[frames], right[frames], moved, matches, takes, shot)


def _find_rectification(clips: Sequence[SampledClip], shift: Shift) -> Rectification | None:
    """Return the rectification of a film, or None.

    None if rows match well enough without one, if the views of a clip are separate takes, if a corner would
    move too far, or if one correction does not hold for every clip.
    """
    height, width = clips[0].left.shape[-2:]
    allowed_px = allowed_spread_px(height)
    spreads = [fit_vertical(clip.matches, height, width).spread_px for clip in clips]
    if shift.rectify == "off" or np.median(spreads) <= allowed_px or any(c.separate_takes for c in clips):
        return None
    found = fit_rectification([clip.matches for clip in clips], height, width)
    if found.largest_row_move_px(height, width) > _MAX_ROW_MOVE_PERCENT / 100 * height:
        return None
    return found if all(_holds(found, clip, allowed_px, shift) for clip in clips) else None


def _holds(rectification: Rectification, clip: SampledClip, allowed_px: float, shift: Shift) -> bool:
    """Whether the rows of a clip agree once it is rectified."""
    left, right = rectify(clip.left, clip.right, rectification)
    try:
        matches = find_matches(left, right, shift)
    except BadClip:
        return False
    rows = fit_vertical(matches, *left.shape[-2:])
    return rows.spread_px <= allowed_px / 2 and abs(rows.vertical_px) <= allowed_px / 2


def _rectified(
    clips: Iterable[SampledClip], found: Rectification | None, shift: Shift
) -> Iterator[SampledClip]:
    """Return the clips rectified and matched again; as they are for None."""
    for clip in clips:
        if found is None:
            yield clip
            continue
        left, right = rectify(clip.left, clip.right, found)
        moved = rectify(*clip.later, found) if len(clip.later[0]) else (left[:0], right[:0])
        yield clip._replace(left=left, right=right, later=moved, matches=find_matches(left, right, shift))
