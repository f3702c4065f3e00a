"""The sharp warp on the CPU: one fused pass per row, each row by one thread: the same bits every time.

What is simple arithmetic over a whole row stands in loops of its own, without branches: the compiler turns
those into vector instructions. The gather of colours it can not see through, so `_mix` says what vectors are
to be used; the walk along the surfaces goes pixel by pixel.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor

from secondeye.imaging.arrays import as_rows
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
    change: NDArray[np.int32]  # [W + 2] of the coverage, in its units, from the column before; then their sum


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
        as_rows(frames),
        disparity[:, 0].numpy(),
        sharp,
        np.float32(jump_px),
        # An argument, not a global: numba's cache would not notice a change of another file's constant.
        np.int32(COVERAGE_UNIT),
        _HALF if frames.dtype == torch.uint8 else _ZERO,
        as_rows(warped),
        coverage[:, 0].numpy(),
        own_disparity[:, 0].numpy(),
    )
    return warped, coverage, own_disparity


@njit(parallel=True, cache=True, error_model="numpy")
def _warp_rows(
    frames: NDArray[np.float32] | NDArray[np.uint8],  # see `as_rows`
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
        # Red, green and blue in turn, and one more: a colour is read and written as four numbers.
        source, view = np.zeros(3 * width + 1, np.float32), np.zeros(3 * width + 1, np.float32)
        for row in range(chunk * _ROWS_AT_A_TIME, min((chunk + 1) * _ROWS_AT_A_TIME, count * height)):
            t, y = row // height, row % height
            _study(disparity[t, y], jump_px, surface)
            _paint(disparity[t, y], surface, unit, canvas)
            _resolve(canvas, unit, coverage[t, y], own_disparity[t, y])
            _load(frames[t, y], source)
            if sharp:
                _weigh(canvas.offset, weights)
                _gather_lanczos3(source, surface, canvas, weights, view)
            else:
                _gather_bilinear(source, canvas, view)
            _lay_caps(source, disparity[t, y], surface, canvas, sharp, view, own_disparity[t, y])
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
    _add_up(canvas.change)
    _take_back(canvas.change, canvas.way)
    _take_back(canvas.change, canvas.cap)
    _measure(canvas, unit, coverage)
    _choose(canvas.way, canvas.disparity, own_disparity)


@_njit
def _add_up(
    change: NDArray[np.int32],  # [W + 2], becomes the sum of all before and itself
) -> None:
    units = np.int32(0)
    for x in range(change.size):
        units += change[x]
        change[x] = units


@_njit
def _take_back(
    units: NDArray[np.int32],  # [W + 2]
    column: NDArray[np.int32],  # [W], becomes _NONE where no unit is covered
) -> None:
    for x in range(column.size):
        column[x] = column[x] if units[x] > 0 else _NONE


@_njit
def _measure(
    canvas: _Canvas,
    unit: np.int32,
    coverage: NDArray[np.float32],  # [W], written
) -> None:
    units, way, cap = canvas.change, canvas.way, canvas.cap
    scale = _ONE / np.float32(unit)
    for x in range(coverage.size):
        share = np.float32(min(units[x], unit)) * scale
        coverage[x] = share if max(way[x], cap[x]) >= 0 else _ZERO


@_njit
def _choose(
    way: NDArray[np.int32],  # [W]
    disparity: NDArray[np.float32],  # [W]
    own_disparity: NDArray[np.float32],  # [W], written
) -> None:
    for x in range(own_disparity.size):
        own_disparity[x] = disparity[x] if way[x] >= 0 else _ZERO


@_njit
def _load(
    lines: NDArray[np.float32] | NDArray[np.uint8],  # [3, W] or [1, 3 W]
    row: NDArray[np.float32],  # [3 W + 1], written but for its end
) -> None:
    channels, length = lines.shape
    for channel in range(channels):
        for x in range(length):
            row[channels * x + channel] = np.float32(lines[channel, x])


@_njit
def _store(
    row: NDArray[np.float32],  # [3 W + 1]
    rounding: np.float32,
    lines: NDArray[np.float32] | NDArray[np.uint8],  # [3, W] or [1, 3 W], written
) -> None:
    channels, length = lines.shape
    for channel in range(channels):
        for x in range(length):
            lines[channel, x] = row[channels * x + channel] + rounding


def _mix_as_vectors(typing: Any, row: Any, places: Any, weights: Any, out: Any, at: Any) -> Any:
    """out[at : at + 4] = the sum over k of weights[k] * row[places[k] : places[k] + 4], as vectors of four.

    Of six, the sum is kept between the least and the largest of the middle four. Nothing checks the bounds.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        row, places, weights, out, at = arguments
        four = ir.VectorType(ir.FloatType(), 4)

        def point(array: Any, kind: Any, place: Any) -> Any:
            data = context.make_array(kind)(context, builder, array).data
            return builder.bitcast(builder.gep(data, [place]), four.as_pointer())

        def fourfold(number: Any) -> Any:
            zero = ir.Constant(ir.IntType(32), 0)
            first = builder.insert_element(ir.Constant(four, ir.Undefined), number, zero)
            return builder.shuffle_vector(
                first, first, ir.Constant(ir.VectorType(ir.IntType(32), 4), [0] * 4)
            )

        def choose(relation: str, a: Any, b: Any) -> Any:  # < for the smaller, > for the larger
            return builder.select(builder.fcmp_ordered(relation, a, b, flags=("nnan", "nsz")), a, b)

        colours, total = [], ir.Constant(four, [0.0] * 4)
        for k in range(len(signature.args[1])):
            place = point(row, signature.args[0], builder.extract_value(places, k))
            colours.append(builder.load(place, align=4))
            weight = fourfold(builder.extract_value(weights, k))
            total = builder.fadd(total, builder.fmul(weight, colours[-1]))
        if len(colours) == 6:
            a, b, c, d = colours[1:5]
            least = choose("<", choose("<", a, b), choose("<", c, d))
            most = choose(">", choose(">", a, b), choose(">", c, d))
            total = choose("<", choose(">", total, least), most)
        builder.store(total, point(out, signature.args[3], at), align=4)
        return context.get_dummy_value()

    return types.void(row, places, weights, out, at), generate


