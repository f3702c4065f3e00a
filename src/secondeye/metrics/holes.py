"""Metrics of inpainted holes: sharpness and flicker relative to the ground truth, and visible seams."""

import cv2
import numpy as np
import torch
from torch import Tensor

from secondeye.metrics.masked_sums import Sum, sum_where

SEAM_RADIUS_PX = 1  # a wider band would dilute the step at the boundary


def gradient_energy(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    where: Tensor | None = None,  # bool [T, 1, H, W], None for all pixels
) -> Sum:
    """Sum the squared differences between horizontal and vertical neighbours, averaged over R, G and B.

    A difference counts where both pixels are selected. The ratio of two means compares sharpness: below 1 is
    blurrier, above 1 is grainier. Ours.
    """
    total, count = 0.0, 0.0
    for axis in (-2, -1):
        both = None if where is None else _without_last(where, axis) & _without_first(where, axis)
        energy, pairs = sum_where(
            (_without_first(frames, axis) - _without_last(frames, axis)).square().mean(1, True), both
        )
        total, count = total + energy, count + pairs
    return total, count


def seam_energy(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    holes: Tensor,  # bool [T, 1, H, W]
    radius_px: int = SEAM_RADIUS_PX,
) -> Sum:
    """Return the `gradient_energy` of a band around the boundaries of holes. Ours."""
    return gradient_energy(frames, hole_boundary(holes, radius_px))


def hole_boundary(
    holes: Tensor,  # bool [T, 1, H, W]
    radius_px: int,
) -> Tensor:  # bool [T, 1, H, W]
    """Mark pixels with both hole and non-hole pixels within `radius_px` in x and y."""
    kernel = np.ones((2 * radius_px + 1,) * 2, np.uint8)
    bands = np.zeros(holes.shape, np.bool_)
    for band, plane in zip(bands[:, 0], holes[:, 0].numpy().astype(np.uint8), strict=True):
        band[:] = cv2.dilate(plane, kernel) > cv2.erode(plane, kernel)  # frame borders are ignored
    return torch.from_numpy(bands)


def temporal_error(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    truth: Tensor,  # [T, 3, H, W] in [0, 1]
    where: Tensor,  # bool [T, 1, H, W]: pixels to compare
) -> Sum:
    """Sum the squared differences between predicted and true frame-to-frame change, averaged over R, G and B.

    Only pixels that are selected in both frames count. A constant error adds nothing, flicker does. Ours.
    """
    error = frames - truth
    changed = (error[1:] - error[:-1]).square().mean(1, True)
    return sum_where(changed, where[1:] & where[:-1])


def _without_last(array: Tensor, axis: int) -> Tensor:
    return array.narrow(axis, 0, array.shape[axis] - 1)


def _without_first(array: Tensor, axis: int) -> Tensor:
    return array.narrow(axis, 1, array.shape[axis] - 1)
