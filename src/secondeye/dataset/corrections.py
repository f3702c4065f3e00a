"""Apply the corrections that the stage `shift` found, as `Dataset.views` does.

Offsets are whole pixels: resampling would blur the images that models learn from. Only views that are not
rectified are resampled, once.
"""

import torch
from torch import Tensor

from secondeye.dataset.schema import Correction
from secondeye.imaging.rectification import Rectification, rectify


def apply_corrections(
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
    correction: Correction,
) -> tuple[Tensor, Tensor]:  # left, right [T, 3, H - |vertical_px|, W - |shift_px|], less if rectified
    """Apply a clip's corrections: rectification, view order, then colours, rows and columns of the right."""
    if rectification := rectification_of(correction):
        left, right = rectify(left, right, rectification)
    if correction.swapped:
        left, right = right, left
    gain = correction.red_gain, correction.green_gain, correction.blue_gain
    offset = correction.red_offset, correction.green_offset, correction.blue_offset
    left, right = apply_vertical(left, apply_colours(right, gain, offset), correction.vertical_px)
    return apply_shift(left, right, correction.shift_px)


def rectification_of(correction: Correction) -> Rectification | None:
    """Return the rectification of the stored views; None if they need none."""
    if not correction.rectify_focal_widths:
        return None
    return Rectification(*(getattr(correction, f"rectify_{name}") for name in Rectification._fields))


def apply_colours(
    right: Tensor,  # [T, 3, H, W]
    gain: tuple[float, float, float],  # red, green, blue
    offset: tuple[float, float, float],  # for values in [0, 1]
) -> Tensor:  # [T, 3, H, W]
    """Return gain * right + offset per channel, clamped to [0, 1]; `right` itself for gain 1, offset 0."""
    if gain == (1, 1, 1) and offset == (0, 0, 0):
        return right
    gains, offsets = (torch.tensor(values, dtype=right.dtype).view(3, 1, 1) for values in (gain, offset))
    return (right * gains + offsets).clamp(0, 1)


def apply_vertical(
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
    vertical_px: int,  # the right view moves this far down
) -> tuple[Tensor, Tensor]:  # [T, 3, H - |vertical_px|, W] each
    """Move the right view vertically and crop both views to their common rows."""
    height = left.shape[-2]
    if vertical_px >= 0:
        return left[..., vertical_px:, :], right[..., : height - vertical_px, :]
    return left[..., : height + vertical_px, :], right[..., -vertical_px:, :]


def apply_shift(
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
    shift_px: int,  # the right view moves this far to the right; every disparity decreases by it
) -> tuple[Tensor, Tensor]:  # [T, 3, H, W - |shift_px|] each
    """Move the right view horizontally and crop both views to their common columns."""
    width = left.shape[-1]
    if shift_px >= 0:
        return left[..., shift_px:], right[..., : width - shift_px]
    return left[..., : width + shift_px], right[..., -shift_px:]
