"""The smallest stereo film: one card before another, both at whole pixels of disparity. Checked by hand."""

import torch
from torch import Tensor

from secondeye.synthetic.shot import Shot


def two_planes(
    frames: int = 2,
    height: int = 24,
    width: int = 64,
    *,
    near_px: int = 8,
    far_px: int = 2,
    card_px: int = 16,
    step_px: int = 0,
    seed: int = 0,
) -> Shot:
    """A card `card_px` wide, as tall as the middle half of the frame, before a card that fills it.

    In the left view the near card's first column is (width - card_px) // 2 + step_px * frame. No blur, no
    noise: right[..., x - disparity] equals left[..., x] to the bit wherever both eyes see it.
    Raises ValueError unless near_px > far_px >= 0 and the card stays in both views.
    """
    starts = [(width - card_px) // 2 + step_px * t for t in range(frames)]
    inside = all(near_px <= start <= width - card_px for start in starts)
    if not near_px > far_px >= 0 or frames < 1 or card_px < 1 or not inside:
        raise ValueError(f"the card starts at {starts} px, of {width}, disparities {near_px} and {far_px}")
    paint = torch.Generator().manual_seed(seed)
    far = torch.rand(3, height, width + far_px, generator=paint)
    near = torch.rand(3, height - height // 2, card_px, generator=paint)
    shown = [_moment(far, near, start, near_px, far_px) for start in starts]
    return Shot(*(torch.stack(column) for column in zip(*shown, strict=True)))


def _moment(far: Tensor, near: Tensor, start: int, near_px: int, far_px: int) -> list[Tensor]:
    width = far.shape[-1] - far_px
    left, left_disparity = _view(far[..., :width], near, start, near_px, far_px)
    right, right_disparity = _view(far[..., far_px:], near, start - near_px, near_px, far_px)
    column = torch.arange(width)
    left_hidden = _hidden(left_disparity, right_disparity, column - left_disparity.long())
    right_hidden = _hidden(right_disparity, left_disparity, column + right_disparity.long())
    return [left, right, left_disparity, right_disparity, left_hidden, right_hidden]


def _view(far: Tensor, near: Tensor, start: int, near_px: int, far_px: int) -> tuple[Tensor, Tensor]:
    """Picture [3, H, W] and disparity [1, H, W] of one eye."""
    top = far.shape[1] // 4
    rows, columns = slice(top, top + near.shape[1]), slice(start, start + near.shape[2])
    picture, disparity = far.clone(), torch.full((1, *far.shape[1:]), float(far_px))
    picture[:, rows, columns] = near
    disparity[:, rows, columns] = near_px
    return picture, disparity


def _hidden(own: Tensor, other: Tensor, there: Tensor) -> Tensor:
    """Where a pixel's place in the other view is out of frame or shows something nearer."""
    outside = (there < 0) | (there >= own.shape[-1])
    return outside | (other.gather(-1, there.clamp(0, own.shape[-1] - 1)) > own)
