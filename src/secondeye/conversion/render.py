"""Pass 2: render the right view of a window of frames from the left view and its depth.

Pixels that both views see stay 8-bit from decoder to encoder; only inpainted pixels pass through floats.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from secondeye.depth.edges import sharpen, upsample
from secondeye.imaging.arrays import (
    depth_to_disparity,
    frames_from_uint8,
    frames_to_uint8,
    occlusion_mask,
)
from secondeye.inpaint import Inpainter, Warped
from secondeye.system.errors import UserError
from secondeye.warp import warp


class RenderedWindow(NamedTuple):
    """The right view of consecutive frames, and what it was made from."""

    right: Tensor  # uint8 [T, H, W, 3]
    disparity: Tensor  # [T, 1, H, W] px of the left view
    occlusion: Tensor  # bool [T, 1, H, W] of the right view
    state: Any  # the inpainter's, for the next window of the shot


def render(
    pictures: Tensor,  # uint8 [T, H, W, 3], left view
    depth: Tensor,  # [T, 1, h, w] in [0, 1]
    inpainter: Inpainter,
    *,
    strength_percent: float,
    convergence: float,
    state: Any,  # from the previous window; None at the start of a shot
) -> RenderedWindow:
    """Upsample and sharpen the depth, convert it to disparity, warp the left view and inpaint the holes.

    Raises UserError when the inpainter returns NaN or infinite pixels.
    """
    left = frames_from_uint8(pictures)
    disparity = sharpen(depth_to_disparity(upsample(depth, left), strength_percent, convergence), left)
    view, coverage, view_disparity = warp(pictures, disparity)
    inpainted, state = inpainter(Warped(left, frames_from_uint8(view), coverage, view_disparity), state)
    if not bool(inpainted.isfinite().all()):
        raise UserError("the model returns NaN or infinite pixels: its weights are damaged; use another")
    covered = (coverage == 1).permute(0, 2, 3, 1)
    right = torch.where(covered, view, frames_to_uint8(inpainted))
    return RenderedWindow(right, disparity, occlusion_mask(coverage), state)
