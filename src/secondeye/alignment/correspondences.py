"""Sparse correspondences between the views, without assuming rectification, view order or equal colours.

Every grid cell offers its strongest corner. A corner is matched if exactly one place in the other view
resembles it, matching back returns to the corner, and its neighbours have a similar disparity. Water, noise,
repetitive walls and clear sky fail one of these tests.
"""

from typing import NamedTuple

import cv2
import numpy as np
from torch import Tensor

from secondeye.imaging.arrays import resize
from secondeye.imaging.optical_flow import to_gray

_WORK_WIDTH = 1280  # px: wider frames are downscaled by a whole number first
_COARSE_WIDTH = 224  # px, width of the full-range search
_CELL = 6  # coarse px: one corner per cell
_HALF = 5  # coarse px, half size of the searched patch
_FINE_HALF = 7  # px at working size, smallest half size of the refined patch
_FINE_SHARE = 1 / 116  # of the width, half size of the refined patch in large frames
_MIN_CONTRAST = 0.5  # levels per px in the weaker direction
_NOISE_PERCENTILE = 10  # of the corner strengths: taken as the noise level
_MAX_NOISE = 2.5  # levels per px; limits the noise estimate of frames that are textured everywhere
_ABOVE_NOISE = 3.0  # energy of a corner relative to noise
_MIN_CORRELATION = 0.7  # correlation coefficient
_UNIQUE_FACTOR, _UNIQUE_MARGIN = 1.25, 0.05  # how much worse the second best place must be
_MIN_NEIGHBOURS = 3  # corners nearby, in any frame, that must have a similar disparity
_NEIGHBOUR_CELLS = 2.5  # distance of a neighbour
_NEIGHBOUR_PERCENT = 0.4  # of the width, disparity tolerance


class Correspondences(NamedTuple):
    """Points of the left view and their matches in the right view, at x - disparity, y + vertical."""

    frame: np.ndarray  # int [N]
    x: np.ndarray  # float64 [N] px
    y: np.ndarray  # [N] px
    disparity: np.ndarray  # [N] px
    vertical: np.ndarray  # [N] px, positive if lower in the right view
    candidates: int  # number of corners that were searched

    @property
    def match_ratio(self) -> float:
        """Share of the corners with a match, [0, 1]."""
        return len(self.x) / self.candidates if self.candidates else 0.0


class _GrayFrame(NamedTuple):
    """One frame in gray at the search size and at the working size."""

    coarse: np.ndarray  # float32 [h, w] levels
    fine: np.ndarray  # float32 [h, w] levels


