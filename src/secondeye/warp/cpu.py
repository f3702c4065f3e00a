"""The sharp warp on the CPU: one fused pass per row, one thread per row, hence deterministic.

Simple arithmetic over a whole row is kept in separate loops without branches, which the compiler vectorizes.
It cannot vectorize the gather of colours, so `_weighted_sum` emits vector instructions itself. The walk along
the surfaces is scalar.
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

# Numba promotes float32 combined with a Python number to float64, hence typed constants.
_ZERO, _HALF, _ONE, _TWO, _THREE = (np.float32(value) for value in (0, 0.5, 1, 2, 3))
_THIRD_OF_PI = np.float32(math.pi / 3)
_COSINE_SCALE = np.float32(math.sqrt(3) / 2 * 3 / math.pi)
_SINC_2, _SINC_4, _SINC_6 = np.float32(1 / 6), np.float32(1 / 120), np.float32(1 / 5040)
_NONE = -1  # no source column
_ROWS_PER_CHUNK = 16  # rows that share one scratch buffer

# Inputs are checked to be free of NaN; without NaN a minimum is one instruction. Nothing else is relaxed:
# sums are not reordered, so the result does not depend on the machine's vector width.
_njit = njit(cache=True, error_model="numpy", fastmath={"nnan", "nsz"})


class _Surface(NamedTuple):
    """One projected source row. Index x of `connected` and `forward` refers to columns x - 1 and x."""

    position: NDArray[np.float32]  # [W] px, target position
    first: NDArray[np.int32]  # [W] first target column at or right of the position, in [0, W]
    connected: NDArray[np.uint8]  # [W + 1] whether both belong to one surface
    forward: NDArray[np.uint8]  # [W + 1] whether the segment between them also faces this view
    inside: NDArray[np.uint8]  # [W] whether columns x - 2 to x + 3 belong to one surface
    rate: NDArray[np.float32]  # [W] source pixels per target pixel, on the segment to the next column
    rise: NDArray[np.float32]  # [W] px, disparity difference to the next column


class _Canvas(NamedTuple):
    """The rasterized target row."""

    segment: NDArray[np.int32]  # [W] source column of the nearest segment at the pixel's centre, or _NONE
    offset: NDArray[np.float32]  # [W] px from that column, in [0, 1]
    disparity: NDArray[np.float32]  # [W] px
    cap: NDArray[np.int32]  # [W] source column of the nearest cap in the pixel, or _NONE
    # [W + 2] coverage change from the previous column, in units; replaced by its prefix sum
    change: NDArray[np.int32]


def warp_cpu(
    frames: Tensor,  # [T, 3, H, W], or uint8 [T, H, W, 3]
    disparity: Tensor,  # [T, 1, H, W] px
    sharp: bool,  # Lanczos-3, otherwise bilinear
    jump_px: float,
) -> tuple[Tensor, Tensor, Tensor]:  # frames in the input form, coverage and disparity [T, 1, H, W]
    """Warp CPU tensors like `warp_reference`."""
    frames, disparity = frames.contiguous(), disparity.contiguous()
    warped, coverage, own_disparity = (torch.empty_like(a) for a in (frames, disparity, disparity))
    _warp_rows(
        as_rows(frames),
        disparity[:, 0].numpy(),
        sharp,
        np.float32(jump_px),
        # Passed as an argument because numba's cache does not notice changed constants of another module.
        np.int32(COVERAGE_UNIT),
        _HALF if frames.dtype == torch.uint8 else _ZERO,
        as_rows(warped),
        coverage[:, 0].numpy(),
        own_disparity[:, 0].numpy(),
    )
    return warped, coverage, own_disparity


@njit(parallel=True, cache=True, nogil=True, error_model="numpy")
def _warp_rows(
    frames: NDArray[np.float32] | NDArray[np.uint8],  # as returned by `as_rows`
    disparity: NDArray[np.float32],  # [T, H, W] px
    sharp: bool,
    jump_px: np.float32,
    unit: np.int32,
    rounding: np.float32,  # added to the output before truncation
    warped: NDArray[np.float32] | NDArray[np.uint8],  # shaped like frames, written
    coverage: NDArray[np.float32],  # [T, H, W], written
    own_disparity: NDArray[np.float32],  # [T, H, W], written
) -> None:
    count, height, width = disparity.shape
    for chunk in prange((count * height + _ROWS_PER_CHUNK - 1) // _ROWS_PER_CHUNK):
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
        # Interleaved RGB plus one value, because colours are read and written as vectors of four.
        source, target_row = np.zeros(3 * width + 1, np.float32), np.zeros(3 * width + 1, np.float32)
        for row in range(chunk * _ROWS_PER_CHUNK, min((chunk + 1) * _ROWS_PER_CHUNK, count * height)):
            t, y = row // height, row % height
            _project_row(disparity[t, y], jump_px, surface)
            _rasterize(disparity[t, y], surface, unit, canvas)
            _finish_coverage(canvas, unit, coverage[t, y], own_disparity[t, y])
            _load_row(frames[t, y], source)
            if sharp:
                _lanczos3_weights(canvas.offset, weights)
                _gather_lanczos3(source, surface, canvas, weights, target_row)
            else:
                _gather_bilinear(source, canvas, target_row)
            _composite_caps(source, disparity[t, y], surface, canvas, sharp, target_row, own_disparity[t, y])
            _store_row(target_row, rounding, warped[t, y])


@_njit
def _project_row(
    disparity: NDArray[np.float32],  # [W] px
    jump_px: np.float32,
    surface: _Surface,  # written
) -> None:
    # Split into functions of few arrays: with many, the compiler gives up on proving that they do not alias.
    _project(disparity, surface.position, surface.first)
    _mark_connected(disparity, surface.position, jump_px, surface.connected, surface.forward)
    _mark_interior(surface.connected, surface.inside)
    _compute_slopes(disparity, surface.position, surface.rate, surface.rise)


@_njit
def _project(
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
def _mark_connected(
    disparity: NDArray[np.float32],  # [W]
    position: NDArray[np.float32],  # [W]
    jump_px: np.float32,
    connected: NDArray[np.uint8],  # [W + 1], written except at its ends
    forward: NDArray[np.uint8],  # [W + 1], written except at its ends
) -> None:
    for x in range(1, disparity.size):
        connected[x] = abs(disparity[x] - disparity[x - 1]) <= jump_px
    for x in range(1, position.size):
        forward[x] = connected[x] & np.uint8(position[x] > position[x - 1])


@_njit
def _mark_interior(
    connected: NDArray[np.uint8],  # [W + 1]
    inside: NDArray[np.uint8],  # [W], written except at its ends
) -> None:
    for x in range(inside.size - 5):
        left = connected[x + 1] & connected[x + 2]
        inside[x + 2] = left & connected[x + 3] & connected[x + 4] & connected[x + 5]


@_njit
def _compute_slopes(
    disparity: NDArray[np.float32],  # [W]
    position: NDArray[np.float32],  # [W]
    rate: NDArray[np.float32],  # [W], written except at its end
    rise: NDArray[np.float32],  # [W], written except at its end
) -> None:
    for x in range(position.size - 1):
        rate[x] = _ONE / (position[x + 1] - position[x])
    for x in range(disparity.size - 1):
        rise[x] = disparity[x + 1] - disparity[x]


@_njit
def _rasterize(
    disparity: NDArray[np.float32],  # [W] px
    surface: _Surface,
    unit: np.int32,
    canvas: _Canvas,  # written
) -> None:
    """Rasterize from left to right: nearer surfaces lie further right in the source and overwrite others."""
    position, first, forward = surface.position, surface.first, surface.forward
    rate, rise = surface.rate, surface.rise
    width = disparity.size
    canvas.segment[:] = _NONE
    canvas.cap[:] = _NONE
    canvas.change[:] = 0
    x = 0
    while x < width:
        start = position[x]
        if not surface.connected[x]:
            start -= _HALF
            _draw_cap(x, np.floor(position[x]), canvas.cap)
        _add_coverage_edge(start, np.int32(1), unit, canvas.change)
        here = first[x]
        while forward[x + 1]:
            there = first[x + 1]
            if here < there:
                offset = (np.float32(here) - position[x]) * rate[x]
                _draw(x, here, offset, disparity[x] + offset * rise[x], canvas)
                # Rarely any. Merged into one loop with the first, they would be vectorized, which is slower.
                for target in range(here + 1, there):
                    offset = (np.float32(target) - position[x]) * rate[x]
                    _draw(x, target, offset, disparity[x] + offset * rise[x], canvas)
                here = there
            x += 1
        stop = position[x]
        if not surface.connected[x + 1]:
            stop += _HALF
            _draw_cap(x, np.ceil(position[x]), canvas.cap)
        _add_coverage_edge(stop, np.int32(-1), unit, canvas.change)
        x += 1


@_njit
def _draw(
    x: int,
    target: int,
    offset: np.float32,  # px from x
    disparity: np.float32,  # px
    canvas: _Canvas,  # written
) -> None:
    canvas.segment[np.uint32(target)] = x
    canvas.offset[np.uint32(target)] = offset
    canvas.disparity[np.uint32(target)] = disparity


@_njit
def _draw_cap(
    x: int,
    pixel: np.float32,  # target column of the cap of x
    cap: NDArray[np.int32],  # [W], written
) -> None:
    if _ZERO <= pixel < np.float32(cap.size):
        cap[int(pixel)] = x


@_njit
def _add_coverage_edge(
    edge: np.float32,  # target position where the coverage of a run starts (1) or stops (-1)
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
def _finish_coverage(
    canvas: _Canvas,  # entries without coverage are cleared
    unit: np.int32,
    coverage: NDArray[np.float32],  # [W], written
    own_disparity: NDArray[np.float32],  # [W], written, without the caps
) -> None:
    _prefix_sum(canvas.change)
    _clear_uncovered(canvas.change, canvas.segment)
    _clear_uncovered(canvas.change, canvas.cap)
    _write_coverage(canvas, unit, coverage)
    _write_disparity(canvas.segment, canvas.disparity, own_disparity)


@_njit
def _prefix_sum(
    change: NDArray[np.int32],  # [W + 2], replaced by its prefix sum
) -> None:
    units = np.int32(0)
    for x in range(change.size):
        units += change[x]
        change[x] = units


@_njit
def _clear_uncovered(
    units: NDArray[np.int32],  # [W + 2]
    column: NDArray[np.int32],  # [W], set to _NONE where no unit is covered
) -> None:
    for x in range(column.size):
        column[x] = column[x] if units[x] > 0 else _NONE


@_njit
def _write_coverage(
    canvas: _Canvas,
    unit: np.int32,
    coverage: NDArray[np.float32],  # [W], written
) -> None:
    units, segment, cap = canvas.change, canvas.segment, canvas.cap
    scale = _ONE / np.float32(unit)
    for x in range(coverage.size):
        share = np.float32(min(units[x], unit)) * scale
        coverage[x] = share if max(segment[x], cap[x]) >= 0 else _ZERO


@_njit
def _write_disparity(
    segment: NDArray[np.int32],  # [W]
    disparity: NDArray[np.float32],  # [W]
    own_disparity: NDArray[np.float32],  # [W], written
) -> None:
    for x in range(own_disparity.size):
        own_disparity[x] = disparity[x] if segment[x] >= 0 else _ZERO


@_njit
def _load_row(
    lines: NDArray[np.float32] | NDArray[np.uint8],  # [3, W] or [1, 3 W]
    row: NDArray[np.float32],  # [3 W + 1], written except at its end
) -> None:
    channels, length = lines.shape
    for channel in range(channels):
        for x in range(length):
            row[channels * x + channel] = np.float32(lines[channel, x])


@_njit
def _store_row(
    row: NDArray[np.float32],  # [3 W + 1]
    rounding: np.float32,
    lines: NDArray[np.float32] | NDArray[np.uint8],  # [3, W] or [1, 3 W], written
) -> None:
    channels, length = lines.shape
    for channel in range(channels):
        for x in range(length):
            lines[channel, x] = row[channels * x + channel] + rounding


def _weighted_sum_intrinsic(typing: Any, row: Any, starts: Any, weights: Any, out: Any, at: Any) -> Any:
    """Emit out[at : at + 4] = sum over k of weights[k] * row[starts[k] : starts[k] + 4], as vectors of four.

    With six taps the sum is clamped to the range of the middle four. Bounds are not checked.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        row, starts, weights, out, at = arguments
        four = ir.VectorType(ir.FloatType(), 4)

        def vector_pointer(array: Any, kind: Any, start: Any) -> Any:
            data = context.make_array(kind)(context, builder, array).data
            return builder.bitcast(builder.gep(data, [start]), four.as_pointer())

        def broadcast(number: Any) -> Any:
            zero = ir.Constant(ir.IntType(32), 0)
            first = builder.insert_element(ir.Constant(four, ir.Undefined), number, zero)
            return builder.shuffle_vector(
                first, first, ir.Constant(ir.VectorType(ir.IntType(32), 4), [0] * 4)
            )

        def select(relation: str, a: Any, b: Any) -> Any:  # < selects the smaller, > the larger
            return builder.select(builder.fcmp_ordered(relation, a, b, flags=("nnan", "nsz")), a, b)

        colours, total = [], ir.Constant(four, [0.0] * 4)
        for k in range(len(signature.args[1])):
            start = vector_pointer(row, signature.args[0], builder.extract_value(starts, k))
            colours.append(builder.load(start, align=4))
            weight = broadcast(builder.extract_value(weights, k))
            total = builder.fadd(total, builder.fmul(weight, colours[-1]))
        if len(colours) == 6:
            a, b, c, d = colours[1:5]
            least = select("<", select("<", a, b), select("<", c, d))
            most = select(">", select(">", a, b), select(">", c, d))
            total = select("<", select(">", total, least), most)
        builder.store(total, vector_pointer(out, signature.args[3], at), align=4)
        return context.get_dummy_value()

    return types.void(row, starts, weights, out, at), generate


