"""Sums over the chosen pixels of some frames: they add, so that a film can be scored window by window."""

import numpy as np
from torch import Tensor

Sum = tuple[float, float]  # of values, and how many


def sum_where(
    plane: Tensor,  # [T, 1, H, W]
    where: Tensor | None,  # bool [T, 1, H, W]: the pixels that count; None for all
) -> Sum:
    """The sum in float64, the same to the bit for any number of threads."""
    values = plane.numpy() if where is None else plane.numpy()[where.numpy()]
    return float(values.sum(dtype=np.float64)), float(values.size)