def find_correspondences(
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
    *,
    max_disparity_percent: float,  # search range to both sides, % of W
    max_vertical_percent: float,  # search range up and down, % of H
) -> Correspondences:
    """Match the corners of every frame, to about a tenth of a pixel."""
    width = left.shape[-1]
    factor = -(-width // _WORK_WIDTH)
    frame_pairs = zip(_gray_frames(left, factor), _gray_frames(right, factor), strict=True)
    matched, candidates = [], 0
    for frame, (left_gray, right_gray) in enumerate(frame_pairs):
        rows, columns = left_gray.coarse.shape
        search = round(columns * max_disparity_percent / 100), round(rows * max_vertical_percent / 100) + 1
        corners = _corners(left_gray.coarse)
        candidates += len(corners)
        places = [_match_corner(left_gray, right_gray, int(x), int(y), search) for x, y in corners]
        matched += [(frame, *place) for place in places if place]
    table = np.array(matched, np.float64).reshape(-1, 5)
    scale = width / max(width // factor, 1)
    frames, xy = table[:, 0].astype(int), (table[:, 1:3] + 0.5) * scale - 0.5
    points = Correspondences(frames, xy[:, 0], xy[:, 1], table[:, 3] * scale, table[:, 4] * scale, candidates)
    cell = _CELL * width / max(1, _coarse_size(left, factor)[1])
    return _drop_isolated(points, cell, _NEIGHBOUR_PERCENT / 100 * width)


def select(points: Correspondences, mask: np.ndarray) -> Correspondences:
    """Select points by mask or index; `candidates` is unchanged."""
    frame, x, y, disparity, vertical, candidates = points
    return Correspondences(frame[mask], x[mask], y[mask], disparity[mask], vertical[mask], candidates)


def _coarse_size(frames: Tensor, factor: int) -> tuple[int, int]:
    height, width = (max(side // factor, 1) for side in frames.shape[-2:])
    factor = max(1, round(width / _COARSE_WIDTH))
    return max(height // factor, 1), max(width // factor, 1)


def _gray_frames(frames: Tensor, factor: int) -> list[_GrayFrame]:
    height, width = frames.shape[-2:]
    fine = resize(frames, max(height // factor, 1), max(width // factor, 1))
    coarse = resize(fine, *_coarse_size(frames, factor))
    grays = (to_gray(image).astype(np.float32) for image in (coarse, fine))
    return [_GrayFrame(*pair) for pair in zip(*grays, strict=True)]


def _corners(image: np.ndarray) -> np.ndarray:  # int [N, 2] x, y
    """Return the strongest corner of every cell that has one (Shi and Tomasi, CVPR 1994)."""
    dx, dy = (cv2.Sobel(image, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
    xx, yy, xy = (cv2.boxFilter(product, -1, (7, 7)) for product in (dx * dx, dy * dy, dx * dy))
    weaker = (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    noise = min(float(np.percentile(weaker, _NOISE_PERCENTILE)), _MAX_NOISE**2)
    weaker[:_HALF], weaker[-_HALF:], weaker[:, :_HALF], weaker[:, -_HALF:] = 0, 0, 0, 0
    rows, columns = (side // _CELL for side in image.shape)
    grid = weaker[: rows * _CELL, : columns * _CELL].reshape(rows, _CELL, columns, _CELL)
    cells = grid.transpose(0, 2, 1, 3).reshape(rows * columns, _CELL**2)
    best = cells.argmax(1)
    threshold = max(_MIN_CONTRAST**2, _ABOVE_NOISE * noise)
    cell = np.flatnonzero(cells.max(1, initial=0) >= threshold)
    y = cell // max(columns, 1) * _CELL + best[cell] // _CELL
    return np.stack([cell % max(columns, 1) * _CELL + best[cell] % _CELL, y], axis=1)


def _match_corner(
    left_gray: _GrayFrame, right_gray: _GrayFrame, x: int, y: int, search: tuple[int, int]
) -> tuple[float, float, float, float] | None:
    """Return x, y, disparity and vertical in px at working size; None without a reliable match."""
    coarse = _search_coarse(left_gray.coarse, right_gray.coarse, x, y, search)
    returned = coarse and _search_coarse(right_gray.coarse, left_gray.coarse, *coarse, search)
    if not coarse or not returned or max(abs(returned[0] - x), abs(returned[1] - y)) > 1:
        return None
    factor = left_gray.fine.shape[1] / left_gray.coarse.shape[1]
    corner, other = (
        (round((x + 0.5) * factor - 0.5), round((y + 0.5) * factor - 0.5)) for x, y in ((x, y), coarse)
    )
    placed = _refine(left_gray.fine, right_gray.fine, corner, other, round(factor) + 1)
    return placed and (corner[0], corner[1], corner[0] - placed[0], placed[1] - corner[1])


def _search_coarse(
    image: np.ndarray, other: np.ndarray, x: int, y: int, search: tuple[int, int]
) -> tuple[int, int] | None:
    """Return the unique best match of (x, y) within the search range; None if there is none."""
    height, width = other.shape
    if not (_HALF <= x < width - _HALF and _HALF <= y < height - _HALF):
        return None
    left, top = max(x - search[0] - _HALF, 0), max(y - search[1] - _HALF, 0)
    inside = other[top : y + search[1] + _HALF + 1, left : x + search[0] + _HALF + 1]
    correlation = cv2.matchTemplate(inside, _patch(image, x, y, _HALF), cv2.TM_CCOEFF_NORMED)
    _, best, _, (column, row) = cv2.minMaxLoc(correlation)
    correlation[:, max(column - 3, 0) : column + 4] = -1
    second = float(correlation.max())
    if best < _MIN_CORRELATION or 1 - second < _UNIQUE_FACTOR * (1 - best) + _UNIQUE_MARGIN:
        return None
    return left + column + _HALF, top + row + _HALF


def _refine(
    image: np.ndarray, other: np.ndarray, corner: tuple[int, int], guess: tuple[int, int], search: int
) -> tuple[float, float] | None:
    """Return the match to a fraction of a pixel, from the parabola through the three best values per axis."""
    height, width = other.shape
    half = max(_FINE_HALF, round(width * _FINE_SHARE))
    edge = half + search
    (x, y), (u, v) = corner, guess
    fits = half <= x < width - half and half <= y < height - half
    if not (fits and edge <= u < width - edge and edge <= v < height - edge):
        return None
    patch = _patch(image, x, y, half)
    correlation = cv2.matchTemplate(_patch(other, u, v, edge), patch, cv2.TM_CCOEFF_NORMED)
    _, best, _, (column, row) = cv2.minMaxLoc(correlation)
    if best < _MIN_CORRELATION or not (0 < column < 2 * search and 0 < row < 2 * search):
        return None
    across = _parabola_peak(*correlation[row, column - 1 : column + 2])
    down = _parabola_peak(*correlation[row - 1 : row + 2, column])
    return u + column - search + across, v + row - search + down


def _patch(image: np.ndarray, x: int, y: int, half: int) -> np.ndarray:
    return image[y - half : y + half + 1, x - half : x + half + 1]


def _parabola_peak(before: float, best: float, after: float) -> float:
    """Return the position of the maximum of a parabola through values at -1, 0 and 1."""
    curvature = float(before) - 2 * float(best) + float(after)
    return 0.5 * (float(before) - float(after)) / curvature if curvature < 0 else 0.0


def _drop_isolated(points: Correspondences, cell: float, same_px: float) -> Correspondences:
    """Drop points without neighbours of similar disparity: chance matches rarely have any."""
    x, y, disparity = (column.astype(np.float32) for column in (points.x, points.y, points.disparity))
    near = np.abs(x[:, None] - x) <= _NEIGHBOUR_CELLS * cell
    near &= np.abs(y[:, None] - y) <= _NEIGHBOUR_CELLS * cell
    near &= np.abs(disparity[:, None] - disparity) <= same_px
    return select(points, near.sum(1) > _MIN_NEIGHBOURS)  # every point counts itself
