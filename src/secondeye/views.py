"""Both eyes of a clip, with every correction that the dataset found applied. Nothing else applies them."""

from pathlib import Path

from torch import Tensor

from secondeye.clips import clip_file, read_frames
from secondeye.rows import Shifted


def load_raw(
    split: Path,  # folder of the split stage
    clip: str,
) -> tuple[Tensor, Tensor]:  # left, right [T, 3, H, W]
    """Both eyes as they were cut from the film."""
    return read_frames(clip_file(split, clip, "left")), read_frames(clip_file(split, clip, "right"))


def load(
    split: Path,  # folder of the split stage
    shifted: Shifted,
) -> tuple[Tensor, Tensor]:  # left, right [T, 3, H, W - |shift_px|]
    """Both eyes after the shift, cropped to the columns both have."""
    left, right = load_raw(split, shifted.id)
    return apply_shift(left, right, shifted.shift_px)


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
