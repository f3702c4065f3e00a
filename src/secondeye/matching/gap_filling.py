"""Gap filling guided by colour: background values along rows first, then a weighted median.

Ours; the weighted median follows the disparity refinement of Ma et al. (ICCV 2013).
"""

import numba
import numpy as np
import torch

from secondeye.matching.consistency import fill_from_background

_RADIUS = 5  # px
_COLOUR_LEVELS = 8.0  # levels of difference that divide a pixel's weight by e
_QUANTILE = 0.4  # below the median, because hidden pixels belong to the background
_BINS_PER_PX = 16  # histogram bins


def fill_by_colour(
    disparity: np.ndarray,  # float32 [H, W] px; values where not `known` are ignored
    known: np.ndarray,  # bool [H, W]
    image: np.ndarray,  # uint8 [H, W, 3]
) -> np.ndarray:  # float32 [H, W], finite; known values untouched
    """Fill the gaps of one frame."""
    planes = torch.from_numpy(disparity)[None, None], torch.from_numpy(known)[None, None]
    initial = fill_from_background(*planes)[0, 0].numpy()
    return _weighted_median(initial, known, image, np.exp(-np.arange(766) / (3 * _COLOUR_LEVELS)))


@numba.njit(cache=True)
def _weighted_median(
    filled: np.ndarray, known: np.ndarray, image: np.ndarray, weight_table: np.ndarray
) -> np.ndarray:
    height, width = filled.shape
    lowest = filled.min()
    bins = int((filled.max() - lowest) * _BINS_PER_PX) + 2
    weights, sums = np.zeros(bins), np.zeros(bins)
    result = filled.copy()
    for y in range(height):
        for x in range(width):
            if known[y, x]:
                continue
            first, last, total = bins - 1, 0, 0.0
            for row in range(max(0, y - _RADIUS), min(height, y + _RADIUS + 1)):
                for column in range(max(0, x - _RADIUS), min(width, x + _RADIUS + 1)):
                    levels = np.int32(0)
                    for channel in range(3):
                        levels += abs(np.int32(image[y, x, channel]) - np.int32(image[row, column, channel]))
                    index = int((filled[row, column] - lowest) * _BINS_PER_PX)
                    weights[index] += weight_table[levels]
                    sums[index] += weight_table[levels] * filled[row, column]
                    total += weight_table[levels]
                    first, last = min(first, index), max(last, index)
            cumulative = 0.0
            for index in range(first, last + 1):
                if cumulative < _QUANTILE * total <= cumulative + weights[index]:
                    result[y, x] = sums[index] / weights[index]
                cumulative += weights[index]
                weights[index] = sums[index] = 0.0
    return result
