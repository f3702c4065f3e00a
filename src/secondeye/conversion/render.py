"""Pass 2: render the right view of a shot from the left view and its depth, window by window.

Pixels that both views see stay 8-bit from decoder to encoder; floats exist only around holes.
"""

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import NamedTuple

import torch
from torch import Tensor

from secondeye.conversion.picture import Picture
from secondeye.conversion.warped_window import warped_window
from secondeye.depth.edges import sharpen
from secondeye.imaging.arrays import depth_to_disparity, occlusion_mask
from secondeye.inpaint import Inpainter, InpainterState, Warped, conditioning_of
from secondeye.warp import warp

# Where numba finds no OpenMP, it aborts the process if two parallel kernels run at the same time.
_KERNELS = threading.Lock()


class LeftWindow(NamedTuple):
    """Consecutive frames of the left view and their depth."""

    frames: Tensor  # uint8 [T, H, W, 3]
    depth: Tensor  # [T, 1, h, w] in [0, 1], of the picture inside the letterbox


class RenderedWindow(NamedTuple):
    """Consecutive frames of both views, and what the right one was made from."""

    left: Tensor  # uint8 [T, H, W, 3]
    disparity: Tensor  # [T, 1, h, w] px of the left view, of the picture, as estimated; on the device
    right: Tensor  # uint8 [T, H, W, 3]
    state: InpainterState  # after these frames
    picture: Picture

    def warp_again(self, frame: int) -> tuple[Tensor, Tensor]:
        """Return the disparity of a frame, [1, H, W] px of the left view, and the right view's occlusion.

        They are computed again, since keeping those of every frame would take memory.
        """
        one = slice(frame, frame + 1)
        images = self.picture.take(self.left[one]).to(self.disparity.device)
        with _KERNELS:
            disparity = sharpen(self.disparity[one], images)
            occlusion = occlusion_mask(warp(images, disparity).coverage)
        return self.picture.pad(disparity[0]), self.picture.pad(occlusion[0])


class _Pending(NamedTuple):
    """Frames that the inpainter has not returned yet."""

    left: Tensor  # uint8 [T, H, W, 3]
    disparity: Tensor  # [T, 1, h, w] px of the left view, of the picture, as estimated; on the device


_Windows = Generator[tuple[_Pending, Warped]]


def in_turn(windows: _Windows) -> _Windows:
    """Compute each window when it is asked for."""
    return windows


def render(
    windows: Iterable[LeftWindow],  # of one shot, in order
    inpainter: Inpainter,
    *,
    picture: Picture,
    strength_percent: float,
    convergence: float,
    device: str,  # cpu or cuda
    state: InpainterState | None = None,  # after the frame before; None at the start of a shot
    ahead: Callable[[_Windows], _Windows] = in_turn,  # may warp the next window in another thread
) -> Generator[RenderedWindow]:
    """Convert the depth to disparity, enlarge and sharpen it, warp the left view and inpaint the holes.

    The picture inside the letterbox is rendered as if it were the whole frame, text and logos are laid over.
    Windows are yielded as the inpainter returns them; they may differ in length from those that were given.
    The left view and its small depth go to the device, and the right view comes back, once each.
    Raises UserError when a network returns NaN or infinite pixels.
    """
    pending: list[_Pending] = []

    def warp_windows() -> _Windows:
        for frames, depth in windows:
            images = picture.take(frames).to(device)
            small = depth_to_disparity(depth.to(device), strength_percent, convergence)
            small = picture.hold_back(small * (images.shape[2] / depth.shape[-1]))
            with _KERNELS:
                window = warped_window(images, sharpen(small, images), conditioning_of(inpainter))
            yield _Pending(frames, small), window

    def give(warped: Iterable[tuple[_Pending, Warped]]) -> Iterator[Warped]:
        for frames, window in warped:
            pending.append(frames)
            yield window

    with closing(ahead(warp_windows())) as warped:
        for right, state_after in inpainter(give(warped), state):
            taken = _take(pending, len(right))
            yield RenderedWindow(*taken, picture.put(right.cpu(), taken.left), state_after, picture)
            del taken, right, state_after  # or they would be kept while the next window is inpainted


def _take(pending: list[_Pending], frames: int) -> _Pending:
    """Remove the first frames from the pending windows and return them as one."""
    taken: list[_Pending] = []
    while frames:
        window = pending.pop(0)
        if len(window.left) > frames:
            pending.insert(0, _Pending(*(plane[frames:] for plane in window)))
        taken.append(_Pending(*(plane[:frames] for plane in window)))
        frames -= len(taken[-1].left)
    return taken[0] if len(taken) == 1 else _Pending(*map(torch.cat, zip(*taken, strict=True)))
