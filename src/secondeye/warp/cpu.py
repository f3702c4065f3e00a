"""The sharp warp on the CPU: one fused pass per row, each row by one thread: the same bits every time."""

import math
from typing import NamedTuple

import numpy as np
import torch
from numba import njit, prange
from numpy.typing import NDArray
from torch import Tensor

# Numba widens float32 with a Python number to float64; colours are mixed in float32.
_HALF, _ONE, _TWO, _THREE = np.float32(0.5), np.float32(1), np.float32(2), np.float32(3)
_THIRD_OF_PI = np.float32(math.pi / 3)
_COSINE_SCALE = np.float32(math.sqrt(3) / 2 * 3 / math.pi)
_SINC_2, _SINC_4, _SINC_6 = np.float32(1 / 6), np.float32(1 / 120), np.float32(1 / 5040)
_REACH = 3  # columns between a pixel and its farthest tap


class _Canvas(NamedTuple):
    """What is painted of one target row."""

    sample: NDArray[np.int32]  # [W] source column, -1 for none
    offset: NDArray[np.float32]  # [W] from it, [-0.5, 0.5] px
    disparity: NDArray[np.float32]  # [W] px
    covered: NDArray[np.float64]  # [W] sum of what covers the pixel
    centred: NDArray[np.bool_]  # [W] whether a patch reaches the centre


def warp_cpu(
    frames: Tensor,  # [T, 3, H, W]
    disparity: Tensor,  # [T, 1, H, W] px
    sharp: bool,  # Lanczos-3, else bilinear
    jump_px: float,
) -> tuple[Tensor, Tensor, Tensor]:  # frames [T, 3, H, W], coverage and disparity [T, 1, H, W]
    """Warp float32 CPU tensors; as `warp_reference`."""
    warped = torch.empty_like(frames, memory_format=torch.contiguous_format)
    coverage = torch.empty_like(disparity, memory_format=torch.contiguous_format)
    own_disparity = torch.zeros_like(coverage)
    _warp_rows(
        frames.contiguous().numpy(),
        disparity.contiguous().numpy(),
        sharp,
        float(jump_px),
        warped.numpy(),
        coverage.numpy(),
        own_disparity.numpy(),
    )
    return warped, coverage, own_disparity


@njit(parallel=True, cache=True, error_model="numpy")
def _warp_rows(
    frames: NDArray[np.float32],  # [T, 3, H, W]
    disparity: NDArray[np.float32],  # [T, 1, H, W] px
    sharp: bool,
    jump_px: float,
    warped: NDArray[np.float32],  # [T, 3, H, W], written
    coverage: NDArray[np.float32],  # [T, 1, H, W], written
    own_disparity: NDArray[np.float32],  # [T, 1, H, W], 0, written where something lands
) -> None:
    count, _, height, width = frames.shape
    for row in prange(count * height):
        t, y = row // height, row % height
        canvas = _Canvas(
            np.full(width, -1, np.int32),
            np.empty(width, np.float32),
            own_disparity[t, 0, y],
            np.zeros(width, np.float64),
            np.zeros(width, np.bool_),
        )
        reach = _measure_reach(disparity[t, 0, y], jump_px)
        _paint_row(disparity[t, 0, y], reach, canvas)
        for x in range(width):
            coverage[t, 0, y, x] = min(canvas.covered[x], 1.0)
        if sharp:
            _gather_lanczos3(frames[t, :, y], reach, canvas, warped[t, :, y])
        else:
            _gather_bilinear(frames[t, :, y], reach, canvas, warped[t, :, y])


@njit(cache=True, error_model="numpy")
def _measure_reach(
    disparity: NDArray[np.float32],  # [W]
    jump_px: float,
) -> NDArray[np.int8]:  # [2, W] columns of the same surface to the left and to the right, counted to _REACH
    width = disparity.size
    reach = np.zeros((2, width), np.int8)
    for x in range(1, width):
        if abs(np.float64(disparity[x]) - disparity[x - 1]) <= jump_px:
            reach[0, x] = min(reach[0, x - 1] + 1, _REACH)
    for x in range(width - 2, -1, -1):
        if reach[0, x + 1] > 0:
            reach[1, x] = min(reach[1, x + 1] + 1, _REACH)
    return reach


@njit(cache=True, error_model="numpy")
def _paint_row(
    disparity: NDArray[np.float32],  # [W]
    reach: NDArray[np.int8],  # [2, W]
    canvas: _Canvas,
) -> None:
    """Paint from left to right: of two pixels that meet, the one further right in the source is nearer."""
    position = -np.float64(disparity[0])
    left_edge = position - 0.5
    for x in range(disparity.size):
        following = min(x + 1, disparity.size - 1)
        next_position = following - np.float64(disparity[following])
        right_edge, next_left_edge = position + 0.5, next_position - 0.5
        if reach[1, x] > 0:
            right_edge = next_left_edge = (position + next_position) / 2
        _paint(x, -0.5, left_edge, position, canvas)
        _paint(x, 0.0, position, right_edge, canvas)
        position, left_edge = next_position, next_left_edge


