"""Points that both eyes see, found without trusting anything about the pair: not rows, order, or colours.

Each cell of a grid offers its best corner. A point counts when one place in the other eye looks like it, no
other place does, that place finds the way back, and its neighbours agree. Water, noise, walls that repeat
themselves and bare sky fail one of these and have no say.
"""

from typing import NamedTuple

import cv2
import numpy as np
from torch import Tensor

from secondeye.imaging.arrays import resize
from secondeye.imaging.optical_flow import to_gray

_WORK_WIDTH = 1280  # px: wider pictures are halved (or more) first
_COARSE_WIDTH = 224  # px, at which the whole range is searched
_CELL = 6  # coarse px: one point each
_HALF = 5  # coarse px, of the patch that is searched
_FINE_HALF = 7  # px of the working picture, of the patch that places it: at least
_FINE_SHARE = 1 / 116  # of the width: in large pictures the patch is larger
_MIN_CONTRAST = 0.5  # levels per px in the weaker direction: less is no corner
_CALM_PERCENTILE = 10  # of a picture's places: what stirs in the calmest ones is noise
_MAX_NOISE = 2.5  # levels per px of noise that are believed: a picture may be texture all over
_ABOVE_NOISE = 3.0  # a corner must have as many times the energy that noise has
_MIN_LIKENESS = 0.7  # correlation coefficient
_UNIQUE_FACTOR, _UNIQUE_MARGIN = 1.25, 0.05  # the second best place must be that much less alike
_FRIENDS = 3  # neighbours, of this frame or another, that must have nearly the same disparity
_FRIEND_CELLS, _FRIEND_PERCENT = 2.5, 0.4  # how near a neighbour is, and what is the same, % of the width


class Correspondences(NamedTuple):
    """Points of the left eye, and where the right eye has them: x - disparity, y + vertical."""

    frame: np.ndarray  # int [N]
    x: np.ndarray  # float64 [N] px
    y: np.ndarray  # [N] px
    disparity: np.ndarray  # [N] px
    vertical: np.ndarray  # [N] px, how much lower the right eye has it
    offered: int  # corners that were looked for

    @property
    def support(self) -> float:
        """Share of the corners that were found, [0, 1]."""
        return len(self.x) / self.offered if self.offered else 0.0


class _Pair(NamedTuple):
    """One frame of both eyes, grey, as large as they are searched and as they are placed."""

    coarse: np.ndarray  # float32 [h, w] levels
    fine: np.ndarray  # float32 [h, w] levels


