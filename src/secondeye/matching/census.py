"""What it costs to call two pixels the same: census (Zabih and Woodfill, ECCV 1994) plus colour difference.

Costs are uint8 [H, W, D]: of left pixel x and right pixel x - d for the disparities d = 0 ... D - 1.
"""

import numba
import numpy as np

_CENSUS = 4  # for each bit that differs
_COLOUR_QUARTERS = 3  # for each level, of all three channels together, a quarter each
_MOST_COLOUR = 120  # levels: beyond that a pixel is just different


def matching_cost(
    left: np.ndarray,  # uint8 [H, W, 3]
    right: np.ndarray,  # uint8 [H, W, 3]
    left_grey: np.ndarray,  # uint8 [H, W]
    right_grey: np.ndarray,  # uint8 [H, W]
    disparities: int,
) -> np.ndarray:  # uint8 [H, W, disparities]
    """Beyond the right eye's border its first column counts."""
    planes, bits = _candidates(right.transpose(2, 0, 1), disparities), _census(right_grey)
    here = np.ascontiguousarray(left.transpose(2, 0, 1))
    return _cost(here, planes, _census(left_grey), _candidates(bits, disparities), disparities)


def _candidates(plane: np.ndarray, disparities: int) -> np.ndarray:
    """Mirrored, and as many columns more: what left pixel x may match stands in a row, from W - 1 - x on."""
    beside = [(0, 0)] * (plane.ndim - 1) + [(0, disparities - 1)]
    return np.ascontiguousarray(np.pad(plane[..., ::-1], beside, "edge"))


@numba.njit(cache=True)
def _census(grey: np.ndarray) -> np.ndarray:
    """One bit for each neighbour: is it darker?"""
    height, width = grey.shape
    bits = np.zeros((height, width), np.uint32)
    for y in range(height):
        for x in range(width):
            for dy in range(-2, 3):
                for dx in range(-2, 3):
                    row, column = min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)
                    darker = grey[row, column] < grey[y, x]
                    bits[y, x] = (bits[y, x] << np.uint32(1)) | np.uint32(darker)
    return bits  # the middle is never darker than itself: its bit says nothing


@numba.njit(cache=True)
def _ones(bits: np.uint32) -> np.uint32:
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
            bits, mine = right_bits[y, first:], left_bits[y, x]
            for d in range(disparities):
                levels = abs(np.int32(left[0, y, x]) - np.int32(red[d]))
                levels += abs(np.int32(left[1, y, x]) - np.int32(green[d]))
                levels += abs(np.int32(left[2, y, x]) - np.int32(blue[d]))
                levels = min(levels, np.int32(_MOST_COLOUR))
                differing = np.int32(_ones(mine ^ bits[d]))
                cost[y, x, d] = _CENSUS * differing + (_COLOUR_QUARTERS * levels >> 2)
    return cost
