"""Find the ramps between two surfaces of a blurred map, on the CPU (numba); `ramps_torch` does the same."""

import math

import numba
import numpy as np

END_SHARE = 0.2  # of a ramp's steepest step: where steps become smaller, the ramp ends (1.8 sigma of a blur)
MIN_STEEPNESS = 6.0  # over two pixels, of the mean slope of the lowest and longest ramp; half the time of 1.0
DIAGONAL_SHARE = 0.4142  # tangent of 22.5 degrees: beyond it, the steepest of eight directions is a diagonal
FLAT_SHARE = 0.1  # of a ramp's height: how far a surface beside it may turn back, half a ramp's length away
ROWS_APART = 4  # the blur is measured in every fourth row
STEP_PER_SIGMA = math.sqrt(2 * math.pi)  # height of a blurred step = this * sigma * its steepest slope

SIDE_SHARE = 0.25  # of the ramp's height: values this close to an end belong to that side
SAMPLES = 4  # of each side's colour: away from the ramp, and at three places across
COLOUR_WEIGHT = 0.4  # relative to the value; 0.3 to 0.6 is best for depth edges 0 to 3 px off


@numba.njit(parallel=True, cache=True, nogil=True)
def snap(
    plane: np.ndarray,  # float32 [H, W]
    frame: np.ndarray,  # [H, W, 3]
    reach: int,  # px
    bound: float,
    spacing: int,  # px between samples of colours
    min_contrast: float,  # in the frame's levels
    snapped: np.ndarray,  # float32 [H, W], written
) -> None:
    """Write the plane with every value on a ramp replaced by that of one of the ramp's ends."""
    height, width = plane.shape
    # Each row is written by one thread and only inputs are read: the same bits for any number of threads.
    for row in numba.prange(height):
        for column in range(width):
            snapped[row, column] = plane[row, column]
            down, right = _uphill(plane, row, column, reach, bound)
            if down == 0 and right == 0:
                continue
            above, below, _ = _ramp(plane, row, column, down, right, reach)
            if above == 0 or below == 0 or above + below >= reach:
                continue
            high = plane[row + above * down, column + above * right]
            low = plane[row - below * down, column - below * right]
            if high - low <= bound:
                continue
            place = (row, column, down, right, above, below)
            colour = _colour_side(plane, frame, place, low, high, spacing, min_contrast)
            vote = (plane[row, column] - low) / (high - low) - 0.5 + COLOUR_WEIGHT * (colour - 0.5)
            snapped[row, column] = high if vote > 0 else low


@numba.njit(cache=True, nogil=True)
def sigmas(
    plane: np.ndarray,  # float32 [H, W]
    reach: int,  # px
    bound: float,
) -> np.ndarray:  # float64 [N] px
    """Return the blur of every ramp (standard deviation), from its height and steepest step; 0 if sharp."""
    height, width = plane.shape
    found = []
    for row in range(0, height, ROWS_APART):
        for column in range(width):
            down, right = _uphill(plane, row, column, reach, bound)
            if down == 0 and right == 0:
                continue
            above, below, steepest = _ramp(plane, row, column, down, right, reach)
            if above == 0 or above + below >= reach:
                continue
            if plane[row + down, column + right] - plane[row, column] < steepest:
                continue  # each ramp counts once in a direction, where its steepest step begins
            high = plane[row + above * down, column + above * right]
            low = plane[row - below * down, column - below * right]
            if high - low <= bound:
                continue
            aside = (above + below + 1) // 2
            top = _value_at(plane, row + (above + aside) * down, column + (above + aside) * right)
            foot = _value_at(plane, row - (below + aside) * down, column - (below + aside) * right)
            if not (top >= high - FLAT_SHARE * (high - low) and foot <= low + FLAT_SHARE * (high - low)):
                continue  # a thin object, whose ramps are shorter than the blur
            length = math.sqrt(down * down + right * right)
            sharp = above + below == 1
            found.append(0.0 if sharp else (high - low) * length / (STEP_PER_SIGMA * steepest))
    return np.array(found, dtype=np.float64)


@numba.njit(cache=True, nogil=True)
def _value_at(plane: np.ndarray, row: int, column: int) -> float:
    """Return a value of the plane; NaN outside of it."""
    height, width = plane.shape
    return plane[row, column] if 0 <= row < height and 0 <= column < width else np.nan


