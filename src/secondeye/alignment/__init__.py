"""How two eyes lie to each other: what shifts, turns, tints, swaps or delays one of them."""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from secondeye.alignment.correspondences import Correspondences, find_correspondences
from secondeye.alignment.vertical import on_rows

_FAR_PERCENTILE, _NEAR_PERCENTILE = 1.0, 99.0  # ours: a few false matches must not set the range
_VERTICAL_PERCENT = 3.0  # of the height, that the eyes may be apart


class DisparityRange(NamedTuple):
    """How far the right view moves so that the farthest point has nearly no disparity (after the paper)."""

    shift_px: int  # the right view moves this far to the right
    near_px: float  # largest disparity left after that
    support: float  # share of textured places that both eyes have, [0, 1]


def find_shift(
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
    *,
    max_disparity_percent: float,  # searched to both sides, % of W
    margin_px: int,
) -> DisparityRange:
    """Match corners of every frame, and take the whole-pixel shift that leaves the farthest at `margin_px`.

    `support` is 0 (and the rest meaningless) where nothing matches, as between unrelated pictures.
    """
    matches = find_correspondences(
        left, right, max_disparity_percent=max_disparity_percent, max_vertical_percent=_VERTICAL_PERCENT
    )
    return parallax_of(on_rows(matches, *left.shape[-2:]), margin_px)


def parallax_of(matches: Correspondences, margin_px: int) -> DisparityRange:
    """The shift that these points ask for."""
    if not len(matches.disparity):
        return DisparityRange(0, 0.0, 0.0)
    far, near = range_of(matches)
    shift_px = int(np.floor(far)) - margin_px
    return DisparityRange(shift_px, near - shift_px, matches.support)


def range_of(matches: Correspondences) -> tuple[float, float]:
    """The smallest and the largest disparity, px, but for the last percent; at least one match."""
    far, near = np.percentile(matches.disparity, [_FAR_PERCENTILE, _NEAR_PERCENTILE])
    return float(far), float(near)
