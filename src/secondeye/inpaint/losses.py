"""How far a painted picture is from the truth, where it was painted."""

import torch.nn.functional as F
from torch import Tensor

GRADIENT_WEIGHT = 0.5  # beside 1 of the colours
SCALES = (2, 4)  # px averaged together: what is right on the whole counts though its details lie elsewhere
SCALE_WEIGHT = 0.5  # of each scale
SMALLEST_AREA = 1.0  # px: a batch without holes has no loss


def painting_loss(
    painted: Tensor,  # [B, 3, H, W]
    truth: Tensor,  # [B, 3, H, W]
    open_: Tensor,  # [B, 1, H, W] in [0, 1]: how much of a pixel was painted
) -> tuple[Tensor, dict[str, Tensor]]:  # to minimise, its parts
    """L1 of colours, of gradients and of coarser pictures, each averaged over what was open (ours)."""
    parts = {
        "colour": open_l1(painted - truth, open_),
        "gradient": _gradient_l1(painted - truth, open_),
        "coarse": sum(
            (open_l1(_average(painted - truth, scale), _average(open_, scale)) for scale in SCALES),
            start=painted.new_zeros(()),
        ),
    }
    value = parts["colour"] + GRADIENT_WEIGHT * parts["gradient"] + SCALE_WEIGHT * parts["coarse"]
    return value, parts


def open_l1(
    error: Tensor,  # [B, C, H, W]
    weight: Tensor,  # [B, 1, H, W] in [0, 1]
) -> Tensor:  # []
    """Mean size of the error over the weighted pixels of the batch."""
    return (error.abs() * weight).sum() / (weight.sum() * error.shape[1]).clamp(min=SMALLEST_AREA)


def _gradient_l1(error: Tensor, open_: Tensor) -> Tensor:
    """Differences of neighbours, where at least one of the two was painted: edges and texture."""
    total = error.new_zeros(())
    for axis in (-1, -2):
        size = error.shape[axis] - 1
        here, there = (open_.narrow(axis, start, size) for start in (0, 1))
        total = total + open_l1(error.diff(dim=axis), here.maximum(there))
    return total


def _average(plane: Tensor, scale: int) -> Tensor:
    return F.avg_pool2d(plane, scale, ceil_mode=True)
