"""The range of disparities between the views, and the shift that brings its far end to the screen."""

from typing import NamedTuple

import numpy as np

from secondeye.alignment.correspondences import Correspondences
from secondeye.imaging.arrays import disparity_ends


class DisparityRange(NamedTuple):
    """Shift of the right view that brings the farthest point close to zero disparity (after the paper)."""

    shift_px: int  # to the right
    near_px: float  # largest disparity after the shift
    match_ratio: float  # share of corners with a match, [0, 1]


def disparity_range(correspondences: Correspondences, margin_px: int) -> DisparityRange:
    """Return the shift and disparity range of these correspondences."""
    if not len(correspondences.disparity):
        return DisparityRange(0, 0.0, 0.0)
    far, near = disparity_ends(correspondences.disparity)
    shift_px = int(np.floor(far)) - margin_px
    return DisparityRange(shift_px, near - shift_px, correspondences.match_ratio)
