"""How steady a film is: against its own motion, and in its colours."""

import numpy as np
import torch
from torch import Tensor

from secondeye.imaging.optical_flow import (
    backward_warp_frames,
    dense_flow_frames,
    forward_backward_error_frames,
)
from secondeye.metrics.masked_sums import Sum, sum_where

_RELIABLE_PX = 1.0  # how far a pixel that goes there and back may miss its start
_LEVELS = 255.0


def flows_of(
    frames: Tensor,  # [T, 3, H, W]
) -> tuple[Tensor, Tensor]:  # flow [T - 1, 2, H, W] px to the next frame, reliable bool [T - 1, 1, H, W]
    """How each frame moves to the next, and where the way back says the same."""
    flow = dense_flow_frames(frames[:-1], frames[1:])
    back = dense_flow_frames(frames[1:], frames[:-1])
    return flow, forward_backward_error_frames(flow, back) <= _RELIABLE_PX


def warping_error(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    flow: Tensor,  # [T - 1, 2, H, W] px, of `flows_of` this film or the true one
    reliable: Tensor,  # bool [T - 1, 1, H, W]
) -> Sum:
    """Squared difference of each frame and the next one pulled back along the flow (Lai et al., ECCV 2018).

    Over the reliable pixels, mean over R, G and B.
    """
    error = (frames[:-1] - backward_warp_frames(frames[1:], flow)).square().mean(1, True)
    return sum_where(error, reliable)


def colour_difference(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    other: Tensor,  # [T, 3, H, W] in [0, 1]
    where: Tensor | None = None,  # bool [T, 1, H, W]: the pixels that count; None for all
) -> Tensor:  # float64 [T, 3] levels of 255
    """Mean colour of each frame minus the other's; NaN where no pixel of a frame counts."""
    sums = [
        [sum_where(plane[None, None], None if where is None else where[t : t + 1]) for plane in error]
        for t, error in enumerate(frames - other)
    ]
    means = [[total / count if count else np.nan for total, count in row] for row in sums]
    return torch.tensor(means, dtype=torch.float64).reshape(-1, 3) * _LEVELS


def steps_of(
    difference: Tensor,  # [T, 3] levels, of `colour_difference`
) -> Tensor:  # [T - 1, 3] levels
    """How far colours jump from each frame to the next: the mean is flicker, the largest is the worst jump.

    What the film itself does is in both films alike and costs nothing. Ours.
    """
    return difference.diff(dim=0).abs()
