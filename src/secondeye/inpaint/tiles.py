"""Tiles of a frame that is larger than the network handles at once.

Lengths have no fixed unit: they are latents for the network and pixels for blending.
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

    def crop(
        self,
        plane: Tensor,  # [..., H, W]
    ) -> Tensor:  # [..., height, width]
        """Return a view of the part of `plane` inside the tile."""
        return plane[..., self.top : self.top + self.height, self.left : self.left + self.width]

    def crop_frames(
        self,
        frames: Tensor,  # [T, 3, H, W], or uint8 [T, H, W, 3]
    ) -> Tensor:  # of the same form
        """Return a view of the part of frames inside the tile."""
        if frames.dtype != torch.uint8:
            return self.crop(frames)
        return frames[:, self.top : self.top + self.height, self.left : self.left + self.width]

    def scaled(self, factor: int) -> "Tile":
        """Return the same rectangle of a plane `factor` times as large."""
        return Tile(*(factor * length for length in self))


def plan_tiles(
    height: int,  # a multiple of `multiple`
    width: int,  # a multiple of `multiple`
    max_tiles: tuple[int, int],  # rows, columns
    overlap: int,  # of neighbours, at least
    multiple: int,  # of a tile's sides
) -> list[Tile]:
    """Return equal tiles that cover the plane, row by row. Raises ValueError if that is impossible."""
    if min(max_tiles) < 1 or overlap < 0 or height % multiple or width % multiple or 0 in (height, width):
        raise ValueError(
            f"{height}x{width} cannot be cut into {max_tiles[0]}x{max_tiles[1]} tiles that overlap by "
            f"{overlap} and whose sides are multiples of {multiple}"
        )
    (tile_height, tops), (tile_width, lefts) = (
        _spans(*side, overlap, multiple) for side in zip((height, width), max_tiles, strict=True)
    )
    return [Tile(top, left, tile_height, tile_width) for top, left in product(tops, lefts)]


def _spans(side: int, count: int, overlap: int, multiple: int) -> tuple[int, list[int]]:
    """Return the length of a tile and the evenly spaced starts, as many as are needed."""
    shares = -(-(side + (count - 1) * overlap) // count)
    length = min(side, -(-shares // multiple) * multiple)
    if length == side:
        return side, [0]
    while (count - 1) * length >= side + (count - 2) * overlap:
        count -= 1  # rounding up made one tile unnecessary
    free = side - length
    return length, [k * free // (count - 1) for k in range(count)]


def blend_weights(
    tiles: Sequence[Tile],
    height: int,
    width: int,
) -> list[Tensor]:  # [tile height, tile width] float32 each
    """Return blending weights that fade towards a tile's borders and sum to 1 wherever a tile is."""
    if not tiles:
        return []
    shape = _ramp(tiles[0].height)[:, None] * _ramp(tiles[0].width)
    total = torch.zeros(height, width)
    for tile in tiles:
        tile.crop(total).add_(shape)
    return [shape / tile.crop(total) for tile in tiles]


def _ramp(length: int) -> Tensor:  # [length], larger farther from both ends
    steps = torch.arange(length, dtype=torch.float32)
    return torch.minimum(steps + 1, length - steps)
