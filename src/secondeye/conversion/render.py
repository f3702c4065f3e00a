"""Pass 2: render the right view of a shot from the left view and its depth, window by window.

Pixels that both views see stay 8-bit from decoder to encoder; floats exist only around holes.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import NamedTuple

import torch
from torch import Tensor

from secondeye.conversion.warped_window import warped_window
from secondeye.depth.edges import sharpen, upsample
from secondeye.imaging.arrays import depth_to_disparity, occlusion_mask
from secondeye.inpaint import Inpainter, InpainterState, Warped, conditioning_of


class LeftWindow(NamedTuple):
    """Consecutive frames of the left view and their depth."""

    frames: Tensor  # uint8 [T, H, W, 3]
    depth: Tensor  # [T, 1, h, w] in [0, 1]


class RenderedWindow(NamedTuple):
    """Consecutive frames of both views, and what the right one was made from."""

    left: Tensor  # uint8 [T, H, W, 3]
    right: Tensor  # uint8 [T, H, W, 3]
    disparity: Tensor  # [T, 1, H, W] px of the left view; on the device, like the occlusion
    occlusion: Tensor  # bool [T, 1, H, W] of the right view
    state: InpainterState  # after these frames


class _Pending(NamedTuple):
    """Frames that the inpainter has not returned yet; on the device, except the left view."""

    left: Tensor  # uint8 [T, H, W, 3]
    disparity: Tensor  # [T, 1, H, W] px of the left view
    occlusion: Tensor  # bool [T, 1, H, W] of the right view


Ahead = Callable[[Generator[tuple[_Pending, Warped]]], Generator[tuple[_Pending, Warped]]]


def render(
    windows: Iterable[LeftWindow],  # of one shot, in order
    inpainter: Inpainter,
    *,
    strength_percent: float,
    convergence: float,
    device: str,  # cpu or cuda
    state: InpainterState | None = None,  # after the frame before; None at the start of a shot
    ahead: Ahead = lambda windows: windows,  # may warp the next windows in another thread
) -> Generator[RenderedWindow]:
    """Upsample and sharpen the depth, convert it to disparity, warp the left view and inpaint the holes.

    Windows are yielded as the inpainter returns them; they may differ in length from those that were given.
    The left view and its small depth go to the device, and the right view comes back, once each.
    Raises UserError when a network returns NaN or infinite pixels.
    """
    pending: list[_Pending] = []

    def warp() -> Generator[tuple[_Pending, Warped]]:
        for frames, depth in windows:
            images = frames.to(device)
            small = depth_to_disparity(depth.to(device), strength_percent, convergence)
            disparity = upsample(small * (frames.shape[2] / depth.shape[-1]), images)
            disparity = sharpen(disparity, images)
            window = warped_window(images, disparity, conditioning_of(inpainter))
            yield _Pending(frames, disparity, occlusion_mask(window.coverage)), window

    def give(warped: Iterable[tuple[_Pending, Warped]]) -> Iterator[Warped]:
        for frames, window in warped:
            pending.append(frames)
            yield window

    with closing(ahead(warp())) as warped:
        for right, state_after in inpainter(give(warped), state):
            left, disparity, occlusion = _take(pending, len(right))
            yield RenderedWindow(left, right.cpu(), disparity, occlusion, state_after)


def _take(pending: list[_Pending], frames: int) -> _Pending:
    """Remove the first frames from the pending windows and return them as one."""
    if len(pending[0].left) == frames:
        return pending.pop(0)
    joined = _Pending(*(torch.cat(planes) for planes in zip(*pending, strict=True)))
    rest = _Pending(*(plane[frames:] for plane in joined))
    pending[:] = [rest] if len(rest.left) else []
    return _Pending(*(plane[:frames] for plane in joined))
