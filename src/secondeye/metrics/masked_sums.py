"""Sums over selected pixels. They are additive, so a film can be scored window by window."""

import numpy as np
from torch import Tensor

Sum = tuple[float, float]  # sum of the values, count


def sum_where(
    plane: Tensor,  # [T, 1, H, W]
    where: Tensor | None,  # bool [T, 1, H, W], None for all pixels
) -> Sum:
    """Sum the selected pixels in float64; bit-identical for any number of threads."""
    values = plane.numpy() if where is None else plane.numpy()[where.numpy()]
    return float(values.sum(dtype=np.float64)), float(values.size)
