"""Rectangles around holes: what a network that sees only so far has to look at (ours).

A rectangle is cut in two wherever its parts, shrunk to their holes and with their margins, are less to
compute than the whole; the best cut first, and each part again.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_PASS_CELLS = 40  # what starting a pass costs, as much as so many cells more (measured on two cores)

Box = tuple[int, int, int, int]  # cells: first row, stop row, first column, stop column
Cells = NDArray[np.bool_]
Counts = NDArray[np.int64]


class HoleCrop(NamedTuple):
    """A rectangle of a picture, rows and columns in px."""

    own: tuple[slice, slice]
    """Its own pixels, in the picture; no two crops share any."""
    around: tuple[slice, slice]
    """These and the margin, as far as the picture goes."""

    @property
    def own_inside(self) -> tuple[slice, slice]:
        """Its own pixels, in `around`."""
        rows, columns = (
            slice(own.start - around.start, own.stop - around.start)
            for own, around in zip(self.own, self.around, strict=True)
        )
        return rows, columns


def plan_hole_crops(
    holes: NDArray[np.bool_],  # [H, W]
    cell_px: int,  # every crop begins at a multiple of it
    halo_px: int,  # margin on each side, a multiple of cell_px
    largest_px: int,  # of a crop's own pixels a side, a multiple of cell_px
) -> list[HoleCrop]:
    """Crops that hold every hole, with margins; none without holes. Depends on the holes alone."""
    height, width = holes.shape
    padded = np.pad(holes, ((0, -height % cell_px), (0, -width % cell_px)))
    rows, columns = (side // cell_px for side in padded.shape)
    cells: Cells = padded.reshape(rows, cell_px, columns, cell_px).any((1, 3))  # type: ignore[assignment]
    halo, largest = halo_px // cell_px, largest_px // cell_px
    boxes = _split(cells, (0, rows, 0, columns), halo, largest) if cells.any() else []
    return [
        HoleCrop(
            _pixels(box, cell_px, 0, height, width),
            _pixels(box, cell_px, halo, height, width),
        )
        for box in boxes
    ]


def _pixels(box: Box, cell_px: int, halo: int, height: int, width: int) -> tuple[slice, slice]:
    top, bottom, left, right = box
    rows = slice(max(0, top - halo) * cell_px, min(height, (bottom + halo) * cell_px))
    return rows, slice(max(0, left - halo) * cell_px, min(width, (right + halo) * cell_px))


def _split(cells: Cells, box: Box, halo: int, largest: int) -> list[Box]:
    """Boxes that hold every cell of `box` that is set; there is one at least."""
    top, bottom, left, right = box = _shrink(cells, box)
    cost, *parts = _best_cut(cells, box, halo)
    turned_cost, *turned = _best_cut(cells.T, (left, right, top, bottom), halo)
    if turned_cost < cost:
        cost, parts = turned_cost, [(c, d, a, b) for a, b, c, d in turned]
    whole = _cost(np.array(box)[:, None], cells.shape, halo)[0]
    if max(bottom - top, right - left) <= largest and cost >= whole:
        return [box]
    return [small for part in parts for small in _split(cells, part, halo, largest)]


def _best_cut(cells: Cells, box: Box, halo: int) -> tuple[float, Box, Box]:
    """The cut between rows of a shrunk box whose parts cost least: what they cost, and the parts.

    Infinitely much where there is but one row.
    """
    top, bottom, left, right = box
    inside = cells[top:bottom, left:right]
    height = len(inside)
    if height == 1:
        return np.inf, box, box
    above = _bounds(inside)[:, :-1]
    below = _bounds(inside[::-1])[:, :-1][:, ::-1]
    below = np.stack([height - below[1], height - below[0], below[2], below[3]])
    offsets = np.array([top, top, left, left])[:, None]
    parts = [bounds + offsets for bounds in (above, below)]
    costs = sum(_cost(part, cells.shape, halo) for part in parts)
    best = int(np.argmin(costs))
    one, other = ((int(a), int(b), int(c), int(d)) for a, b, c, d in (part[:, best] for part in parts))
    return float(np.min(costs)), one, other


def _bounds(inside: Cells) -> Counts:
    """[4, height]: the smallest box that holds what is set in the first row, the first two, and so on."""
    height, width = inside.shape
    full = inside.any(1)
    first = np.where(full, inside.argmax(1), width)
    stop = np.where(full, width - inside[:, ::-1].argmax(1), 0)
    stops = np.maximum.accumulate(np.where(full, np.arange(1, height + 1), 0))
    starts = np.full(height, int(full.argmax()))
    return np.stack([starts, stops, np.minimum.accumulate(first), np.maximum.accumulate(stop)])


def _cost(boxes: Counts, shape: tuple[int, ...], halo: int) -> Counts:
    """What boxes [4, N] cost to compute with their margins, [N] cells."""
    top, bottom, left, right = boxes
    rows = np.minimum(bottom + halo, shape[0]) - np.maximum(top - halo, 0)
    columns = np.minimum(right + halo, shape[1]) - np.maximum(left - halo, 0)
    cells: Counts = rows * columns + _PASS_CELLS
    return cells


def _shrink(cells: Cells, box: Box) -> Box:
    """The smallest box that holds the same cells that are set."""
    top, bottom, left, right = box
    inside = cells[top:bottom, left:right]
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return top + int(rows[0]), top + int(rows[-1]) + 1, left + int(columns[0]), left + int(columns[-1]) + 1
