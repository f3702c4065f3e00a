"""Matching cost: census (Zabih and Woodfill, ECCV 1994) plus colour difference.

Costs are uint8 [H, W, D], for left pixel x and right pixel x - d with disparity d = 0 ... D - 1.
"""

import numba
import numpy as np

_CENSUS_WEIGHT = 4  # per differing bit
_COLOUR_QUARTERS = 3  # per level of the summed channel differences, in quarters
_MAX_COLOUR = 120  # levels, truncates the colour difference


def matching_cost(
    left: np.ndarray,  # uint8 [H, W, 3]
    right: np.ndarray,  # uint8 [H, W, 3]
    left_gray: np.ndarray,  # uint8 [H, W]
    right_gray: np.ndarray,  # uint8 [H, W]
    disparities: int,
) -> np.ndarray:  # uint8 [H, W, disparities]
    """Return the matching cost volume; the first column is repeated beyond the right view's left border."""
    planes_left = np.ascontiguousarray(left.transpose(2, 0, 1))
    planes_right = _mirror_and_pad(right.transpose(2, 0, 1), disparities)
    right_bits = _mirror_and_pad(_census(right_gray), disparities)
    return _cost(planes_left, planes_right, _census(left_gray), right_bits, disparities)


def _mirror_and_pad(plane: np.ndarray, disparities: int) -> np.ndarray:
    """Mirror the columns and pad them, so that left pixel x's candidates are contiguous from W - 1 - x."""
    padding = [(0, 0)] * (plane.ndim - 1) + [(0, disparities - 1)]
    return np.ascontiguousarray(np.pad(plane[..., ::-1], padding, "edge"))


@numba.njit(cache=True)
def _census(gray: np.ndarray) -> np.ndarray:
    """Return the census transform: one bit per neighbour in 5 x 5, set if it is darker."""
    height, width = gray.shape
    bits = np.zeros((height, width), np.uint32)
    for y in range(height):
        for x in range(width):
            for dy in range(-2, 3):
                for dx in range(-2, 3):
                    row, column = min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)
                    darker = gray[row, column] < gray[y, x]
                    bits[y, x] = (bits[y, x] << np.uint32(1)) | np.uint32(darker)
    return bits  # the centre's own bit is always 0


@numba.njit(cache=True)
def _popcount(bits: np.uint32) -> np.uint32:
    bits = bits - ((bits >> np.uint32(1)) & np.uint32(0x55555555))
    bits = (bits & np.uint32(0x33333333)) + ((bits >> np.uint32(2)) & np.uint32(0x33333333))
    bits = (bits + (bits >> np.uint32(4))) & np.uint32(0x0F0F0F0F)
    return np.uint32(bits * np.uint32(0x01010101)) >> np.uint32(24)


@numba.njit(cache=True)
def _cost(
    left: np.ndarray, right: np.ndarray, left_bits: np.ndarray, right_bits: np.ndarray, disparities: int
) -> np.ndarray:
    height, width = left_bits.shape
    cost = np.empty((height, width, disparities), np.uint8)
    for y in range(height):
        for x in range(width):
            first = width - 1 - x
            red, green, blue = right[0, y, first:], right[1, y, first:], right[2, y, first:]
            bits, left_pixel_bits = right_bits[y, first:], left_bits[y, x]
            for d in range(disparities):
                levels = abs(np.int32(left[0, y, x]) - np.int32(red[d]))
                levels += abs(np.int32(left[1, y, x]) - np.int32(green[d]))
                levels += abs(np.int32(left[2, y, x]) - np.int32(blue[d]))
                levels = min(levels, np.int32(_MAX_COLOUR))
                differing = np.int32(_popcount(left_pixel_bits ^ bits[d]))
                cost[y, x, d] = _CENSUS_WEIGHT * differing + (_COLOUR_QUARTERS * levels >> 2)
    return cost
