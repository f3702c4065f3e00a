"""How well holes are painted: as sharp as the truth, as steady as the truth, and no outline to see."""

import cv2
import numpy as np
import torch
from torch import Tensor

from secondeye.metrics.masked_sums import Sum, sum_where

SEAM_RADIUS_PX = 1  # a wider ring would thin the outline's own step out


def gradient_energy(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    where: Tensor | None = None,  # bool [T, 1, H, W]: the pixels that count; None for all
) -> Sum:
    """Squared differences of neighbours, to the right and below, where both count; mean over R, G and B.

    Divide two means of it: 1 is as sharp, below is blurred, above is grainy. Ours.
    """
    total, count = 0.0, 0.0
    for axis in (-2, -1):
        both = None if where is None else _earlier(where, axis) & _later(where, axis)
        energy, pairs = sum_where(
            (_later(frames, axis) - _earlier(frames, axis)).square().mean(1, True), both
        )
        total, count = total + energy, count + pairs
    return total, count


def seam_energy(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    holes: Tensor,  # bool [T, 1, H, W]
    radius_px: int = SEAM_RADIUS_PX,
) -> Sum:
    """`gradient_energy` of the ring that lies this far to both sides of the holes' outlines. Ours."""
    return gradient_energy(frames, ring_of(holes, radius_px))


def ring_of(
    holes: Tensor,  # bool [T, 1, H, W]
    radius_px: int,
) -> Tensor:  # bool [T, 1, H, W]
    """Pixels that have both a hole and no hole at most this far away in x and y."""
    kernel = np.ones((2 * radius_px + 1,) * 2, np.uint8)
    rings = np.zeros(holes.shape, np.bool_)
    for ring, plane in zip(rings[:, 0], holes[:, 0].numpy().astype(np.uint8), strict=True):
        ring[:] = cv2.dilate(plane, kernel) > cv2.erode(plane, kernel)  # neither sees the frame's border
    return torch.from_numpy(rings)


def temporal_error(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    truth: Tensor,  # [T, 3, H, W] in [0, 1]
    where: Tensor,  # bool [T, 1, H, W]: the pixels that count
) -> Sum:
    """Squared difference of what changes and what should, from each frame to the next, where both count.

    A constant error costs nothing, flicker does. Mean over R, G and B. Ours.
    """
    error = frames - truth
    changed = (error[1:] - error[:-1]).square().mean(1, True)
    return sum_where(changed, where[1:] & where[:-1])


def _earlier(array: Tensor, axis: int) -> Tensor:
    return array.narrow(axis, 0, array.shape[axis] - 1)


def _later(array: Tensor, axis: int) -> Tensor:
    return array.narrow(axis, 1, array.shape[axis] - 1)
