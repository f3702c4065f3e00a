"""The types that every inpainter shares."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from secondeye.inpaint.plan import InpaintPlan
from secondeye.system.errors import UserError

InpainterState = Mapping[str, Tensor]
"""What an inpainter carries from frame to frame of a shot, by name; private to the inpainter.

Its tensors can be saved, so that a later process continues the shot with equal results.
"""


Conditioning = Literal["warp", "splat"]
"""The view that a network is conditioned on; the image is composed with the sharp warp in either case."""


class Warped(NamedTuple):
    """Consecutive frames of one shot, warped to the right view, with holes.

    Frames have either form: float, or 8-bit as conversion passes them from decoder to encoder.
    """

    left: Tensor
    """[T, 3, H, W] in [0, 1], or uint8 [T, H, W, 3]: the left view."""
    frames: Tensor
    """In the form of `left`: the right view; black where coverage is 0."""
    coverage: Tensor
    """[T, 1, H, W] in [0, 1]: the share of each pixel that the left view covers."""
    disparity: Tensor
    """[T, 1, H, W] px, of the right view; ignored where coverage is 0."""
    conditioning_frames: Tensor | None = None
    """In the form of `frames`: the view that a network is conditioned on; None if it is `frames`."""
    conditioning_coverage: Tensor | None = None
    """[T, 1, H, W], 0 in the holes of that view or of `frames`, else 1; None if it is `coverage`."""

    def take(self, frames: slice) -> "Warped":
        """Return some of the frames."""
        return Warped(*(None if plane is None else plane[frames] for plane in self))  # type: ignore[arg-type]

    def to(self, device: torch.device | str) -> "Warped":
        """Return the frames on a device."""
        return Warped(*(None if plane is None else plane.to(device) for plane in self))  # type: ignore[arg-type]


class Inpainted(NamedTuple):
    """Consecutive inpainted frames of one shot."""

    frames: Tensor
    """In the form of the windows' frames."""
    state: InpainterState
    """The state after these frames."""


class Inpainter(Protocol):
    """Inpaints one shot, or the rest of one from the state after its first frames.

    Windows and results may differ in length: an inpainter buffers as many frames as its network takes
    together. Every frame is yielded once, in order, and pixels with coverage 1 are returned unchanged.
    Results are on the device of the windows. See `conditioning_of` for what windows must contain.
    """

    def __call__(
        self, windows: Iterable[Warped], state: InpainterState | None = None
    ) -> Iterator[Inpainted]: ...


@runtime_checkable
class PlannedInpainter(Inpainter, Protocol):
    """An inpainter that plans its windows and tiles from the frames' size and the memory that is free."""

    def plan(self, height: int, width: int) -> InpaintPlan:
        """Return the plan for frames of this size, px: the one in use, or a new one.

        Raises UserError if the memory does not suffice for any plan.
        """

    def reuse(self, plan: InpaintPlan) -> None:
        """Use this plan for frames of its size, as when a shot is continued.

        Raises UserError if the network cannot follow it.
        """


def conditioning_of(inpainter: Inpainter) -> Conditioning:
    """Return the conditioning that windows must contain: the inpainter's attribute, `warp` if it has none."""
    conditioning: Conditioning = getattr(inpainter, "conditioning", "warp")
    return conditioning


def require_finite_pixels(inpainted: Tensor) -> None:
    """Raise UserError if a network returned NaN or infinite pixels."""
    if not bool(inpainted.isfinite().all()):
        raise UserError("the model returns NaN or infinite pixels: its weights are damaged; use another")


def inpaint_shot(inpainter: Inpainter, windows: Iterable[Warped]) -> Tensor:  # in the form of the windows
    """Inpaint all frames of a shot and return them together."""
    return torch.cat([inpainted.frames for inpainted in inpainter(windows)])