def find_correspondences(
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
    *,
    max_disparity_percent: float,  # searched to both sides, % of W
    max_vertical_percent: float,  # searched up and down, % of H
) -> Correspondences:
    """Match corners of every frame; to about a tenth of a pixel."""
    width = left.shape[-1]
    work = -(-width // _WORK_WIDTH)
    pairs = zip(_pictures(left, work), _pictures(right, work), strict=True)
    found, offered = [], 0
    for frame, (here, there) in enumerate(pairs):
        rows, columns = here.coarse.shape
        reach = round(columns * max_disparity_percent / 100), round(rows * max_vertical_percent / 100) + 1
        corners = _corners(here.coarse)
        offered += len(corners)
        places = [_place(here, there, int(x), int(y), reach) for x, y in corners]
        found += [(frame, *place) for place in places if place]
    table = np.array(found, np.float64).reshape(-1, 5)
    scale = width / max(width // work, 1)
    at, xy = table[:, 0].astype(int), (table[:, 1:3] + 0.5) * scale - 0.5
    matches = Correspondences(at, xy[:, 0], xy[:, 1], table[:, 3] * scale, table[:, 4] * scale, offered)
    cell = _CELL * width / max(1, _coarse_size(left, work)[1])
    return _with_friends(matches, cell, _FRIEND_PERCENT / 100 * width)


def only(matches: Correspondences, chosen: np.ndarray) -> Correspondences:
    """Some of the points; what was offered stays."""
    frame, x, y, disparity, vertical, offered = matches
    return Correspondences(frame[chosen], x[chosen], y[chosen], disparity[chosen], vertical[chosen], offered)


def _coarse_size(frames: Tensor, work: int) -> tuple[int, int]:
    height, width = (max(side // work, 1) for side in frames.shape[-2:])
    factor = max(1, round(width / _COARSE_WIDTH))
    return max(height // factor, 1), max(width // factor, 1)


def _pictures(frames: Tensor, work: int) -> list[_Pair]:
    height, width = frames.shape[-2:]
    fine = resize(frames, max(height // work, 1), max(width // work, 1))
    coarse = resize(fine, *_coarse_size(frames, work))
    greys = (to_gray(picture).astype(np.float32) for picture in (coarse, fine))
    return [_Pair(*pair) for pair in zip(*greys, strict=True)]


def _corners(picture: np.ndarray) -> np.ndarray:  # int [N, 2] x, y
    """The best corner of every cell that has one (Shi and Tomasi, CVPR 1994)."""
    dx, dy = (cv2.Sobel(picture, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
    xx, yy, xy = (cv2.boxFilter(product, -1, (7, 7)) for product in (dx * dx, dy * dy, dx * dy))
    weaker = (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    noise = min(float(np.percentile(weaker, _CALM_PERCENTILE)), _MAX_NOISE**2)
    weaker[:_HALF], weaker[-_HALF:], weaker[:, :_HALF], weaker[:, -_HALF:] = 0, 0, 0, 0
    rows, columns = (side // _CELL for side in picture.shape)
    grid = weaker[: rows * _CELL, : columns * _CELL].reshape(rows, _CELL, columns, _CELL)
    cells = grid.transpose(0, 2, 1, 3).reshape(rows * columns, _CELL**2)
    best = cells.argmax(1)
    least = max(_MIN_CONTRAST**2, _ABOVE_NOISE * noise)
    cell = np.flatnonzero(cells.max(1, initial=0) >= least)
    y = cell // max(columns, 1) * _CELL + best[cell] // _CELL
    return np.stack([cell % max(columns, 1) * _CELL + best[cell] % _CELL, y], axis=1)


def _place(
    here: _Pair, there: _Pair, x: int, y: int, reach: tuple[int, int]
) -> tuple[float, float, float, float] | None:
    """x, y, disparity and vertical in px of the working picture; None where it can not be told."""
    coarse = _search(here.coarse, there.coarse, x, y, reach)
    back = coarse and _search(there.coarse, here.coarse, *coarse, reach)
    if not coarse or not back or max(abs(back[0] - x), abs(back[1] - y)) > 1:
        return None
    factor = here.fine.shape[1] / here.coarse.shape[1]
    own, other = (
        (round((x + 0.5) * factor - 0.5), round((y + 0.5) * factor - 0.5)) for x, y in ((x, y), coarse)
    )
    placed = _refine(here.fine, there.fine, own, other, round(factor) + 1)
    return placed and (own[0], own[1], own[0] - placed[0], placed[1] - own[1])


def _search(
    picture: np.ndarray, other: np.ndarray, x: int, y: int, reach: tuple[int, int]
) -> tuple[int, int] | None:
    """The one place within reach that looks like (x, y)."""
    height, width = other.shape
    if not (_HALF <= x < width - _HALF and _HALF <= y < height - _HALF):
        return None
    left, top = max(x - reach[0] - _HALF, 0), max(y - reach[1] - _HALF, 0)
    inside = other[top : y + reach[1] + _HALF + 1, left : x + reach[0] + _HALF + 1]
    alike = cv2.matchTemplate(inside, _patch(picture, x, y, _HALF), cv2.TM_CCOEFF_NORMED)
    _, best, _, (column, row) = cv2.minMaxLoc(alike)
    alike[:, max(column - 3, 0) : column + 4] = -1
    second = float(alike.max())
    if best < _MIN_LIKENESS or 1 - second < _UNIQUE_FACTOR * (1 - best) + _UNIQUE_MARGIN:
        return None
    return left + column + _HALF, top + row + _HALF


def _refine(
    picture: np.ndarray, other: np.ndarray, own: tuple[int, int], guess: tuple[int, int], reach: int
) -> tuple[float, float] | None:
    """Where `other` has the point, to a fraction of a pixel by a parabola through the best three places."""
    height, width = other.shape
    half = max(_FINE_HALF, round(width * _FINE_SHARE))
    edge = half + reach
    (x, y), (u, v) = own, guess
    whole = half <= x < width - half and half <= y < height - half
    if not (whole and edge <= u < width - edge and edge <= v < height - edge):
        return None
    patch = _patch(picture, x, y, half)
    alike = cv2.matchTemplate(_patch(other, u, v, edge), patch, cv2.TM_CCOEFF_NORMED)
    _, best, _, (column, row) = cv2.minMaxLoc(alike)
    if best < _MIN_LIKENESS or not (0 < column < 2 * reach and 0 < row < 2 * reach):
        return None
    across = _vertex(*alike[row, column - 1 : column + 2])
    down = _vertex(*alike[row - 1 : row + 2, column])
    return u + column - reach + across, v + row - reach + down


def _patch(picture: np.ndarray, x: int, y: int, half: int) -> np.ndarray:
    return picture[y - half : y + half + 1, x - half : x + half + 1]


def _vertex(before: float, best: float, after: float) -> float:
    """Where the parabola through three values at -1, 0 and 1 is highest."""
    bend = float(before) - 2 * float(best) + float(after)
    return 0.5 * (float(before) - float(after)) / bend if bend < 0 else 0.0


def _with_friends(matches: Correspondences, cell: float, same_px: float) -> Correspondences:
    """Without the points that stand alone: what matched by chance has no neighbours at its disparity."""
    x, y, disparity = (column.astype(np.float32) for column in (matches.x, matches.y, matches.disparity))
    near = np.abs(x[:, None] - x) <= _FRIEND_CELLS * cell
    near &= np.abs(y[:, None] - y) <= _FRIEND_CELLS * cell
    near &= np.abs(disparity[:, None] - disparity) <= same_px
    return only(matches, near.sum(1) > _FRIENDS)  # each is its own neighbour
