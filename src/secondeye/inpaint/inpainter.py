"""The types that every inpainter shares."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from secondeye.inpaint.plan import InpaintPlan

InpainterState = Mapping[str, Tensor]
"""What an inpainter carries from frame to frame of a shot, by name; private to the inpainter.

Its tensors can be saved, so that a later process continues the shot with equal results.
"""


class Warped(NamedTuple):
    """Consecutive frames of one shot, warped to the right view, with holes."""

    left: Tensor
    """[T, 3, H, W] in [0, 1]: the left view."""
    frames: Tensor
    """[T, 3, H, W] in [0, 1]: the right view; black where coverage is 0."""
    coverage: Tensor
    """[T, 1, H, W] in [0, 1]: the share of each pixel that the left view covers."""
    disparity: Tensor
    """[T, 1, H, W] px, of the right view; ignored where coverage is 0."""


class Inpainted(NamedTuple):
    """Consecutive inpainted frames of one shot."""

    frames: Tensor
    """[t, 3, H, W] in [0, 1]."""
    state: InpainterState
    """The state after these frames."""


class Inpainter(Protocol):
    """Inpaints one shot, or the rest of one from the state after its first frames.

    Windows and results may differ in length: an inpainter buffers as many frames as its network takes
    together. Every frame is yielded once, in order, and pixels with coverage 1 are returned unchanged.
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


def inpaint_shot(inpainter: Inpainter, windows: Iterable[Warped]) -> Tensor:  # [T, 3, H, W]
    """Inpaint all frames of a shot and return them together."""
    return torch.cat([inpainted.frames for inpainted in inpainter(windows)])
