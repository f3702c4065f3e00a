"""Temporal stability: warping error along the optical flow, and flicker of mean colours."""

import numpy as np
import torch
from torch import Tensor

from secondeye.imaging.optical_flow import (
    backward_warp_frames,
    dense_flow_frames,
    forward_backward_error_frames,
)
from secondeye.metrics.masked_sums import Sum, sum_where

_RELIABLE_PX = 1.0  # largest forward-backward error
_LEVELS = 255.0


def flow_to_next(
    frames: Tensor,  # [T, 3, H, W]
) -> tuple[Tensor, Tensor]:  # flow [T - 1, 2, H, W] px, reliable bool [T - 1, 1, H, W]
    """Estimate the flow from each frame to the next; it is reliable where forward and backward flow agree."""
    flow = dense_flow_frames(frames[:-1], frames[1:])
    back = dense_flow_frames(frames[1:], frames[:-1])
    return flow, forward_backward_error_frames(flow, back) <= _RELIABLE_PX


def warping_error(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    flow: Tensor,  # [T - 1, 2, H, W] px, from `flow_to_next` of this film or of the ground truth
    reliable: Tensor,  # bool [T - 1, 1, H, W]
) -> Sum:
    """Sum the squared differences between each frame and the next one warped back (Lai et al., ECCV 2018).

    Over the reliable pixels, averaged over R, G and B.
    """
    error = (frames[:-1] - backward_warp_frames(frames[1:], flow)).square().mean(1, True)
    return sum_where(error, reliable)


def colour_difference(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    other: Tensor,  # [T, 3, H, W] in [0, 1]
    where: Tensor | None = None,  # bool [T, 1, H, W], None for all pixels
) -> Tensor:  # float64 [T, 3] levels of 255
    """Return the difference of the mean colours, frames - other; NaN for a frame without selected pixels."""
    sums = [
        [sum_where(plane[None, None], None if where is None else where[t : t + 1]) for plane in error]
        for t, error in enumerate(frames - other)
    ]
    means = [[total / count if count else np.nan for total, count in row] for row in sums]
    return torch.tensor(means, dtype=torch.float64).reshape(-1, 3) * _LEVELS


def colour_steps(
    difference: Tensor,  # [T, 3] levels, from `colour_difference`
) -> Tensor:  # [T - 1, 3] levels
    """Return the absolute frame-to-frame change of the colour difference.

    Its mean is flicker, its maximum the worst jump. Changes that both films share cancel out. Ours.
    """
    return difference.diff(dim=0).abs()
