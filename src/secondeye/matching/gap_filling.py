"""Gaps in a disparity: the background's value along the row first, then what pixels of their colour have.

Ours; a weighted median guided by the picture, as Ma et al. (ICCV 2013) refine disparity with.
"""

import numba
import numpy as np
import torch

from secondeye.matching.consistency import fill_from_background

_RADIUS = 5  # px
_COLOUR = 8.0  # levels of difference that divide a pixel's say by e
_SHARE = 0.4  # the value that this share of the weight lies below: hidden pixels belong to what is farther
_FINER = 16  # bins a pixel


def fill_by_colour(
    disparity: np.ndarray,  # float32 [H, W] px; values where not `known` are ignored
    known: np.ndarray,  # bool [H, W]
    picture: np.ndarray,  # uint8 [H, W, 3]
) -> np.ndarray:  # float32 [H, W], finite; known values untouched
    """Fill the gaps of one frame."""
    planes = torch.from_numpy(disparity)[None, None], torch.from_numpy(known)[None, None]
    rows = fill_from_background(*planes)[0, 0].numpy()
    return _settle(rows, known, picture, np.exp(-np.arange(766) / (3 * _COLOUR)))


@numba.njit(cache=True)
def _settle(filled: np.ndarray, known: np.ndarray, picture: np.ndarray, says: np.ndarray) -> np.ndarray:
    height, width = filled.shape
    least = filled.min()
    bins = int((filled.max() - least) * _FINER) + 2
    weights, sums = np.zeros(bins), np.zeros(bins)
    settled = filled.copy()
    for y in range(height):
        for x in range(width):
            if known[y, x]:
                continue
            first, last, total = bins - 1, 0, 0.0
            for row in range(max(0, y - _RADIUS), min(height, y + _RADIUS + 1)):
                for column in range(max(0, x - _RADIUS), min(width, x + _RADIUS + 1)):
                    levels = np.int32(0)
                    for channel in range(3):
                        levels += abs(
                            np.int32(picture[y, x, channel]) - np.int32(picture[row, column, channel])
                        )
                    place = int((filled[row, column] - least) * _FINER)
                    weights[place] += says[levels]
                    sums[place] += says[levels] * filled[row, column]
                    total += says[levels]
                    first, last = min(first, place), max(last, place)
            reached = 0.0
            for place in range(first, last + 1):
                if reached < _SHARE * total <= reached + weights[place]:
                    settled[y, x] = sums[place] / weights[place]
                reached += weights[place]
                weights[place] = sums[place] = 0.0
    return settled