@njit(cache=True, error_model="numpy")
def _paint(
    x: int,
    offset_at_start: float,  # -0.5 for the left half, 0 for the right
    start: float,  # target position
    stop: float,
    canvas: _Canvas,
) -> None:
    """Paint one half patch of source pixel x."""
    width = canvas.sample.size
    if stop <= start or stop <= -0.5 or start >= width - 0.5:
        return
    rate = 0.5 / (stop - start)
    first = int(max(np.floor(start + 0.5), 0.0))
    last = int(min(np.ceil(stop - 0.5), width - 1.0))
    for pixel in range(first, last + 1):
        canvas.covered[pixel] += min(stop, pixel + 0.5) - max(start, pixel - 0.5)
        centred = start <= pixel < stop
        # A patch that reaches the centre of a pixel beats all that only touch it.
        if centred or not canvas.centred[pixel]:
            position = min(max(float(pixel), start), stop)
            offset = offset_at_start + (position - start) * rate
            canvas.sample[pixel] = x
            canvas.offset[pixel] = offset
            canvas.disparity[pixel] = x + offset - position
            canvas.centred[pixel] |= centred


@njit(cache=True, error_model="numpy")
def _gather_bilinear(
    colour: NDArray[np.float32],  # [3, W]
    reach: NDArray[np.int8],  # [2, W]
    canvas: _Canvas,
    warped: NDArray[np.float32],  # [3, W], written
) -> None:
    for x in range(canvas.sample.size):
        middle, offset = canvas.sample[x], canvas.offset[x]
        if middle < 0:
            warped[:, x] = 0
            continue
        beside = middle + min(reach[1, middle], 1) if offset >= 0 else middle - min(reach[0, middle], 1)
        share = abs(offset)
        for channel in range(3):
            line = colour[channel]
            warped[channel, x] = (_ONE - share) * line[middle] + share * line[beside]


@njit(cache=True, error_model="numpy")
def _gather_lanczos3(
    colour: NDArray[np.float32],  # [3, W]
    reach: NDArray[np.int8],  # [2, W]
    canvas: _Canvas,
    warped: NDArray[np.float32],  # [3, W], written
) -> None:
    for x in range(canvas.sample.size):
        middle, offset = canvas.sample[x], canvas.offset[x]
        if middle < 0:
            warped[:, x] = 0
            continue
        step, behind, ahead = 1, reach[0, middle], reach[1, middle]
        if offset < 0:  # taps are counted towards the second nearest column
            step, behind, ahead = -1, ahead, behind
        t0, t1 = middle - step * min(behind, 2), middle - step * min(behind, 1)
        t3, t4, t5 = middle + step * min(ahead, 1), middle + step * min(ahead, 2), middle + step * ahead
        w0, w1, w2, w3, w4, w5 = _lanczos3(abs(offset))
        for channel in range(3):
            line = colour[channel]
            c1, c2, c3, c4 = line[t1], line[middle], line[t3], line[t4]
            value = w0 * line[t0] + w1 * c1 + w2 * c2 + w3 * c3 + w4 * c4 + w5 * line[t5]
            darkest = min(min(c1, c2), min(c3, c4))
            brightest = max(max(c1, c2), max(c3, c4))
            warped[channel, x] = min(max(value, darkest), brightest)


@njit(cache=True, error_model="numpy")
def _lanczos3(share: np.float32) -> tuple[np.float32, ...]:
    """Weights, summing to 1, of the taps -2 to 3 for a point `share` (0 to 0.5) px from tap 0 towards tap 1.

    With sin(pi (u - j)) = (-1)^j sin(pi u), the factor sin(pi u) is common to all taps and cancels: what is
    left of tap j is (-1)^j sin(pi (u - j) / 3) / (u - j)^2. Times 3 u / pi, so that at u = 0 tap 0 is 1.
    """
    angle_squared = _square(_THIRD_OF_PI * share)
    # sin(a) / a, to 1e-8 up to a = pi / 6; unlike the quotient it is exactly 1 at 0.
    sinc = _ONE - angle_squared * (_SINC_2 - angle_squared * (_SINC_4 - angle_squared * _SINC_6))
    sine = share * sinc
    cosine = np.sqrt(_ONE - _square(_THIRD_OF_PI * sine)) * _COSINE_SCALE
    near, far = share * (cosine - sine * _HALF), share * (cosine + sine * _HALF)
    w0 = near / _square(share + _TWO)
    w1 = -far / _square(share + _ONE)
    w3 = near / _square(share - _ONE)
    w4 = -far / _square(share - _TWO)
    w5 = share * sine / _square(share - _THREE)
    scale = _ONE / (w0 + w1 + sinc + w3 + w4 + w5)
    return w0 * scale, w1 * scale, sinc * scale, w3 * scale, w4 * scale, w5 * scale


@njit(cache=True, error_model="numpy")
def _square(value: np.float32) -> np.float32:
    return value * value
