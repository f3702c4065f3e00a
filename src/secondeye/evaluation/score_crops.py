"""Square crops around disocclusions, on which perceptual scores are computed; the same for every method."""

from typing import NamedTuple

import torch
from torch import Tensor

MIN_SIDE_PX = 64  # smallest crop, so also the smallest image that can be scored
_SHARE_OF_WIDTH = 1 / 7
_MIN_HOLE_SHARE = 0.002  # disoccluded share of a grid cell, below which it gets no crop


class Crops(NamedTuple):
    """Square crops of one size."""

    side_px: int
    corners: Tensor  # int64 [N, 3]: frame, top, left
    weights: Tensor  # float64 [N]: disoccluded pixels in the grid cell of each crop


def crop_side_px(width: int) -> int:
    """Return the side of the crops for images of this width: a seventh of it, at least 64 px."""
    return max(MIN_SIDE_PX, 4 * round(width * _SHARE_OF_WIDTH / 4))


def find_crops(
    holes: Tensor,  # bool [T, 1, H, W]; H and W at least MIN_SIDE_PX
) -> Crops:
    """Return one crop for each grid cell with holes, centred on them and moved inside the image (ours).

    Cells have the size of crops. Both shrink to the image's shorter side if that is smaller.
    """
    height, width = holes.shape[-2:]
    side = min(crop_side_px(width), height, width)
    frame, row, column = holes[:, 0].nonzero().T
    cells = torch.stack([frame, row // side, column // side], 1)
    unique, cell_index, counts = cells.unique(dim=0, return_inverse=True, return_counts=True)
    sums = torch.zeros(len(unique), 2, dtype=torch.int64)
    centres = sums.index_add_(0, cell_index, torch.stack([row, column], 1))
    corners = centres // counts[:, None] - side // 2
    limits = torch.tensor([height - side, width - side])
    corners = torch.minimum(corners.clamp_min(0), limits)
    enough = counts >= _MIN_HOLE_SHARE * side**2
    return Crops(side, torch.cat([unique[:, :1], corners], 1)[enough], counts[enough].double())


def extract_crops(
    frames: Tensor,  # [T, 3, H, W]
    crops: Crops,
) -> Tensor:  # [N, 3, side, side]
    """Cut the crops out of the frames."""
    side = crops.side_px
    images = [frames[t, :, y : y + side, x : x + side] for t, y, x in crops.corners.tolist()]
    return torch.stack(images) if images else frames.new_zeros(0, frames.shape[1], side, side)
