"""Where the network works when a picture is more than it sees at once (ours; the release's are in reference).

Lengths have no unit here: they are latents to the network, and pixels to who puts pictures together.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor


class Tile(NamedTuple):
    """A rectangle of a plane."""

    top: int
    left: int
    height: int
    width: int

    def cut(
        self,
        plane: Tensor,  # [..., H, W]
    ) -> Tensor:  # [..., height, width], the same memory
        """What of a plane lies in it."""
        return plane[..., self.top : self.top + self.height, self.left : self.left + self.width]

    def times(self, scale: int) -> "Tile":
        """The same rectangle of a plane `scale` times as large."""
        return Tile(*(scale * length for length in self))


def plan_tiles(
    height: int,  # multiples of `multiple`
    width: int,
    a_side: int,  # tiles to a side, at most
    overlap: int,  # of neighbours, at least
    multiple: int,  # that sides of a tile are
) -> list[Tile]:
    """Tiles of one size that cover the plane, row by row. Raises ValueError for sides that can not be cut."""
    if a_side < 1 or overlap < 0 or height % multiple or width % multiple or 0 in (height, width):
        raise ValueError(
            f"{height}x{width} can not be cut into {a_side} tiles a side that overlap by {overlap} "
            f"and whose sides are multiples of {multiple}"
        )
    (tall, tops), (wide, lefts) = (_spans(side, a_side, overlap, multiple) for side in (height, width))
    return [Tile(top, left, tall, wide) for top, left in product(tops, lefts)]


def _spans(side: int, count: int, overlap: int, multiple: int) -> tuple[int, list[int]]:
    """The length of a tile, and where tiles begin: evenly spread, as many as are needed."""
    shares = -(-(side + (count - 1) * overlap) // count)
    length = min(side, -(-shares // multiple) * multiple)
    if length == side:
        return side, [0]
    while (count - 1) * length >= side + (count - 2) * overlap:
        count -= 1  # rounding up has made one of them needless
    free = side - length
    return length, [k * free // (count - 1) for k in range(count)]


def blend_weights(
    tiles: Sequence[Tile],
    height: int,
    width: int,
) -> list[Tensor]:  # [tile height, tile width] float32 each
    """What counts of each tile: 1 in sum wherever a tile is, each fading towards its own borders."""
    if not tiles:
        return []
    shape = _rise(tiles[0].height)[:, None] * _rise(tiles[0].width)
    total = torch.zeros(height, width)
    for tile in tiles:
        tile.cut(total).add_(shape)
    return [shape / tile.cut(total) for tile in tiles]


def _rise(length: int) -> Tensor:  # [length], more the farther from both ends
    steps = torch.arange(length, dtype=torch.float32)
    return torch.minimum(steps + 1, length - steps)