_weighted_sum: Any = intrinsic(_weighted_sum_intrinsic)


@_njit
def _gather_bilinear(
    source: NDArray[np.float32],  # [3 W + 1]
    canvas: _Canvas,
    target_row: NDArray[np.float32],  # [3 W + 1], written
) -> None:
    for target in range(canvas.segment.size):
        x, share = int(canvas.segment[target]), canvas.offset[target]
        if x < 0:
            for channel in range(3):
                target_row[3 * target + channel] = _ZERO
        else:
            _weighted_sum(source, (3 * x, 3 * x + 3), (_ONE - share, share), target_row, 3 * target)


@_njit
def _gather_lanczos3(
    source: NDArray[np.float32],  # [3 W + 1]
    surface: _Surface,
    canvas: _Canvas,
    weights: NDArray[np.float32],  # [6, W] of the taps -2 to 3
    target_row: NDArray[np.float32],  # [3 W + 1], written
) -> None:
    for target in range(canvas.segment.size):
        x = int(canvas.segment[target])
        if x < 0:
            for channel in range(3):
                target_row[3 * target + channel] = _ZERO
            continue
        t0, t1, t4, t5 = x - 2, x - 1, x + 2, x + 3
        if not surface.inside[x]:
            t1, t0 = _next_inside(x, -1, surface.connected)
            t4, t5 = _next_inside(x + 1, 1, surface.connected)
        starts = (3 * t0, 3 * t1, 3 * x, 3 * x + 3, 3 * t4, 3 * t5)
        w0, w1, w2 = weights[0, target], weights[1, target], weights[2, target]
        w3, w4, w5 = weights[3, target], weights[4, target], weights[5, target]
        _weighted_sum(source, starts, (w0, w1, w2, w3, w4, w5), target_row, 3 * target)


