"""The smallest stereo video: a card in front of a plane, both at whole-pixel disparity; checkable by hand."""

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
    """Render a card, `card_px` wide and half the frame high, in front of a plane that fills the frame.

    In the left view the card's first column is (width - card_px) // 2 + step_px * frame. There is no blur and
    no noise: right[..., x - disparity] equals left[..., x] exactly wherever both views see the point. Raises
    ValueError unless near_px > far_px >= 0 and the card stays inside both views.
    """
    starts = [(width - card_px) // 2 + step_px * t for t in range(frames)]
    inside = all(near_px <= start <= width - card_px for start in starts)
    if not near_px > far_px >= 0 or frames < 1 or card_px < 1 or not inside:
        raise ValueError(f"card starts at {starts} px of {width}, disparities are {near_px} and {far_px} px")
    generator = torch.Generator().manual_seed(seed)
    far = torch.rand(3, height, width + far_px, generator=generator)
    near = torch.rand(3, height - height // 2, card_px, generator=generator)
    frame_arrays = [_render_frame(far, near, start, near_px, far_px) for start in starts]
    return Shot(*(torch.stack(column) for column in zip(*frame_arrays, strict=True)))


def _render_frame(far: Tensor, near: Tensor, start: int, near_px: int, far_px: int) -> list[Tensor]:
    width = far.shape[-1] - far_px
    left, left_disparity = _render_view(far[..., :width], near, start, near_px, far_px)
    right, right_disparity = _render_view(far[..., far_px:], near, start - near_px, near_px, far_px)
    column = torch.arange(width)
    left_hidden = _is_occluded(left_disparity, right_disparity, column - left_disparity.long())
    right_hidden = _is_occluded(right_disparity, left_disparity, column + right_disparity.long())
    return [left, right, left_disparity, right_disparity, left_hidden, right_hidden]


def _render_view(far: Tensor, near: Tensor, start: int, near_px: int, far_px: int) -> tuple[Tensor, Tensor]:
    """Return image [3, H, W] and disparity [1, H, W] of one view."""
    top = far.shape[1] // 4
    rows, columns = slice(top, top + near.shape[1]), slice(start, start + near.shape[2])
    image, disparity = far.clone(), torch.full((1, *far.shape[1:]), float(far_px))
    image[:, rows, columns] = near
    disparity[:, rows, columns] = near_px
    return image, disparity


def _is_occluded(own: Tensor, other: Tensor, position: Tensor) -> Tensor:
    """Mark pixels whose position in the other view is out of frame or covered by something nearer."""
    outside = (position < 0) | (position >= own.shape[-1])
    return outside | (other.gather(-1, position.clamp(0, own.shape[-1] - 1)) > own)
