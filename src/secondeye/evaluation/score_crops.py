"""Where the perceptual scores look: squares around disocclusions, the same for every method."""

from typing import NamedTuple

import torch
from torch import Tensor

SMALLEST_PX = 64  # a crop's side; it is a seventh of the width where that is more
_SHARE_OF_WIDTH = 1 / 7
_LEAST_SHARE = 0.002  # of a cell that must be disoccluded


class Crops(NamedTuple):
    """Squares of one size."""

    side_px: int
    places: Tensor  # int64 [N, 3]: frame, top, left
    weights: Tensor  # float64 [N]: disoccluded pixels that each one stands for


def side_of(width: int) -> int:
    """How large the crops of pictures of this width are, px."""
    return max(SMALLEST_PX, 4 * round(width * _SHARE_OF_WIDTH / 4))


def around(
    holes: Tensor,  # bool [T, 1, H, W]; sides of at least SMALLEST_PX
) -> Crops:
    """One crop for each cell of a grid that holds holes, centred on them and moved inside the picture (ours).

    Cells are as large as crops. Where a picture is smaller than a crop, crops are as small.
    """
    height, width = holes.shape[-2:]
    side = min(side_of(width), height, width)
    frame, row, column = holes[:, 0].nonzero().T
    cells = torch.stack([frame, row // side, column // side], 1)
    found, of_cell, counts = cells.unique(dim=0, return_inverse=True, return_counts=True)
    sums = torch.zeros(len(found), 2, dtype=torch.int64)
    centres = sums.index_add_(0, of_cell, torch.stack([row, column], 1))
    corners = centres // counts[:, None] - side // 2
    limits = torch.tensor([height - side, width - side])
    corners = torch.minimum(corners.clamp_min(0), limits)
    enough = counts >= _LEAST_SHARE * side**2
    return Crops(side, torch.cat([found[:, :1], corners], 1)[enough], counts[enough].double())


def cut(
    frames: Tensor,  # [T, 3, H, W]
    crops: Crops,
) -> Tensor:  # [N, 3, side, side]
    """The crops of these frames."""
    side = crops.side_px
    found = [frames[t, :, y : y + side, x : x + side] for t, y, x in crops.places.tolist()]
    return torch.stack(found) if found else frames.new_zeros(0, frames.shape[1], side, side)
