"""Semi-global matching (Hirschmueller, TPAMI 2008) on any cost volume: eight directions, in whole numbers.

Both eyes' disparities are read from the same sums, so the left-right check costs nothing more.
"""

from typing import NamedTuple

import numba
import numpy as np

_STEP = 45  # for a neighbour whose disparity differs by 1
_JUMP = 600  # for one that differs by more, where the picture is smooth
_LEAST_JUMP = 160  # where it has an edge
_EDGE = 8  # levels of grey that halve the jump
_NEVER = 8000  # more than any path can cost


class Winners(NamedTuple):
    """The best disparity of every pixel of one pair of frames."""

    left: np.ndarray  # float32 [H, W] px
    right: np.ndarray  # float32 [H, W] px, of the right eye's pixels
    margin: np.ndarray  # int32 [H, W]: how much worse the best other answer of the left eye is


def best_disparities(
    cost: np.ndarray,  # int16 [H, W, D], at most 255
    grey: np.ndarray,  # uint8 [H, W]: where the left eye's picture has edges, disparity may jump
) -> Winners:
    """The disparities that cost least, to a fraction of a pixel."""
    total = np.zeros(cost.shape, np.int16)
    _add_paths(cost, grey, total, False)
    _add_paths(cost, grey, total, True)
    return Winners(*_winners(total))


@numba.njit(cache=True)
def _add_paths(cost: np.ndarray, grey: np.ndarray, total: np.ndarray, upwards: bool) -> None:
    """Add the paths that come from the row before (three) and from within the row (one)."""
    height, width, disparities = cost.shape
    # A path's costs stand between two that never win; so do the columns beside the picture.
    before = np.full((3, width + 2, disparities + 2), _NEVER, np.int16)
    before[:, :, 1:-1] = 0
    now, least_before = before.copy(), np.zeros((3, width + 2), np.int32)
    least_now = least_before.copy()
    along = np.full((2, disparities + 2), _NEVER, np.int16)
    for row in range(height):
        y, above = (height - 1 - row, height - row) if upwards else (row, row - 1)
        along[0, 1:-1] = 0
        least, turn = 0, 0
        for column in range(width):
            x, beside = (width - 1 - column, width - column) if upwards else (column, column - 1)
            jump = _jump(grey[y, x], grey[y, beside]) if column else _JUMP
            least = _extend(cost[y, x], along[turn], least, jump, along[1 - turn], total[y, x])
            turn = 1 - turn
            for side in range(3):
                there = x + side - 1
                inside = row > 0 and 0 <= there < width
                jump = _jump(grey[y, x], grey[above, there]) if inside else _JUMP
                path, lowest = before[side, there + 1], least_before[side, there + 1]
                least_now[side, x + 1] = _extend(
                    cost[y, x], path, lowest, jump, now[side, x + 1], total[y, x]
                )
        before, now = now, before
        least_before, least_now = least_now, least_before
        for border in (0, width + 1):
            before[:, border, 1:-1] = 0
            least_before[:, border] = 0


@numba.njit(cache=True)
def _jump(here: np.uint8, there: np.uint8) -> int:
    edge = abs(np.int32(here) - np.int32(there))
    jump: int = _JUMP * _EDGE // (_EDGE + int(edge))
    return max(_LEAST_JUMP, jump)


@numba.njit(cache=True)
def _extend(
    cost: np.ndarray, path: np.ndarray, least: int, jump: int, out: np.ndarray, total: np.ndarray
) -> int:
    """One pixel more on a path: writes its costs, adds them to the sum, returns the lowest."""
    lowest, jumped = np.int16(32000), np.int16(least + jump)
    for d in range(cost.shape[0]):
        best = path[d + 1]
        below, above = np.int16(path[d] + _STEP), np.int16(path[d + 2] + _STEP)
        if below < best:
            best = below
        if above < best:
            best = above
        if jumped < best:
            best = jumped
        value = np.int16(cost[d] + best - least)
        out[d + 1] = value
        total[d] += value
        if value < lowest:
            lowest = value
    return int(lowest)


@numba.njit(cache=True)
def _winners(total: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    height, width, disparities = total.shape
    left, right = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    margin = np.empty((height, width), np.int32)
    seen = np.empty(disparities, np.int16)
    for y in range(height):
        for x in range(width):
            left[y, x], margin[y, x] = _winner(total[y, x])
            count = min(disparities, width - x)  # what lies further right is in no left picture
            for d in range(count):
                seen[d] = total[y, x + d, d]
            right[y, x] = _winner(seen[:count])[0]
    return left, right, margin


@numba.njit(cache=True)
def _winner(costs: np.ndarray) -> tuple[float, int]:
    """The place of the least, between its neighbours, and how far off the next least not beside it is."""
    best = np.argmin(costs)
    other = np.int32(32000)
    for d in range(len(costs)):
        if abs(d - best) > 1 and costs[d] < other:
            other = costs[d]
    margin = int(other - costs[best])
    if best == 0 or best == len(costs) - 1:
        return float(best), margin
    below = np.int32(costs[best - 1]) - costs[best]
    above = np.int32(costs[best + 1]) - costs[best]
    # Two lines of the same slope: sums of absolute differences fall like that, not like a parabola.
    return (best + (below - above) / (2 * max(below, above)) if max(below, above) else float(best)), margin
