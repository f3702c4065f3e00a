"""What any matcher's answer goes through: the left-right check, and filling from the background side."""

import numba
import numpy as np
import torch
from torch import Tensor

from secondeye.matching import Matcher


def match_both_ways(
    matcher: Matcher,
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
    *,
    tolerance_px: float,
) -> tuple[Tensor, Tensor]:  # disparity [T, 1, H, W] px (NaN allowed), consistent bool [T, 1, H, W]
    """Match left to right and, mirrored, right to left; a pixel is consistent where both agree."""
    disparity = matcher(left, right)
    backward = matcher(right.flip(-1), left.flip(-1)).flip(-1)
    return disparity, is_consistent(disparity, backward, tolerance_px)


def is_consistent(
    disparity: Tensor,  # [T, 1, H, W] px of the left eye, NaN for none
    right_disparity: Tensor,  # [T, 1, H, W] px of the right eye, NaN for none
    tolerance_px: float,
) -> Tensor:  # bool [T, 1, H, W]
    """True where the right eye's disparity at the matched place is the same within the tolerance."""
    width = disparity.shape[-1]
    target = torch.arange(width) - disparity.nan_to_num(nan=2.0 * width)
    inside = (target > -0.5) & (target < width - 0.5)
    there = right_disparity.gather(-1, target.round().clamp(0, width - 1).long())
    return inside & ((disparity - there).abs() <= tolerance_px)  # NaN never agrees


def fill_from_background(
    disparity: Tensor,  # [T, 1, H, W] px; values where not `known` are ignored
    known: Tensor,  # bool [T, 1, H, W]
) -> Tensor:  # [T, 1, H, W] finite
    """Fill every gap of a row with the farther of its two ends: what is hidden belongs to the background.

    A row without any known pixel copies the nearest row above that has one (below, at the top); a frame
    without any becomes 0.
    """
    filled = disparity.nan_to_num(nan=0.0)[:, 0].numpy().astype(np.float32)  # astype copies
    _fill_frames(filled, known[:, 0].numpy())
    return torch.from_numpy(filled)[:, None]


@numba.njit(cache=True)
def _fill_frames(disparity: np.ndarray, known: np.ndarray) -> None:
    frames, height, _ = disparity.shape
    for t in range(frames):
        for y in range(height):
            _fill_row(disparity[t, y], known[t, y])
        for y in range(1, height):
            if disparity[t, y, 0] == np.inf:
                disparity[t, y] = disparity[t, y - 1]
        for y in range(height - 2, -1, -1):
            if disparity[t, y, 0] == np.inf:
                disparity[t, y] = disparity[t, y + 1]
        if disparity[t, 0, 0] == np.inf:
            disparity[t] = 0.0


@numba.njit(cache=True)
def _fill_row(row: np.ndarray, known: np.ndarray) -> None:
    """Gaps become the smaller of the nearest known value to either side; inf where the row has none."""
    carried = np.float32(np.inf)
    for x in range(row.shape[0]):
        if known[x]:
            carried = row[x]
        else:
            row[x] = carried
    carried = np.float32(np.inf)
    for x in range(row.shape[0] - 1, -1, -1):
        if known[x]:
            carried = row[x]
        else:
            row[x] = min(row[x], carried)
