"""Splatting on the CPU: one fused pass per row, one thread per row, hence deterministic.

Simple arithmetic over a whole row is kept in separate loops without branches, which the compiler vectorizes.
The scatter itself cannot be vectorized.
"""

import numpy as np
import torch
from numba import njit, prange
from numpy.typing import NDArray
from torch import Tensor

from secondeye.imaging.arrays import as_rows
from secondeye.splat.reference import MIN_EXPONENT, WEIGHT_FLOOR

# Numba promotes float32 combined with a Python number to float64, hence typed constants.
_ZERO, _HALF, _ONE = (np.float32(value) for value in (0, 0.5, 1))
# 2 ** x on [0, 1) as 1 + x * (a + x * (b + ...)): exactly 1 at 0, error below 1.8e-7 (our fit).
_EXP2 = tuple(
    np.float32(value) for value in (0.693151712, 0.240159273, 0.0558186732, 0.00899099652, 0.0018793178)
)
_LOWEST = np.finfo(np.float32).min
_FLOAT_BIAS, _MANTISSA_BITS = np.int32(127), np.int32(23)
_ROWS_PER_CHUNK = 16  # rows that share one scratch buffer

# Inputs are checked to be free of NaN; without NaN a maximum can be vectorized. Sums are not reordered.
_njit = njit(cache=True, error_model="numpy", fastmath={"nnan", "nsz"})


def splat_cpu(
    frames: Tensor,  # [T, 3, H, W], or uint8 [T, H, W, 3]
    disparity: Tensor,  # [T, 1, H, W] px
    exponent_per_px: float,
    released: bool,  # the released border rule, see `splat`
) -> tuple[Tensor, Tensor]:  # warped in the form of the frames, coverage [T, 1, H, W] in [0, 1]
    """Splat CPU tensors like `splat_reference`, without gradients."""
    frames, disparity = frames.contiguous(), disparity.contiguous()
    warped, coverage = torch.empty_like(frames), torch.empty_like(disparity)
    _splat_rows(
        as_rows(frames),
        disparity[:, 0].numpy(),
        np.float32(exponent_per_px),
        # Passed as arguments because numba's cache does not notice changed constants of another module.
        np.float32(MIN_EXPONENT),
        np.float32(WEIGHT_FLOOR),
        released,
        _HALF if frames.dtype == torch.uint8 else _ZERO,
        as_rows(warped),
        coverage[:, 0].numpy(),
    )
    return warped, coverage


@njit(parallel=True, cache=True, nogil=True, error_model="numpy")
def _splat_rows(
    frames: NDArray[np.float32] | NDArray[np.uint8],  # as returned by `as_rows`
    disparity: NDArray[np.float32],  # [T, H, W] px
    exponent: np.float32,
    farthest: np.float32,
    floor: np.float32,
    released: bool,
    rounding: np.float32,  # added to the output before truncation
    warped: NDArray[np.float32] | NDArray[np.uint8],  # shaped like frames, written
    coverage: NDArray[np.float32],  # [T, H, W], written
) -> None:
    count, height, width = disparity.shape
    lowest, highest = (0, width - 2) if released else (-1, width - 1)
    for chunk in prange((count * height + _ROWS_PER_CHUNK - 1) // _ROWS_PER_CHUNK):
        left, share = np.empty(width, np.int32), np.empty(width, np.float32)
        weight, power = np.empty(width, np.float32), np.empty(width, np.int32)
        # Sums of red, green, blue, weight and coverage, with a margin of one column on each side.
        total = np.empty((width + 2, 5), np.float32)
        for row in range(chunk * _ROWS_PER_CHUNK, min((chunk + 1) * _ROWS_PER_CHUNK, count * height)):
            t, y = row // height, row % height
            total[:] = _ZERO
            if not (released and y == height - 1):
                _landing_columns(disparity[t, y], left, share)
                _depth_weights(disparity[t, y], exponent, farthest, weight, power)
                _scatter(frames[t, y], left, share, weight, lowest, highest, total)
            _normalize(total, floor, rounding, warped[t, y], coverage[t, y])


@_njit
def _landing_columns(
    disparity: NDArray[np.float32],  # [W] px
    left: NDArray[np.int32],  # [W] column left of the landing point, in [-2, W]; written
    right_share: NDArray[np.float32],  # [W] share of the pixel that lands one column right, [0, 1]; written
) -> None:
    beyond = np.float32(disparity.size)
    for x in range(disparity.size):
        landing = np.float32(x) - disparity[x]
        left[x] = np.int32(min(max(np.floor(landing), np.float32(-2)), beyond))
    for x in range(disparity.size):
        landing = np.float32(x) - disparity[x]
        right_share[x] = landing - np.floor(landing)


@_njit
def _depth_weights(
    disparity: NDArray[np.float32],  # [W] px
    exponent: np.float32,
    farthest: np.float32,
    weight: NDArray[np.float32],  # [W] 2 ** (exponent * (disparity - nearest)), written
    power: NDArray[np.int32],  # [W] scratch
) -> None:
    nearest = disparity[0]
    for x in range(disparity.size):
        nearest = max(nearest, disparity[x])
    for x in range(disparity.size):
        nearness = max(exponent * max(disparity[x] - nearest, _LOWEST), farthest)
        whole = np.floor(nearness)
        power[x] = (np.int32(whole) + _FLOAT_BIAS) << _MANTISSA_BITS
    for x in range(disparity.size):
        nearness = max(exponent * max(disparity[x] - nearest, _LOWEST), farthest)
        part = nearness - np.floor(nearness)
        a, b, c, d, e = _EXP2
        weight[x] = _ONE + part * (a + part * (b + part * (c + part * (d + part * e))))
    scale = power.view(np.float32)
    for x in range(disparity.size):
        weight[x] *= scale[x]


@_njit
def _scatter(
    lines: NDArray[np.float32] | NDArray[np.uint8],  # [3, W] or [1, 3 W]
    left: NDArray[np.int32],  # [W]
    right_shares: NDArray[np.float32],  # [W]
    weight: NDArray[np.float32],  # [W]
    lowest: int,  # range of valid columns left of a landing point
    highest: int,
    total: NDArray[np.float32],  # [W + 2, 5], added to
) -> None:
    interleaved = lines.shape[0] == 1
    for x in range(left.size):
        if lowest <= left[x] <= highest:
            column = np.uint32(left[x] + 1)
            next_column = np.uint32(left[x] + 2)
            right_share = right_shares[x]
            left_share = _ONE - right_share
            left_weight, right_weight = left_share * weight[x], right_share * weight[x]
            for channel in range(3):
                value = np.float32(lines[0, 3 * x + channel] if interleaved else lines[channel, x])
                total[column, channel] += left_weight * value
                total[next_column, channel] += right_weight * value
            total[column, 3] += left_weight
            total[next_column, 3] += right_weight
            total[column, 4] += left_share
            total[next_column, 4] += right_share


@_njit
def _normalize(
    total: NDArray[np.float32],  # [W + 2, 5]
    floor: np.float32,
    rounding: np.float32,
    lines: NDArray[np.float32] | NDArray[np.uint8],  # [3, W] or [1, 3 W], written
    coverage: NDArray[np.float32],  # [W], written
) -> None:
    interleaved = lines.shape[0] == 1
    for x in range(coverage.size):
        inverse = _ONE / max(total[x + 1, 3], floor)
        for channel in range(3):
            value = total[x + 1, channel] * inverse + rounding
            if interleaved:
                lines[0, 3 * x + channel] = value
            else:
                lines[channel, x] = value
        coverage[x] = min(total[x + 1, 4], _ONE)
