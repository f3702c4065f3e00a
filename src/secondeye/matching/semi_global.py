"""Semi-global matching (Hirschmueller, TPAMI 2008) on any cost volume: eight directions, in integers.

Both views' disparities come from the same sums, so the left-right check is almost free.
"""

from typing import NamedTuple

import numba
import numpy as np

_SMALL_PENALTY = 45  # P1: for a disparity change of 1 px
_LARGE_PENALTY = 600  # P2: for larger changes, in smooth regions
_MIN_LARGE_PENALTY = 160  # P2 at strong edges
_EDGE_LEVELS = 8  # gray levels that halve P2
_BORDER_COST = 8000  # larger than any path cost


class BestDisparities(NamedTuple):
    """Winner-takes-all disparities of one pair of frames."""

    left: np.ndarray  # float32 [H, W] px
    right: np.ndarray  # float32 [H, W] px, of the right view
    margin: np.ndarray  # int32 [H, W]: cost of the left view's second best minimum above the best


def best_disparities(
    cost: np.ndarray,  # int16 [H, W, D], at most 255
    gray: np.ndarray,  # uint8 [H, W], left view: edges lower the penalty of disparity jumps
) -> BestDisparities:
    """Aggregate the costs and return the disparities of lowest cost, to a fraction of a pixel."""
    total = np.zeros(cost.shape, np.int16)
    _add_paths(cost, gray, total, False)
    _add_paths(cost, gray, total, True)
    return BestDisparities(*_winner_takes_all(total))


@numba.njit(cache=True)
def _add_paths(cost: np.ndarray, gray: np.ndarray, total: np.ndarray, upwards: bool) -> None:
    """Add the three paths from the previous row and the one along the row."""
    height, width, disparities = cost.shape
    # Sentinels that never win surround each path's costs and the frame's columns.
    paths_above = np.full((3, width + 2, disparities + 2), _BORDER_COST, np.int16)
    paths_above[:, :, 1:-1] = 0
    paths_here, lowest_above = paths_above.copy(), np.zeros((3, width + 2), np.int32)
    lowest_here = lowest_above.copy()
    path_along = np.full((2, disparities + 2), _BORDER_COST, np.int16)
    for row in range(height):
        y, above = (height - 1 - row, height - row) if upwards else (row, row - 1)
        path_along[0, 1:-1] = 0
        lowest_before, current = 0, 0
        for column in range(width):
            x, previous = (width - 1 - column, width - column) if upwards else (column, column - 1)
            penalty = _large_penalty(gray[y, x], gray[y, previous]) if column else _LARGE_PENALTY
            lowest_before = _extend(
                cost[y, x], path_along[current], lowest_before, penalty, path_along[1 - current], total[y, x]
            )
            current = 1 - current
            for side in range(3):
                above_x = x + side - 1
                inside = row > 0 and 0 <= above_x < width
                penalty = _large_penalty(gray[y, x], gray[above, above_x]) if inside else _LARGE_PENALTY
                path, lowest = paths_above[side, above_x + 1], lowest_above[side, above_x + 1]
                lowest_here[side, x + 1] = _extend(
                    cost[y, x], path, lowest, penalty, paths_here[side, x + 1], total[y, x]
                )
        paths_above, paths_here = paths_here, paths_above
        lowest_above, lowest_here = lowest_here, lowest_above
        for border in (0, width + 1):
            paths_above[:, border, 1:-1] = 0
            lowest_above[:, border] = 0


@numba.njit(cache=True)
def _large_penalty(level: np.uint8, other_level: np.uint8) -> int:
    edge = abs(np.int32(level) - np.int32(other_level))
    penalty: int = _LARGE_PENALTY * _EDGE_LEVELS // (_EDGE_LEVELS + int(edge))
    return max(_MIN_LARGE_PENALTY, penalty)


@numba.njit(cache=True)
def _extend(
    cost: np.ndarray, path: np.ndarray, lowest_before: int, penalty: int, out: np.ndarray, total: np.ndarray
) -> int:
    """Extend a path by one pixel: write its costs, add them to the total, return the lowest."""
    lowest, with_jump = np.int16(32000), np.int16(lowest_before + penalty)
    for d in range(cost.shape[0]):
        best = path[d + 1]
        below, above = np.int16(path[d] + _SMALL_PENALTY), np.int16(path[d + 2] + _SMALL_PENALTY)
        if below < best:
            best = below
        if above < best:
            best = above
        if with_jump < best:
            best = with_jump
        value = np.int16(cost[d] + best - lowest_before)
        out[d + 1] = value
        total[d] += value
        if value < lowest:
            lowest = value
    return int(lowest)


@numba.njit(cache=True)
def _winner_takes_all(total: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    height, width, disparities = total.shape
    left, right = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    margin = np.empty((height, width), np.int32)
    right_costs = np.empty(disparities, np.int16)
    for y in range(height):
        for x in range(width):
            left[y, x], margin[y, x] = _best(total[y, x])
            count = min(disparities, width - x)  # pixels farther right are outside the left view
            for d in range(count):
                right_costs[d] = total[y, x + d, d]
            right[y, x] = _best(right_costs[:count])[0]
    return left, right, margin


@numba.njit(cache=True)
def _best(costs: np.ndarray) -> tuple[float, int]:
    """Return the sub-pixel minimum, and the margin to the lowest cost that is not adjacent to it."""
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
    # Fit two lines of equal slope: sums of absolute differences are linear, not quadratic.
    return (best + (below - above) / (2 * max(below, above)) if max(below, above) else float(best)), margin
