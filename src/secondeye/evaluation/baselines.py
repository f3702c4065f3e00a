"""Trivial baselines: constant shifts of the left view, and classical hole filling."""

from collections.abc import Callable, Iterable, Iterator

import cv2
import torch
from torch import Tensor

from secondeye.imaging.arrays import frames_from_uint8, frames_to_uint8, occlusion_mask
from secondeye.inpaint import Inpainted, Inpainter, InpainterState, Warped

_MAX_SHIFT_PERCENT = 10.0  # of the width, in both directions
_FRAME_STEP = 4  # the best shift is chosen on every fourth frame
_OPENCV_RADIUS_PX = 3  # the radius commonly used with OpenCV's inpainting


def best_shift(left: Tensor, right: Tensor) -> Tensor:
    """Shift the left view by the constant number of pixels closest to the true right view (an oracle)."""
    reach = round(_MAX_SHIFT_PERCENT / 100 * left.shape[-1])
    source, target = left[::_FRAME_STEP], right[::_FRAME_STEP]
    errors = {
        shift: float(((shift_left(source, shift) - target) ** 2).mean()) for shift in range(-reach, reach + 1)
    }
    return shift_left(left, min(errors, key=lambda shift: (errors[shift], abs(shift))))


def shift_left(frames: Tensor, shift_px: int) -> Tensor:
    """Move frames to the left and repeat the border's pixels."""
    columns = (torch.arange(frames.shape[-1]) + shift_px).clamp(0, frames.shape[-1] - 1)
    return frames[..., columns]


def as_inpainter(fill: Callable[[Warped], Tensor]) -> Inpainter:
    """Return an Inpainter that fills every window alone, without a state."""

    def inpaint(windows: Iterable[Warped], state: InpainterState | None = None) -> Iterator[Inpainted]:
        for warped in windows:
            yield Inpainted(fill(warped.to("cpu")).to(warped.frames.device), {})

    return inpaint


def fill_nearest(warped: Warped) -> Tensor:  # [T, 3, H, W]
    """Fill each hole pixel with the nearest covered pixel of its row."""
    width = warped.frames.shape[-1]
    column = torch.arange(width).expand(warped.coverage.shape)
    covered = warped.coverage > 0
    before = torch.where(covered, column, -(10**6)).cummax(-1).values
    after = torch.where(covered, column, 10**6).flip(-1).cummin(-1).values.flip(-1)
    source = torch.where(column - before <= after - column, before, after).clamp(0, width - 1)
    return warped.frames.gather(-1, source.expand_as(warped.frames))


def fill_opencv(method: int, warped: Warped) -> Tensor:  # [T, 3, H, W]
    """Fill holes with OpenCV: cv2.INPAINT_TELEA (Telea 2004) or cv2.INPAINT_NS (Bertalmio et al. 2001)."""
    images = frames_to_uint8(warped.frames).numpy()
    holes = occlusion_mask(warped.coverage)[:, 0].byte().numpy()
    filled = [
        cv2.inpaint(image, hole, _OPENCV_RADIUS_PX, method) for image, hole in zip(images, holes, strict=True)
    ]
    frames = frames_from_uint8(torch.stack([torch.from_numpy(image) for image in filled]))
    return warped.coverage * warped.frames + (1 - warped.coverage) * frames
