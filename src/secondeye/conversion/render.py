"""Pass 2: render the views of a shot from the source and its depth, window by window.

Pixels that the source sees, too, stay 8-bit from decoder to encoder; floats exist only around holes.
"""

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from typing import NamedTuple

import torch
from torch import Tensor

from secondeye.conversion.picture import Picture
from secondeye.conversion.views import View, views_to_make
from secondeye.conversion.warped_window import warped_window
from secondeye.depth.edges import sharpen
from secondeye.imaging.arrays import depth_to_disparity, occlusion_mask
from secondeye.inpaint import Inpainted, Inpainter, InpainterState, Warped, conditioning_of
from secondeye.system.threads import tee
from secondeye.warp import warp

# Where numba finds no OpenMP, it aborts the process if two parallel kernels run at the same time.
_KERNELS = threading.Lock()


class SourceWindow(NamedTuple):
    """Consecutive frames of the source and their depth."""

    frames: Tensor  # uint8 [T, H, W, 3]
    depth: Tensor  # [T, 1, h, w] in [0, 1], of the picture inside the letterbox


class RenderedWindow(NamedTuple):
    """Consecutive frames of both views, and what they were made from."""

    left: Tensor  # uint8 [T, H, W, 3]; the source itself, unless both views are synthesised
    disparity: Tensor  # [T, 1, h, w] px between the views, of the picture, as estimated; on the device
    right: Tensor  # uint8 [T, H, W, 3]
    state: InpainterState  # after these frames, of the views that are synthesised
    picture: Picture
    source: Tensor  # uint8 [T, H, W, 3]
    view: View  # the right one

    def warp_again(self, frame: int) -> tuple[Tensor, Tensor]:
        """Return the disparity of a frame, [1, H, W] px of the source, and the right view's occlusion.

        They are computed again, since keeping those of every frame would take memory.
        """
        one = slice(frame, frame + 1)
        images = self.picture.take(self.source[one]).to(self.disparity.device)
        with _KERNELS:
            disparity = sharpen(self.disparity[one], images)
            occlusion = occlusion_mask(warp(images, self.view.share * disparity).coverage)
        return self.picture.pad(disparity[0]), self.picture.pad(occlusion[0])


class _Prepared(NamedTuple):
    """A window of the source, ready to be warped to each view."""

    images: Tensor  # uint8 [T, h, w, 3], the picture; on the device
    disparity: Tensor  # [T, 1, h, w] px between the views, sharpened
    pending: "_Pending"


class _Pending(NamedTuple):
    """Frames that the inpainter has not returned yet."""

    source: Tensor  # uint8 [T, H, W, 3]
    disparity: Tensor  # [T, 1, h, w] px between the views, of the picture, as estimated; on the device


_Windows = Generator[tuple[_Pending, Warped]]


def in_turn(windows: _Windows) -> _Windows:
    """Compute each window when it is asked for."""
    return windows


def render(
    windows: Iterable[SourceWindow],  # of one shot, in order
    inpainter: Inpainter,
    *,
    picture: Picture,
    strength_percent: float,
    convergence: float,
    device: str,  # cpu or cuda
    views: str = "right",  # one of VIEWS
    holds_borders: bool = False,  # nothing is in front of the screen at the left and right border
    state: InpainterState | None = None,  # after the frame before; None at the start of a shot
    ahead: Callable[[_Windows], _Windows] = in_turn,  # may warp the next window in another thread
) -> Generator[RenderedWindow]:
    """Convert the depth to disparity, enlarge and sharpen it, warp the source and inpaint the holes.

    The picture inside the letterbox is rendered as if it were the whole frame, text and logos are laid over.
    Windows are yielded as the inpainter returns them; they may differ in length from those that were given.
    The source and its small depth go to the device once, and each view that is synthesised comes back once.
    Of two views, each is inpainted window by window, in turn. Raises UserError when a network returns NaN or
    infinite pixels.
    """
    made = views_to_make(views)
    pending: list[_Pending] = []

    def prepare() -> Generator[_Prepared]:
        for frames, depth in windows:
            images = picture.take(frames).to(device)
            small = depth_to_disparity(depth.to(device), strength_percent, convergence)
            small = small * (images.shape[2] / depth.shape[-1])
            small = picture.hold_back(small, at_borders=holds_borders)
            with _KERNELS:
                disparity = sharpen(small, images)
            yield _Prepared(images, disparity, _Pending(frames, small))

    def give(warped: Iterable[tuple[_Pending, Warped]], is_first: bool) -> Iterator[Warped]:
        for frames, window in warped:
            if is_first:
                pending.append(frames)
            yield window

    with ExitStack() as stack:
        prepared = stack.enter_context(closing(prepare()))
        inpainted: list[Iterator[Inpainted]] = []
        for view, source in zip(made, tee(prepared, len(made)), strict=True):
            warped = stack.enter_context(closing(ahead(_warp(view, source, inpainter))))
            inpainted.append(inpainter(give(warped, view is made[0]), _state_of(view, state)))
        while shown := _next_of_each(inpainted):
            taken = _take(pending, len(shown[0].frames))
            yield _put_together(made, shown, taken, picture)
            del taken, shown  # or they would be kept while the next window is inpainted


def _warp(view: View, source: Iterable[_Prepared], inpainter: Inpainter) -> _Windows:
    """Warp the source to a view, which is turned."""
    for images, disparity, pending in source:
        with _KERNELS:
            window = warped_window(
                view.turn(images), view.share * view.turn(disparity), conditioning_of(inpainter)
            )
        yield pending, window


def _next_of_each(inpainted: list[Iterator[Inpainted]]) -> list[Inpainted]:
    """Return the next window of each view, of equal length; none at the end of the shot."""
    found = [window for each in inpainted if (window := next(each, None)) is not None]
    assert len(found) in (0, len(inpainted)), len(found)
    return found


def _put_together(
    made: tuple[View, ...], shown: list[Inpainted], taken: _Pending, picture: Picture
) -> RenderedWindow:
    """Return the whole views, with what is equal in both, and the state of each."""
    whole = {"left": taken.source}
    state: dict[str, Tensor] = {}
    for view, (frames, after) in zip(made, shown, strict=True):
        whole[view.name] = picture.put(view.turn(frames).cpu(), taken.source)
        state |= {f"{view.name}.{name}": plane for name, plane in after.items()}
    return RenderedWindow(
        whole["left"], taken.disparity, whole["right"], state, picture, taken.source, made[-1]
    )


def _state_of(view: View, state: InpainterState | None) -> InpainterState | None:
    if state is None:
        return None
    prefix = f"{view.name}."
    return {name.removeprefix(prefix): plane for name, plane in state.items() if name.startswith(prefix)}


def _take(pending: list[_Pending], frames: int) -> _Pending:
    """Remove the first frames from the pending windows and return them as one."""
    taken: list[_Pending] = []
    while frames:
        window = pending.pop(0)
        if len(window.source) > frames:
            pending.insert(0, _Pending(*(plane[frames:] for plane in window)))
        taken.append(_Pending(*(plane[:frames] for plane in window)))
        frames -= len(taken[-1].source)
    return taken[0] if len(taken) == 1 else _Pending(*map(torch.cat, zip(*taken, strict=True)))