@numba.njit(cache=True, nogil=True)
def _uphill(plane: np.ndarray, row: int, column: int, reach: int, bound: float) -> tuple[int, int]:
    """Return the steepest of eight directions; (0, 0) where the slope is too gentle for a ramp."""
    height, width = plane.shape
    along_row = plane[row, min(column + 1, width - 1)] - plane[row, max(column - 1, 0)]
    along_column = plane[min(row + 1, height - 1), column] - plane[max(row - 1, 0), column]
    across, downwards = abs(along_row), abs(along_column)
    if max(across, downwards) * reach < MIN_STEEPNESS * bound:
        return 0, 0
    right = 0 if across <= DIAGONAL_SHARE * downwards else 1 if along_row > 0 else -1
    down = 0 if downwards <= DIAGONAL_SHARE * across else 1 if along_column > 0 else -1
    return down, right


@numba.njit(cache=True, nogil=True)
def _ramp(
    plane: np.ndarray, row: int, column: int, down: int, right: int, reach: int
) -> tuple[int, int, float]:
    """Return how many steps the ramp continues uphill and downhill, and its steepest step.

    A ramp rises with every step, at most `reach` of them to either side.
    """
    above, steepest_above = _rising(plane, row, column, down, right, reach, 1)
    below, steepest_below = _rising(plane, row, column, -down, -right, reach, -1)
    steepest = max(steepest_above, steepest_below)
    least = END_SHARE * steepest
    above = _steep_steps(plane, row, column, down, right, above, 1, least)
    below = _steep_steps(plane, row, column, -down, -right, below, -1, least)
    return above, below, steepest


@numba.njit(cache=True, nogil=True)
def _rising(
    plane: np.ndarray, row: int, column: int, down: int, right: int, reach: int, sign: int
) -> tuple[int, float]:
    """Return how many steps rise (sign 1) or fall (sign -1) without a break, and the steepest of them."""
    height, width = plane.shape
    steepest, before = 0.0, plane[row, column]
    for step in range(1, reach + 1):
        r, c = row + step * down, column + step * right
        if not (0 <= r < height and 0 <= c < width):
            return step - 1, steepest
        value = plane[r, c]
        rise = (value - before) * sign
        if rise <= 0:
            return step - 1, steepest
        steepest, before = max(steepest, rise), value
    return reach, steepest


@numba.njit(cache=True, nogil=True)
def _steep_steps(
    plane: np.ndarray, row: int, column: int, down: int, right: int, steps: int, sign: int, least: float
) -> int:
    """Return how many of the first `steps` rise by at least `least` without a break."""
    before = plane[row, column]
    for step in range(1, steps + 1):
        value = plane[row + step * down, column + step * right]
        if (value - before) * sign < least:
            return step - 1
        before = value
    return steps


@numba.njit(cache=True, nogil=True)
def _colour_side(
    plane: np.ndarray,  # float32 [H, W]
    frame: np.ndarray,  # [H, W, 3]
    place: tuple[int, int, int, int, int, int],  # row, column, down, right, steps above and below
    low: float,
    high: float,
    spacing: int,
    min_contrast: float,
) -> float:
    """Return the pixel's colour between the mean of the far side (0) and the near side (1); 0.5 if equal."""
    row, column, down, right, above, below = place
    margin = SIDE_SHARE * (high - low)
    top = (row + above * down, column + above * right)
    foot = (row - below * down, column - below * right)
    near = _mean_colour(plane, frame, top, (down, right), spacing, high - margin, np.inf)
    far = _mean_colour(plane, frame, foot, (-down, -right), spacing, -np.inf, low + margin)
    along = contrast = 0.0
    for channel in range(3):
        along += (near[channel] - far[channel]) * (frame[row, column, channel] - far[channel])
        contrast += (near[channel] - far[channel]) * (near[channel] - far[channel])
    # Without samples, means are NaN, and so is the contrast.
    return min(max(along / contrast, 0.0), 1.0) if contrast > min_contrast * min_contrast else 0.5


@numba.njit(cache=True, nogil=True)
def _mean_colour(
    plane: np.ndarray,  # float32 [H, W]
    frame: np.ndarray,  # [H, W, 3]
    end: tuple[int, int],  # row and column
    away: tuple[int, int],  # from the ramp: rows and columns
    spacing: int,
    lowest: float,
    highest: float,
) -> tuple[float, float, float]:
    """Return the mean colour beyond one end of a ramp, of pixels with values in a range; NaN without any."""
    height, width = plane.shape
    red = green = blue = 0.0
    count = 0
    for sample in range(SAMPLES):
        for across in range(-2 * spacing, 2 * spacing + 1, 2 * spacing):
            row = end[0] + sample * spacing * away[0] - across * away[1]
            column = end[1] + sample * spacing * away[1] + across * away[0]
            if 0 <= row < height and 0 <= column < width and lowest <= plane[row, column] <= highest:
                red += frame[row, column, 0]
                green += frame[row, column, 1]
                blue += frame[row, column, 2]
                count += 1
    if count == 0:
        return np.nan, np.nan, np.nan
    return red / count, green / count, blue / count
