"""The sharp warp on the CPU: one fused pass per row, each row by one thread: the same bits every time.

What is simple arithmetic over a whole row stands in loops of its own, without branches: the compiler turns
those into vector instructions. The walk along the surfaces and the gather of colours can not be.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numba import njit, prange
from numpy.typing import NDArray
from torch import Tensor

from secondeye.arrays import rows_of
from secondeye.warp.reference import COVERAGE_UNIT

# Numba widens float32 with a Python number to float64.
_ZERO, _HALF, _ONE, _TWO, _THREE = (np.float32(value) for value in (0, 0.5, 1, 2, 3))
_THIRD_OF_PI = np.float32(math.pi / 3)
_COSINE_SCALE = np.float32(math.sqrt(3) / 2 * 3 / math.pi)
_SINC_2, _SINC_4, _SINC_6 = np.float32(1 / 6), np.float32(1 / 120), np.float32(1 / 5040)
_NONE = -1  # no source column
_ROWS_AT_A_TIME = 16  # that share one thread's scratch

# The door lets no NaN in, and without them a minimum is one instruction. Nothing else is relaxed: not one
# sum is reordered, so the bits do not depend on the machine's vectors.
_njit = njit(cache=True, error_model="numpy", fastmath={"nnan", "nsz"})


class _Surface(NamedTuple):
    """What is known of one source row. Index x of `connected` and `forward` is about columns x - 1 and x."""

    position: NDArray[np.float32]  # [W] px in the target
    first: NDArray[np.int32]  # [W] target column at or right of the position, 0 to W
    connected: NDArray[np.uint8]  # [W + 1] whether they are of one surface
    forward: NDArray[np.uint8]  # [W + 1] whether moreover the surface is turned towards this eye
    inside: NDArray[np.uint8]  # [W] whether columns x - 2 to x + 3 are of one surface
    rate: NDArray[np.float32]  # [W] source pixels per target pixel, on the way to the next column
    rise: NDArray[np.float32]  # [W] px of disparity, on the way to the next column


class _Canvas(NamedTuple):
    """What is painted of one target row."""

    way: NDArray[np.int32]  # [W] source column of the nearest way that reaches the centre, or _NONE
    offset: NDArray[np.float32]  # [W] from that column, [0, 1] px
    disparity: NDArray[np.float32]  # [W] px
    cap: NDArray[np.int32]  # [W] source column of the nearest cap that stands in the pixel, or _NONE
    change: NDArray[np.int32]  # [W + 2] of the coverage, in its units, from the column before


def warp_cpu(
    frames: Tensor,  # [T, 3, H, W], or uint8 [T, H, W, 3]
    disparity: Tensor,  # [T, 1, H, W] px
    sharp: bool,  # Lanczos-3, else bilinear
    jump_px: float,
) -> tuple[Tensor, Tensor, Tensor]:  # frames in the form given, coverage and disparity [T, 1, H, W]
    """Warp CPU tensors; as `warp_reference`."""
    frames, disparity = frames.contiguous(), disparity.contiguous()
    warped, coverage, own_disparity = (torch.empty_like(a) for a in (frames, disparity, disparity))
    _warp_rows(
        rows_of(frames),
        disparity[:, 0].numpy(),
        sharp,
        np.float32(jump_px),
        # An argument, not a global: numba's cache would not notice a change of another file's constant.
        np.int32(COVERAGE_UNIT),
        _HALF if frames.dtype == torch.uint8 else _ZERO,
        rows_of(warped),
        coverage[:, 0].numpy(),
        own_disparity[:, 0].numpy(),
    )
    return warped, coverage, own_disparity


@njit(parallel=True, cache=True, error_model="numpy")
def _warp_rows(
    frames: NDArray[np.float32] | NDArray[np.uint8],  # see `rows_of`
    disparity: NDArray[np.float32],  # [T, H, W] px
    sharp: bool,
    jump_px: np.float32,
    unit: np.int32,
    rounding: np.float32,  # added before what is written is truncated
    warped: NDArray[np.float32] | NDArray[np.uint8],  # as frames, written
    coverage: NDArray[np.float32],  # [T, H, W], written
    own_disparity: NDArray[np.float32],  # [T, H, W], written
) -> None:
    count, height, width = disparity.shape
    for chunk in prange((count * height + _ROWS_AT_A_TIME - 1) // _ROWS_AT_A_TIME):
        surface = _Surface(
            np.empty(width, np.float32),
            np.empty(width, np.int32),
            np.zeros(width + 1, np.uint8),
            np.zeros(width + 1, np.uint8),
            np.zeros(width, np.uint8),
            np.empty(width, np.float32),
            np.empty(width, np.float32),
        )
        canvas = _Canvas(
            np.empty(width, np.int32),
            np.zeros(width, np.float32),
            np.empty(width, np.float32),
            np.empty(width, np.int32),
            np.empty(width + 2, np.int32),
        )
        weights = np.empty((6, width), np.float32)
        # Colour (x, channel) of a row is at `x * column + channel * plane`.
        source, view = np.empty(3 * width, np.float32), np.empty(3 * width, np.float32)
        column, plane = (3, 1) if frames.shape[2] == 1 else (1, width)
        for row in range(chunk * _ROWS_AT_A_TIME, min((chunk + 1) * _ROWS_AT_A_TIME, count * height)):
            t, y = row // height, row % height
            _study(disparity[t, y], jump_px, surface)
            _paint(disparity[t, y], surface, unit, canvas)
            _resolve(canvas, unit, coverage[t, y], own_disparity[t, y])
            _load(frames[t, y], source)
            if sharp:
                _weigh(canvas.offset, weights)
                _gather_lanczos3(source, column, plane, surface, canvas, weights, view)
            else:
                _gather_bilinear(source, column, plane, canvas, view)
            _lay_caps(
                source, column, plane, disparity[t, y], surface, canvas, sharp, view, own_disparity[t, y]
            )
            _store(view, rounding, warped[t, y])


@_njit
def _study(
    disparity: NDArray[np.float32],  # [W] px
    jump_px: np.float32,
    surface: _Surface,  # written
) -> None:
    # Few arrays to a function: with many the compiler gives up showing that none overlaps another.
    _place(disparity, surface.position, surface.first)
    _connect(disparity, surface.position, jump_px, surface.connected, surface.forward)
    _look_around(surface.connected, surface.inside)
    _slope(disparity, surface.position, surface.rate, surface.rise)


@_njit
def _place(
    disparity: NDArray[np.float32],  # [W]
    position: NDArray[np.float32],  # [W], written
    first: NDArray[np.int32],  # [W], written
) -> None:
    last = np.float32(position.size)
    for x in range(position.size):
        position[x] = np.float32(x) - disparity[x]
    for x in range(first.size):
        first[x] = np.int32(min(max(np.ceil(position[x]), _ZERO), last))


@_njit
def _connect(
    disparity: NDArray[np.float32],  # [W]
    position: NDArray[np.float32],  # [W]
    jump_px: np.float32,
    connected: NDArray[np.uint8],  # [W + 1], written but for its ends
    forward: NDArray[np.uint8],  # [W + 1], written but for its ends
) -> None:
    for x in range(1, disparity.size):
        connected[x] = abs(disparity[x] - disparity[x - 1]) <= jump_px
    for x in range(1, position.size):
        forward[x] = connected[x] & np.uint8(position[x] > position[x - 1])


@_njit
def _look_around(
    connected: NDArray[np.uint8],  # [W + 1]
    inside: NDArray[np.uint8],  # [W], written but for its ends
) -> None:
    for x in range(inside.size - 5):
        left = connected[x + 1] & connected[x + 2]
        inside[x + 2] = left & connected[x + 3] & connected[x + 4] & connected[x + 5]


@_njit
def _slope(
    disparity: NDArray[np.float32],  # [W]
    position: NDArray[np.float32],  # [W]
    rate: NDArray[np.float32],  # [W], written but for its end
    rise: NDArray[np.float32],  # [W], written but for its end
) -> None:
    for x in range(position.size - 1):
        rate[x] = _ONE / (position[x + 1] - position[x])
    for x in range(disparity.size - 1):
        rise[x] = disparity[x + 1] - disparity[x]


@_njit
def _paint(
    disparity: NDArray[np.float32],  # [W] px
    surface: _Surface,
    unit: np.int32,
    canvas: _Canvas,  # written
) -> None:
    """Paint from left to right: of two surfaces that meet, the one further right in the source is nearer."""
    position, first, forward = surface.position, surface.first, surface.forward
    rate, rise = surface.rate, surface.rise
    width = disparity.size
    canvas.way[:] = _NONE
    canvas.cap[:] = _NONE
    canvas.change[:] = 0
    x = 0
    while x < width:
        start = position[x]
        if not surface.connected[x]:
            start -= _HALF
            _stand(x, np.floor(position[x]), canvas.cap)
        _cover(start, np.int32(1), unit, canvas.change)
        here = first[x]
        while forward[x + 1]:
            there = first[x + 1]
            if here < there:
                offset = (np.float32(here) - position[x]) * rate[x]
                _show(x, here, offset, disparity[x] + offset * rise[x], canvas)
                # Seldom any. In one loop with the first they would be made vectors of, which takes longer.
                for target in range(here + 1, there):
                    offset = (np.float32(target) - position[x]) * rate[x]
                    _show(x, target, offset, disparity[x] + offset * rise[x], canvas)
                here = there
            x += 1
        stop = position[x]
        if not surface.connected[x + 1]:
            stop += _HALF
            _stand(x, np.ceil(position[x]), canvas.cap)
        _cover(stop, np.int32(-1), unit, canvas.change)
        x += 1


@_njit
def _show(
    x: int,
    target: int,
    offset: np.float32,  # from x
    disparity: np.float32,  # px
    canvas: _Canvas,  # written
) -> None:
    canvas.way[np.uint32(target)] = x
    canvas.offset[np.uint32(target)] = offset
    canvas.disparity[np.uint32(target)] = disparity


@_njit
def _stand(
    x: int,
    pixel: np.float32,  # target column in which a cap of x stands
    cap: NDArray[np.int32],  # [W], written
) -> None:
    if _ZERO <= pixel < np.float32(cap.size):
        cap[int(pixel)] = x


@_njit
def _cover(
    edge: np.float32,  # target position from which on a run covers, or no longer does
    sign: np.int32,
    unit: np.int32,
    change: NDArray[np.int32],  # [W + 2], added to
) -> None:
    edge = min(max(edge, -_HALF), np.float32(change.size - 2) - _HALF)
    column = np.floor(edge + _HALF)
    before = np.int32(np.floor((edge - (column - _HALF)) * np.float32(unit) + _HALF))
    change[int(column)] += sign * (unit - before)
    change[int(column) + 1] += sign * before


@_njit
def _resolve(
    canvas: _Canvas,  # what covers nothing is taken back
    unit: np.int32,
    coverage: NDArray[np.float32],  # [W], written
    own_disparity: NDArray[np.float32],  # [W], written, but for the caps
) -> None:
    units = np.int32(0)
    for x in range(coverage.size):
        units += canvas.change[x]
        if units == 0:
            canvas.way[x] = canvas.cap[x] = _NONE
        shown = canvas.way[x] >= 0 or canvas.cap[x] >= 0
        coverage[x] = np.float32(min(units, unit)) / np.float32(unit) if shown else _ZERO
        own_disparity[x] = canvas.disparity[x] if canvas.way[x] >= 0 else _ZERO


@_njit
def _load(
    lines: NDArray[np.float32] | NDArray[np.uint8],  # [3, W] or [1, 3 W]
    row: NDArray[np.float32],  # [3 W], written
) -> None:
    length = lines.shape[1]
    for line in range(lines.shape[0]):
        for x in range(length):
            row[line * length + x] = np.float32(lines[line, x])


@_njit
def _store(
    row: NDArray[np.float32],  # [3 W]
    rounding: np.float32,
    lines: NDArray[np.float32] | NDArray[np.uint8],  # [3, W] or [1, 3 W], written
) -> None:
    length = lines.shape[1]
    for line in range(lines.shape[0]):
        for x in range(length):
            lines[line, x] = row[line * length + x] + rounding


@_njit
def _gather_bilinear(
    source: NDArray[np.float32],  # [3 W]
    column: int,
    plane: int,
    canvas: _Canvas,
    view: NDArray[np.float32],  # [3 W], written
) -> None:
    for target in range(canvas.way.size):
        x, share = canvas.way[target], canvas.offset[target]
        a, b = np.uint32(x * column), np.uint32((x + 1) * column)
        for channel in range(3):
            at = np.uint32(channel * plane)
            value = (_ONE - share) * source[a + at] + share * source[b + at] if x >= 0 else _ZERO
            view[np.uint32(target * column) + at] = value


@_njit
def _gather_lanczos3(
    source: NDArray[np.float32],  # [3 W]
    column: int,
    plane: int,
    surface: _Surface,
    canvas: _Canvas,
    weights: NDArray[np.float32],  # [6, W] of the taps -2 to 3
    view: NDArray[np.float32],  # [3 W], written
) -> None:
    for target in range(canvas.way.size):
        x = canvas.way[target]
        if x < 0:
            for channel in range(3):
                view[target * column + channel * plane] = _ZERO
            continue
        t0, t1, t4, t5 = x - 2, x - 1, x + 2, x + 3
        if not surface.inside[x]:
            t1, t0 = _inward(x, -1, surface.connected)
            t4, t5 = _inward(x + 1, 1, surface.connected)
        w0, w1, w2 = weights[0, target], weights[1, target], weights[2, target]
        w3, w4, w5 = weights[3, target], weights[4, target], weights[5, target]
        for channel in range(3):
            at = channel * plane
            c0, c1 = source[np.uint32(t0 * column + at)], source[np.uint32(t1 * column + at)]
            c2, c3 = source[np.uint32(x * column + at)], source[np.uint32((x + 1) * column + at)]
            c4, c5 = source[np.uint32(t4 * column + at)], source[np.uint32(t5 * column + at)]
            value = w0 * c0 + w1 * c1 + w2 * c2 + w3 * c3 + w4 * c4 + w5 * c5
            darkest = min(min(c1, c2), min(c3, c4))
            brightest = max(max(c1, c2), max(c3, c4))
            view[np.uint32(target * column + at)] = min(max(value, darkest), brightest)


@_njit
def _lay_caps(
    source: NDArray[np.float32],  # [3 W]
    column: int,
    plane: int,
    disparity: NDArray[np.float32],  # [W] px
    surface: _Surface,
    canvas: _Canvas,
    sharp: bool,
    view: NDArray[np.float32],  # [3 W], changed
    own_disparity: NDArray[np.float32],  # [W], changed
) -> None:
    for target in range(canvas.cap.size):
        x = canvas.cap[target]
        if x <= canvas.way[target]:
            continue
        away = np.float32(target) - surface.position[x]
        share = _ONE if canvas.way[target] < 0 else _ONE - abs(away)
        if share >= _HALF:
            own_disparity[target] = disparity[x]
        # All taps on the far side of x, and that of x itself, are x: there the surface ends.
        one, two = _inward(x, -1 if away > _ZERO else 1, surface.connected)
        w_two, w_one = _ZERO, _ZERO
        if sharp:
            w_two, w_one = _lanczos3(min(abs(away), _HALF))[:2]
        for channel in range(3):
            at = channel * plane
            here, next_to = source[x * column + at], source[one * column + at]
            value = w_two * source[two * column + at] + w_one * next_to + (_ONE - w_two - w_one) * here
            value = min(max(value, min(here, next_to)), max(here, next_to))
            below = view[target * column + at]
            view[target * column + at] = below + share * (value - below)


@_njit
def _inward(
    x: int,
    step: int,  # -1 or 1
    connected: NDArray[np.uint8],  # [W + 1]
) -> tuple[int, int]:
    """The next two columns in the direction of the step, each no further than the end of the surface of x."""
    between = (step + 1) // 2  # `connected` of x is about x - 1 and x
    one = x + step * int(connected[x + between])
    two = one + step * int(connected[one + between]) if one != x else x
    return one, two


@_njit
def _weigh(
    offset: NDArray[np.float32],  # [W] px from a tap to the right, [0, 1]
    weights: NDArray[np.float32],  # [6, W] of the taps -2 to 3, written
) -> None:
    for x in range(offset.size):
        mirrored = offset[x] > _HALF
        w0, w1, w2, w3, w4, w5 = _lanczos3(_ONE - offset[x] if mirrored else offset[x])
        weights[0, x] = w5 if mirrored else w0
        weights[1, x] = w4 if mirrored else w1
        weights[2, x] = w3 if mirrored else w2
        weights[3, x] = w2 if mirrored else w3
        weights[4, x] = w1 if mirrored else w4
        weights[5, x] = w0 if mirrored else w5


@_njit
def _lanczos3(
    u: np.float32,  # px, [0, 0.5]
) -> tuple[np.float32, np.float32, np.float32, np.float32, np.float32, np.float32]:
    """Weights, summing to 1, of the taps -2 to 3 for a point `u` from tap 0 towards tap 1.

    With sin(pi (u - j)) = (-1)^j sin(pi u), the factor sin(pi u) is common to all taps and cancels: what is
    left of tap j is (-1)^j sin(pi (u - j) / 3) / (u - j)^2. Times 3 u / pi, so that at u = 0 tap 0 is 1.
    """
    angle_squared = _square(_THIRD_OF_PI * u)
    # sin(a) / a, to 1e-8 up to a = pi / 6; unlike the quotient it is exactly 1 at 0.
    sinc = _ONE - angle_squared * (_SINC_2 - angle_squared * (_SINC_4 - angle_squared * _SINC_6))
    sine = u * sinc
    cosine = np.sqrt(_ONE - _square(_THIRD_OF_PI * sine)) * _COSINE_SCALE
    near, far = u * (cosine - sine * _HALF), u * (cosine + sine * _HALF)
    w0, w1 = near / _square(u + _TWO), -far / _square(u + _ONE)
    w3, w4 = near / _square(u - _ONE), -far / _square(u - _TWO)
    w5 = u * sine / _square(u - _THREE)
    scale = _ONE / (w0 + w1 + sinc + w3 + w4 + w5)
    return w0 * scale, w1 * scale, sinc * scale, w3 * scale, w4 * scale, w5 * scale


@_njit
def _square(value: np.float32) -> np.float32:
    return value * value
