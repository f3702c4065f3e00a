"""Stereo alignment: offset, vertical error, colour, view order, sync."""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from secondeye.alignment.correspondences import Correspondences, find_correspondences
from secondeye.alignment.vertical import filter_by_row
from secondeye.imaging.arrays import disparity_ends

_VERTICAL_PERCENT = 3.0  # of the height, searched up and down


class DisparityRange(NamedTuple):
    """Shift of the right view that brings the farthest point close to zero disparity (after the paper)."""

    shift_px: int  # to the right
    near_px: float  # largest disparity after the shift
    match_ratio: float  # share of corners with a match, [0, 1]


def find_shift(
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
    *,
    max_disparity_percent: float,  # search range to both sides, % of W
    margin_px: int,  # disparity of the far end after the shift
) -> DisparityRange:
    """Match corners in every frame and return the whole-pixel shift that leaves the far end at `margin_px`.

    If nothing matches, e.g. for unrelated images, `match_ratio` is 0 and the other fields are meaningless.
    """
    correspondences = find_correspondences(
        left, right, max_disparity_percent=max_disparity_percent, max_vertical_percent=_VERTICAL_PERCENT
    )
    return disparity_range(filter_by_row(correspondences, *left.shape[-2:]), margin_px)


def disparity_range(correspondences: Correspondences, margin_px: int) -> DisparityRange:
    """Return the shift and disparity range of these correspondences."""
    if not len(correspondences.disparity):
        return DisparityRange(0, 0.0, 0.0)
    far, near = disparity_ends(correspondences.disparity)
    shift_px = int(np.floor(far)) - margin_px
    return DisparityRange(shift_px, near - shift_px, correspondences.match_ratio)
