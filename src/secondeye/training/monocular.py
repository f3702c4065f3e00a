"""Monocular films as training data.

They have no second view, so their frames serve as the right view: they are warped to the left view and back,
and what is lost on the way is the hole mask. M2SVid and DreamStereo make their pairs so, too; the warps and
the mask are ours.

Two kinds of edges open holes. A sharpened disparity jumps, and the warp cuts there. A disparity as estimated
has ramps, which a warp stretches; with a maximum gradient, what lies on a steeper ramp is a hole as well
(after the gradient-aware warping of DreamStereo, arXiv 2604.12270).
"""

import numpy as np
import torch
from torch import Tensor

from secondeye.depth import FAR_QUANTILE, NEAR_QUANTILE
from secondeye.depth.edges import sharpen, upsample
from secondeye.depth.motion import MotionEstimator
from secondeye.imaging.arrays import depth_to_disparity
from secondeye.inpaint import Conditioning
from secondeye.inpaint.fill import FillState, fill
from secondeye.training.stereo_shot import StereoShot, warp_shot
from secondeye.warp import warp

STRENGTH_PERCENT = (1.5, 5.0)  # of the width, disparity between the nearest and the farthest point
RUN_FRAMES = 8  # consecutive frames taken from a film, or as many as a sample has


def double_warp(
    frames: Tensor,  # [T, 3, H, W] in [0, 1], used as the right view
    disparity: Tensor,  # [T, 1, H, W] px, of these frames: x_left = x + disparity
    conditioning: Conditioning = "warp",
    max_gradient: float = 0.0,  # [0, 1] px per px, see `falls`; 0: only jumps open holes
) -> StereoShot:  # float32
    """Warp frames to the left view and back: what is lost is what a left view would not have shown (ours).

    The intermediate view, its own holes filled, becomes `left`. A constant disparity loses a strip at the
    border and changes nothing else. Raises ValueError for arrays that are not finite float32 of these shapes.
    """
    left, surface = left_view(frames, disparity)
    shot = warp_shot(left, frames, surface, conditioning)
    if not max_gradient:
        return shot
    kept = ~falls(disparity, max_gradient)
    lost = (plane * kept for plane in (shot.warped, shot.coverage, shot.disparity))
    return StereoShot(shot.left, shot.right, *lost)


def falls(
    disparity: Tensor,  # [T, 1, H, W] px, of the right view
    max_gradient: float,  # ]0, 1] px per px
) -> Tensor:  # bool [T, 1, H, W]
    """Mark ramps from a near to a far surface, along which the disparity falls by more than `max_gradient`.

    Column x of the right view is x + disparity in the left one. Where the disparity falls by g per px, the
    left view shows the surface 1 - g times as wide, and nothing of it from g = 1 on: the warp back stretches
    what is left. The ends of a ramp are not marked, nor is a jump between two pixels, where the warp cuts.
    """
    steep = disparity.diff(dim=-1) < -max_gradient
    marked = torch.zeros_like(disparity, dtype=torch.bool)
    marked[..., 1:-1] = steep[..., 1:] & steep[..., :-1]
    return marked


def left_view(
    frames: Tensor,  # [T, 3, H, W] in [0, 1], used as the right view
    disparity: Tensor,  # [T, 1, H, W] px, of these frames
) -> tuple[Tensor, Tensor]:  # [T, 3, H, W] in [0, 1]; [T, 1, H, W] px, of the left view
    """Warp frames to the left view and fill its holes; also return its disparity (ours)."""
    mirrored = warp(frames.flip(-1), disparity.flip(-1))  # to the left is mirrored to the right
    return fill_shot(*(plane.flip(-1) for plane in mirrored))


def fill_shot(
    frames: Tensor,  # [T, 3, H, W] warped view
    coverage: Tensor,  # [T, 1, H, W] in [0, 1]
    disparity: Tensor,  # [T, 1, H, W] px, of the warped view
) -> tuple[
    Tensor, Tensor
]:  # [T, 3, H, W] filled frames, [T, 1, H, W] px disparity, background's in the holes
    """Run `fill` over a shot; returns the filled frames and the disparity it assumed."""
    state: FillState | None = None
    filled, surfaces = [], []
    for t in range(len(frames)):
        now = slice(t, t + 1)
        frame, state = fill(frames[now], coverage[now], disparity[now], state)
        filled.append(frame)
        surfaces.append(state.disparity[None, None])
    return torch.cat(filled), torch.cat(surfaces)


def plausible_disparity(
    frames: Tensor,  # [T, 3, H, W] of one shot
    rng: np.random.Generator,
    *,
    sharp: bool,  # whether edges are sharpened
) -> Tensor:  # [T, 1, H, W] px
    """Estimate a disparity: weight-free depth with a random strength and convergence (ours)."""
    estimates = MotionEstimator()([frames])
    raw = torch.cat([estimate.depth for estimate in estimates])
    low, high = np.quantile(raw.numpy(), [FAR_QUANTILE, NEAR_QUANTILE])
    depth = ((raw - float(low)) / max(float(high - low), 1e-6)).clamp(0, 1)
    strength_percent, convergence = float(rng.uniform(*STRENGTH_PERCENT)), float(rng.uniform(0, 1))
    enlargement = frames.shape[-1] / depth.shape[-1]
    disparity = enlargement * depth_to_disparity(depth, strength_percent, convergence)
    return sharpen(disparity, frames) if sharp else upsample(disparity, frames)
