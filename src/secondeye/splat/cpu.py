"""The splat on the CPU: one fused pass per row, each row by one thread: the same bits every time."""

import numpy as np
import torch
from numba import njit, prange
from numpy.typing import NDArray
from torch import Tensor

from secondeye.splat.reference import FARTHEST_EXPONENT, WEIGHT_FLOOR

_ONE = np.float32(1)  # numba widens float32 with a Python number to float64


def splat_cpu(
    frames: Tensor,  # [T, 3, H, W]
    disparity: Tensor,  # [T, 1, H, W] px
    exponent_per_px: float,
    released: bool,  # the released border rule, see `splat`
) -> tuple[Tensor, Tensor]:  # warped [T, 3, H, W], coverage [T, 1, H, W] in [0, 1]
    """Splat float32 CPU tensors; as `splat_reference`, without gradient."""
    warped = torch.empty_like(frames, memory_format=torch.contiguous_format)
    coverage = torch.empty_like(disparity, memory_format=torch.contiguous_format)
    _splat_rows(
        frames.contiguous().numpy(),
        disparity.contiguous().numpy(),
        np.float32(exponent_per_px),
        # Arguments, not globals: numba's cache would not notice a change of another file's constant.
        np.float32(FARTHEST_EXPONENT),
        np.float32(WEIGHT_FLOOR),
        released,
        warped.numpy(),
        coverage.numpy(),
    )
    return warped, coverage


@njit(parallel=True, cache=True, error_model="numpy")
def _splat_rows(
    frames: NDArray[np.float32],  # [T, 3, H, W]
    disparity: NDArray[np.float32],  # [T, 1, H, W] px
    exponent: np.float32,
    farthest: np.float32,
    floor: np.float32,
    released: bool,
    warped: NDArray[np.float32],  # [T, 3, H, W], written
    coverage: NDArray[np.float32],  # [T, 1, H, W], written
) -> None:
    count, _, height, width = frames.shape
    lowest, highest = (0, width - 2) if released else (-1, width - 1)
    for row in prange(count * height):
        t, y = row // height, row % height
        # Red, green, blue, weight, coverage side by side, with a column of margin on either side.
        total = np.zeros((width + 2, 5), np.float32)
        if not (released and y == height - 1):
            _scatter(frames[t, :, y], disparity[t, 0, y], exponent, farthest, lowest, highest, total)
        _resolve(total, floor, warped[t, :, y], coverage[t, 0, y])


@njit(cache=True, error_model="numpy")
def _scatter(
    colour: NDArray[np.float32],  # [3, W]
    disparity: NDArray[np.float32],  # [W] px
    exponent: np.float32,
    farthest: np.float32,
    lowest: int,  # columns between which the left neighbour of a landing point must lie
    highest: int,
    total: NDArray[np.float32],  # [W + 2, 5], added to
) -> None:
    nearest = disparity.max()
    for x in range(disparity.size):
        landing = np.float32(x) - disparity[x]
        left = np.floor(landing)
        if lowest <= left <= highest:
            weight = np.exp2(max(exponent * (disparity[x] - nearest), farthest))
            right_share = landing - left
            left_share = left + _ONE - landing
            column = int(left) + 1
            _add(total[column], left_share, weight, colour[:, x])
            _add(total[column + 1], right_share, weight, colour[:, x])


@njit(cache=True, error_model="numpy")
def _add(
    total: NDArray[np.float32],  # [5], added to
    share: np.float32,  # of the pixel that lands here, [0, 1]
    weight: np.float32,
    colour: NDArray[np.float32],  # [3]
) -> None:
    for channel in range(3):
        total[channel] += share * (weight * colour[channel])
    total[3] += share * weight
    total[4] += share


@njit(cache=True, error_model="numpy")
def _resolve(
    total: NDArray[np.float32],  # [W + 2, 5]
    floor: np.float32,
    warped: NDArray[np.float32],  # [3, W], written
    coverage: NDArray[np.float32],  # [W], written
) -> None:
    for x in range(coverage.size):
        weight = max(total[x + 1, 3], floor)
        for channel in range(3):
            warped[channel, x] = total[x + 1, channel] / weight
        coverage[x] = min(total[x + 1, 4], _ONE)
