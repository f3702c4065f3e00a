"""Black borders of a film: bands at its edges which no picture reaches."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

_BLACK = 12  # levels; coded black stays below 7 in our films, a dark ceiling lies at 18
_JUMP = 8  # levels between a border and the picture: a room that grows dark has no such step
_SPECKS = 2  # % of a row that may be brighter: dust, dead pixels
_WHOLE = 0.75  # of the next row's brightness: a row below that is mixed with the border
_BLUR = 2  # rows of a small picture into which scaling mixes what lies beside a border
_MOST = 0.4  # of a side: what is black beyond that is no border

_ORDER = (100 - _SPECKS, 50)  # percentiles of a row


class Letterbox(NamedTuple):
    """Pixels of one eye."""

    top: int
    bottom: int
    left: int
    right: int


class LevelProfile(NamedTuple):
    """How bright rows and columns are."""

    rows: NDArray[np.uint8]  # [2, H] levels: of the max_over_time pixel but for specks, of the middle one
    columns: NDArray[np.uint8]  # [2, W]


def measure_profile(
    picture: np.ndarray,  # uint8 [H, W, 3] RGB
) -> LevelProfile:
    """Order statistics of each row and each column."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return LevelProfile(_ordered(grey), _ordered(np.ascontiguousarray(grey.T)))


def _ordered(lines: np.ndarray) -> NDArray[np.uint8]:
    places = [(lines.shape[1] - 1) * share // 100 for share in _ORDER]
    return np.partition(lines, places, axis=1)[:, places].T


def max_over_time(found: Sequence[LevelProfile]) -> LevelProfile:
    """The largest over time, so that specks may move."""
    return LevelProfile(*(np.max(lines, axis=0) for lines in zip(*found, strict=True)))


def find_letterbox(lines: LevelProfile) -> Letterbox:
    """How wide the black band at each edge is (ours): black in every picture, and bounded by a step."""
    return Letterbox(
        _width(lines.rows),
        _width(lines.rows[:, ::-1]),
        _width(lines.columns),
        _width(lines.columns[:, ::-1]),
    )


def _width(lines: NDArray[np.uint8]) -> int:
    most, half = lines.astype(int)
    lit = np.flatnonzero(most > _BLACK)
    if not len(lit) or not 0 < lit[0] <= _MOST * len(most):
        return 0
    edge = int(lit[0])
    step = half[edge : edge + 2].max() - most[max(0, edge - 2)]
    return _past_blend(half, edge) if step >= _JUMP else 0


def _past_blend(half: NDArray[np.int64], edge: int) -> int:
    """Leave out the row or two in which scaling and coding mixed the picture with the border."""
    for row in range(edge, min(edge + 2, len(half) - 1)):
        if half[row] >= _WHOLE * half[row + 1]:
            return row
    return min(edge + 2, len(half) - 1)


def refine(
    coarse: Letterbox,  # of small pictures, many of them
    small: tuple[int, int],  # their height, width
    fine: Letterbox,  # of a few pictures at full size
    full: tuple[int, int],
) -> Letterbox:  # at full size
    """Exact to the pixel, yet no wider than what many small pictures allow."""
    scales = [full[0] / small[0]] * 2 + [full[1] / small[1]] * 2
    return Letterbox(
        *(min(f, int((c + _BLUR) * scale)) for c, f, scale in zip(coarse, fine, scales, strict=True))
    )


def union(*borders: Letterbox) -> Letterbox:
    """What is a border for any of them: both eyes are cropped alike."""
    return Letterbox(*(max(sides) for sides in zip(*borders, strict=True)))
