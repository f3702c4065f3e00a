"""The shifts that Deep3D chooses from, and its selection layer: a weighted sum of shifted left views."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Shifts:
    """Evenly spaced disparities in whole pixels of the network's width: first, first + step, ..."""

    first: int
    step: int
    count: int

    @property
    def px(self) -> list[float]:
        """The shifts in px of the network's width."""
        return [float(self.first + self.step * k) for k in range(self.count)]


def choose_shifts(
    far_px: float,  # the smallest disparity to cover, px of the network's width
    near_px: float,  # the largest
    max_count: int,  # at least 2
) -> Shifts:
    """Return shifts that cover a range of disparities with the smallest whole step (bound on count: ours)."""
    first, last = math.floor(far_px), math.ceil(near_px)
    step = max(1, math.ceil((last - first) / (max_count - 1)))
    return Shifts(first, step, math.ceil((last - first) / step) + 1)


def select(
    left: Tensor,  # [B, 3, H, W] in [0, 1]
    probabilities: Tensor,  # [B, S, h, w], of each shift in the right view; of any size
    shifts_px: Sequence[float],  # S disparities in px of W
) -> Tensor:  # [B, 3, H, W]
    """Return the right view: the sum over shifts of probability times shifted left view (section 3 there).

    Probabilities are upsampled to the size of the left view, which stays sharp. One shift at a time: memory
    does not grow with their number.
    """
    assert probabilities.shape[:2] == (len(left), len(shifts_px)), list(probabilities.shape)
    right = torch.zeros_like(left)
    for index, shift_px in enumerate(shifts_px):
        chosen = probabilities[:, index : index + 1]
        weight = F.interpolate(chosen, left.shape[-2:], mode="bilinear", align_corners=False)
        right = right + weight * shift_view(left, shift_px)
    return right


def shift_view(
    left: Tensor,  # [..., W]
    shift_px: float,
) -> Tensor:  # [..., W]
    """Move a view to the left by a disparity, linearly between pixels; columns of the border repeat."""
    whole = math.floor(shift_px)
    columns = torch.arange(left.shape[-1], device=left.device) + whole
    last = left.shape[-1] - 1
    moved = left[..., columns.clamp(0, last)]
    fraction = shift_px - whole
    return moved if not fraction else torch.lerp(moved, left[..., (columns + 1).clamp(0, last)], fraction)


def expected_shift(
    probabilities: Tensor,  # [B, S, h, w]
    shifts_px: Sequence[float],
) -> Tensor:  # [B, 1, h, w] px
    """Return the mean of the shifts under their probabilities."""
    values = torch.tensor(shifts_px, dtype=probabilities.dtype, device=probabilities.device)
    return torch.einsum("bshw,s->bhw", probabilities, values)[:, None]
