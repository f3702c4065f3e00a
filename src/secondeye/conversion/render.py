"""Pass 2: a window of left pictures and their depth become right pictures.

What both eyes see goes from the decoder to the encoder in bytes, moved once; only what is painted is floats.
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
    right: Tensor  # uint8 [T, H, W, 3]
    disparity: Tensor  # [T, 1, H, W] px of the left eye
    occlusion: Tensor  # bool [T, 1, H, W] of the right eye
    state: Any  # for the next window of the shot


def render(
    pictures: Tensor,  # uint8 [T, H, W, 3], of the left eye
    depth: Tensor,  # [T, 1, h, w] in [0, 1]
    inpainter: Inpainter,
    *,
    strength_percent: float,
    convergence: float,
    state: Any,  # what the window before left; None at the start of a shot
) -> RenderedWindow:
    """Depth to disparity, sharpened at edges; warp; paint what is open.

    Raises Refusal where what was painted is no numbers.
    """
    left = frames_from_uint8(pictures)
    disparity = sharpen(depth_to_disparity(upsample(depth, left), strength_percent, convergence), left)
    view, coverage, own_disparity = warp(pictures, disparity)
    painted, state = inpainter(Warped(left, frames_from_uint8(view), coverage, own_disparity), state)
    if not bool(painted.isfinite().all()):
        raise UserError("the model paints pixels that are not numbers: its weights are broken; name another")
    seen = (coverage == 1).permute(0, 2, 3, 1)
    right = torch.where(seen, view, frames_to_uint8(painted))
    return RenderedWindow(right, disparity, occlusion_mask(coverage), state)