_mix: Any = intrinsic(_mix_as_vectors)


@_njit
def _gather_bilinear(
    source: NDArray[np.float32],  # [3 W + 1]
    canvas: _Canvas,
    view: NDArray[np.float32],  # [3 W + 1], written
) -> None:
    for target in range(canvas.way.size):
        x, share = int(canvas.way[target]), canvas.offset[target]
        if x < 0:
            for channel in range(3):
                view[3 * target + channel] = _ZERO
        else:
            _mix(source, (3 * x, 3 * x + 3), (_ONE - share, share), view, 3 * target)


@_njit
def _gather_lanczos3(
    source: NDArray[np.float32],  # [3 W + 1]
    surface: _Surface,
    canvas: _Canvas,
    weights: NDArray[np.float32],  # [6, W] of the taps -2 to 3
    view: NDArray[np.float32],  # [3 W + 1], written
) -> None:
    for target in range(canvas.way.size):
        x = int(canvas.way[target])
        if x < 0:
            for channel in range(3):
                view[3 * target + channel] = _ZERO
            continue
        t0, t1, t4, t5 = x - 2, x - 1, x + 2, x + 3
        if not surface.inside[x]:
            t1, t0 = _inward(x, -1, surface.connected)
            t4, t5 = _inward(x + 1, 1, surface.connected)
        places = (3 * t0, 3 * t1, 3 * x, 3 * x + 3, 3 * t4, 3 * t5)
        w0, w1, w2 = weights[0, target], weights[1, target], weights[2, target]
        w3, w4, w5 = weights[3, target], weights[4, target], weights[5, target]
        _mix(source, places, (w0, w1, w2, w3, w4, w5), view, 3 * target)


@_njit
def _lay_caps(
    source: NDArray[np.float32],  # [3 W + 1]
    disparity: NDArray[np.float32],  # [W] px
    surface: _Surface,
    canvas: _Canvas,
    sharp: bool,
    view: NDArray[np.float32],  # [3 W + 1], changed
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
            here, next_to = source[3 * x + channel], source[3 * one + channel]
            value = w_two * source[3 * two + channel] + w_one * next_to + (_ONE - w_two - w_one) * here
            value = min(max(value, min(here, next_to)), max(here, next_to))
            below = view[3 * target + channel]
            view[3 * target + channel] = below + share * (value - below)


@_njit
def _inward(
    x: int,
    step: int,  # -1 or 1
    connected: NDArray[np.uint8],  # [W + 1]
) -> tuple[int, int]:
    """The next two columns in the direction of the step, each no further than the end of the surface of x."""
    between = (step + 1) // 2  # `connected` of x is about x - 1 and x
    one = x + step * int(connected[x + between])
    # Where the surface ends at x, this asks about the same two columns once more.
    two = one + step * int(connected[one + between])
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
