"""Crops around holes, for a network with a limited receptive field.

A crop is cut in two wherever its parts, shrunk to their holes and with their margins, cost less to compute
than the whole; the best cut first, and each part again.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from secondeye.inpaint.light_inputs import Margin

_PASS_CELLS = 40  # overhead of a pass of the network, in cells (measured on two cores)

Box = tuple[int, int, int, int]  # cells: first row, stop row, first column, stop column
Cells = NDArray[np.bool_]
Counts = NDArray[np.int64]


class HoleCrop(NamedTuple):
    """A rectangle of a frame with a margin: slices of rows and columns in px."""

    inner: tuple[slice, slice]
    """Without the margin; the inner parts of crops do not overlap."""
    outer: tuple[slice, slice]
    """With the margin, clipped to the frame."""

    @property
    def margin(self) -> Margin:
        """The width of the margin on each side, px."""
        (rows, columns), (outer_rows, outer_columns) = self
        return Margin(
            rows.start - outer_rows.start,
            outer_rows.stop - rows.stop,
            columns.start - outer_columns.start,
            outer_columns.stop - columns.stop,
        )

    @property
    def inner_in_outer(self) -> tuple[slice, slice]:
        """The inner part as slices of the outer one."""
        rows, columns = (
            slice(inner.start - outer.start, inner.stop - outer.start)
            for inner, outer in zip(self.inner, self.outer, strict=True)
        )
        return rows, columns


def plan_hole_crops(
    holes: NDArray[np.bool_],  # [H, W]
    cell_px: int,  # every crop starts at a multiple of it
    halo_px: int,  # margin on each side, a multiple of cell_px
    max_px: int,  # side of a crop without its margin, a multiple of cell_px
) -> list[HoleCrop]:
    """Return crops whose inner parts cover every hole; empty without holes."""
    height, width = holes.shape
    padded = np.pad(holes, ((0, -height % cell_px), (0, -width % cell_px)))
    rows, columns = (side // cell_px for side in padded.shape)
    lines = padded.reshape(rows, cell_px, columns * cell_px).any(1)  # first along whole rows, which is fast
    cells: Cells = lines.reshape(rows, columns, cell_px).any(2)  # type: ignore[assignment]
    halo, max_side = halo_px // cell_px, max_px // cell_px
    boxes = _split(cells, (0, rows, 0, columns), halo, max_side) if cells.any() else []
    return [
        HoleCrop(
            _to_pixels(box, cell_px, 0, height, width),
            _to_pixels(box, cell_px, halo, height, width),
        )
        for box in boxes
    ]


def _to_pixels(box: Box, cell_px: int, halo: int, height: int, width: int) -> tuple[slice, slice]:
    top, bottom, left, right = box
    rows = slice(max(0, top - halo) * cell_px, min(height, (bottom + halo) * cell_px))
    return rows, slice(max(0, left - halo) * cell_px, min(width, (right + halo) * cell_px))


def _split(cells: Cells, box: Box, halo: int, max_side: int) -> list[Box]:
    """Return boxes that cover every set cell of `box`, which has at least one."""
    top, bottom, left, right = box = _shrink(cells, box)
    cost, *parts = _best_cut(cells, box, halo)
    column_cost, *column_parts = _best_cut(cells.T, (left, right, top, bottom), halo)
    if column_cost < cost:
        cost, parts = column_cost, [(c, d, a, b) for a, b, c, d in column_parts]
    whole = _cost(np.array(box)[:, None], cells.shape, halo)[0]
    if max(bottom - top, right - left) <= max_side and cost >= whole:
        return [box]
    return [small for part in parts for small in _split(cells, part, halo, max_side)]


def _best_cut(cells: Cells, box: Box, halo: int) -> tuple[float, Box, Box]:
    """Find the cheapest cut between rows of a shrunk box: its cost (inf for a single row) and the parts."""
    top, bottom, left, right = box
    inside = cells[top:bottom, left:right]
    height = len(inside)
    if height == 1:
        return np.inf, box, box
    above = _prefix_bounds(inside)[:, :-1]
    below = _prefix_bounds(inside[::-1])[:, :-1][:, ::-1]
    below = np.stack([height - below[1], height - below[0], below[2], below[3]])
    offsets = np.array([top, top, left, left])[:, None]
    parts = [bounds + offsets for bounds in (above, below)]
    costs = sum(_cost(part, cells.shape, halo) for part in parts)
    best = int(np.argmin(costs))
    one, other = ((int(a), int(b), int(c), int(d)) for a, b, c, d in (part[:, best] for part in parts))
    return float(np.min(costs)), one, other


def _prefix_bounds(inside: Cells) -> Counts:
    """Return [4, height]: the bounding box of the set cells in the first 1, 2, ... rows."""
    height, width = inside.shape
    occupied = inside.any(1)
    first = np.where(occupied, inside.argmax(1), width)
    stop = np.where(occupied, width - inside[:, ::-1].argmax(1), 0)
    stops = np.maximum.accumulate(np.where(occupied, np.arange(1, height + 1), 0))
    starts = np.full(height, int(occupied.argmax()))
    return np.stack([starts, stops, np.minimum.accumulate(first), np.maximum.accumulate(stop)])


def _cost(boxes: Counts, shape: tuple[int, ...], halo: int) -> Counts:
    """Return the cost [N] of computing boxes [4, N] with their margins, in cells."""
    top, bottom, left, right = boxes
    rows = np.minimum(bottom + halo, shape[0]) - np.maximum(top - halo, 0)
    columns = np.minimum(right + halo, shape[1]) - np.maximum(left - halo, 0)
    cells: Counts = rows * columns + _PASS_CELLS
    return cells


def _shrink(cells: Cells, box: Box) -> Box:
    """Return the bounding box of the set cells inside `box`."""
    top, bottom, left, right = box
    inside = cells[top:bottom, left:right]
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return top + int(rows[0]), top + int(rows[-1]) + 1, left + int(columns[0]), left + int(columns[-1]) + 1
