"""Both eyes of a clip, with every correction that the dataset found applied. Nothing else applies them.

Whole pixels only: a picture that is resampled to be straight is a softer one to learn from.
"""

from pathlib import Path

import torch
from torch import Tensor

from secondeye.dataset.clip_files import clip_file, read_frames
from secondeye.dataset.schema import Correction


def load_raw_views(
    split: Path,  # folder of the split stage
    clip: str,
) -> tuple[Tensor, Tensor]:  # left, right [T, 3, H, W]
    """Both eyes as they were cut from the film."""
    return read_frames(clip_file(split, clip, "left")), read_frames(clip_file(split, clip, "right"))


def load_views(
    split: Path,  # folder of the split stage
    shifted: Correction,
) -> tuple[Tensor, Tensor]:  # left, right [T, 3, H - |vertical_px|, W - |shift_px|]
    """Both eyes after the corrections, cropped to what both have."""
    return apply_corrections(*load_raw_views(split, shifted.id), shifted)


def apply_corrections(
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
    shifted: Correction,
) -> tuple[Tensor, Tensor]:  # left, right [T, 3, H - |vertical_px|, W - |shift_px|]
    """Apply a clip's corrections: eyes, then the right one's colours, rows and columns."""
    if shifted.swapped:
        left, right = right, left
    gain = shifted.red_gain, shifted.green_gain, shifted.blue_gain
    offset = shifted.red_offset, shifted.green_offset, shifted.blue_offset
    left, right = apply_vertical(left, apply_colours(right, gain, offset), shifted.vertical_px)
    return apply_shift(left, right, shifted.shift_px)


def apply_colours(
    right: Tensor,  # [T, 3, H, W]
    gain: tuple[float, float, float],
    offset: tuple[float, float, float],
) -> Tensor:  # [T, 3, H, W]
    """Each channel times its gain plus its offset, cut to [0, 1]; the very same tensor for 1 and 0."""
    if gain == (1, 1, 1) and offset == (0, 0, 0):
        return right
    by, plus = (torch.tensor(values, dtype=right.dtype).view(3, 1, 1) for values in (gain, offset))
    return (right * by + plus).clamp(0, 1)


def apply_vertical(
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
    vertical_px: int,  # the right view moves this far down
) -> tuple[Tensor, Tensor]:  # [T, 3, H - |vertical_px|, W] each
    """Move the right view against the left and keep the rows that both have."""
    height = left.shape[-2]
    if vertical_px >= 0:
        return left[..., vertical_px:, :], right[..., : height - vertical_px, :]
    return left[..., : height + vertical_px, :], right[..., -vertical_px:, :]


def apply_shift(
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
    shift_px: int,  # the right view moves this far to the right; every disparity falls by it
) -> tuple[Tensor, Tensor]:  # [T, 3, H, W - |shift_px|] each
    """Move the right view against the left and keep the columns that both have."""
    width = left.shape[-1]
    if shift_px >= 0:
        return left[..., shift_px:], right[..., : width - shift_px]
    return left[..., : width + shift_px], right[..., -shift_px:]