@_njit
def _composite_caps(
    source: NDArray[np.float32],  # [3 W + 1]
    disparity: NDArray[np.float32],  # [W] px
    surface: _Surface,
    canvas: _Canvas,
    sharp: bool,
    target_row: NDArray[np.float32],  # [3 W + 1], changed
    own_disparity: NDArray[np.float32],  # [W], changed
) -> None:
    for target in range(canvas.cap.size):
        x = canvas.cap[target]
        if x <= canvas.segment[target]:
            continue
        distance = np.float32(target) - surface.position[x]
        share = _ONE if canvas.segment[target] < 0 else _ONE - abs(distance)
        if share >= _HALF:
            own_disparity[target] = disparity[x]
        # The surface ends at x, so all taps beyond x are x itself.
        one, two = _next_inside(x, -1 if distance > _ZERO else 1, surface.connected)
        w_two, w_one = _ZERO, _ZERO
        if sharp:
            w_two, w_one = _lanczos3(min(abs(distance), _HALF))[:2]
        for channel in range(3):
            here, next_to = source[3 * x + channel], source[3 * one + channel]
            value = w_two * source[3 * two + channel] + w_one * next_to + (_ONE - w_two - w_one) * here
            value = min(max(value, min(here, next_to)), max(here, next_to))
            below = target_row[3 * target + channel]
            target_row[3 * target + channel] = below + share * (value - below)


@_njit
def _next_inside(
    x: int,
    step: int,  # -1 or 1
    connected: NDArray[np.uint8],  # [W + 1]
) -> tuple[int, int]:
    """Return the next two columns in the direction of `step`, clamped to the end of the surface of x."""
    between = (step + 1) // 2  # index x of `connected` refers to x - 1 and x
    one = x + step * int(connected[x + between])
    # If the surface ends at x, `one` is x and this tests the same two columns again.
    two = one + step * int(connected[one + between])
    return one, two


@_njit
def _lanczos3_weights(
    offset: NDArray[np.float32],  # [W] px right of tap 0, in [0, 1]
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
    """Return the normalized weights of the taps -2 to 3 for a point `u` px right of tap 0.

    Because sin(pi (u - j)) = (-1)^j sin(pi u), the factor sin(pi u) is common to all taps and cancels. The
    remaining weight of tap j is (-1)^j sin(pi (u - j) / 3) / (u - j)^2, here times 3 u / pi so that tap 0
    is 1 at u = 0.
    """
    angle_squared = _square(_THIRD_OF_PI * u)
    # sin(a) / a, error below 1e-8 up to a = pi / 6; unlike the quotient, exactly 1 at 0.
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
