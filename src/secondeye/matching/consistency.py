"""Left-right consistency check, and gap filling from the background side, for any matcher."""

import numba
import numpy as np
import torch
from torch import Tensor

from secondeye.matching.interface import Matcher


def match_both_ways(
    matcher: Matcher,
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
    *,
    tolerance_px: float,
) -> tuple[Tensor, Tensor]:  # disparity [T, 1, H, W] px (may be NaN), consistent bool [T, 1, H, W]
    """Match left to right and, mirrored, right to left; a pixel is consistent where both agree."""
    disparity = matcher(left, right)
    backward = matcher(right.flip(-1), left.flip(-1)).flip(-1)
    return disparity, is_consistent(disparity, backward, tolerance_px)


def is_consistent(
    disparity: Tensor,  # [T, 1, H, W] px of the left view, NaN where unmatched
    right_disparity: Tensor,  # [T, 1, H, W] px of the right view, NaN where unmatched
    tolerance_px: float,
) -> Tensor:  # bool [T, 1, H, W]
    """Mark pixels where the right view's disparity at the matched position agrees within the tolerance."""
    width = disparity.shape[-1]
    target = torch.arange(width) - disparity.nan_to_num(nan=2.0 * width)
    inside = (target > -0.5) & (target < width - 0.5)
    right_at_target = right_disparity.gather(-1, target.round().clamp(0, width - 1).long())
    return inside & ((disparity - right_at_target).abs() <= tolerance_px)  # False for NaN


def fill_from_background(
    disparity: Tensor,  # [T, 1, H, W] px; values where not `known` are ignored
    known: Tensor,  # bool [T, 1, H, W]
) -> Tensor:  # [T, 1, H, W] finite
    """Fill each gap of a row with the smaller disparity at its ends: hidden regions are background.

    A row without known pixels copies the nearest row above that has some, or below at the top; a frame
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
    """Fill gaps with the smaller of the nearest known values on both sides; inf if the row has none."""
    nearest = np.float32(np.inf)
    for x in range(row.shape[0]):
        if known[x]:
            nearest = row[x]
        else:
            row[x] = nearest
    nearest = np.float32(np.inf)
    for x in range(row.shape[0] - 1, -1, -1):
        if known[x]:
            nearest = row[x]
        else:
            row[x] = min(row[x], nearest)
