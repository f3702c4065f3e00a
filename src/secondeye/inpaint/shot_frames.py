"""Frames of a shot as the network takes them: at its working size, in 8 bits.

Films have 8 bits, so nothing is lost where the network works at their size; at a smaller size rounding costs
at most 1/510, as in the release, which passes 8-bit frames on. In float32 they would take four times as much.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from secondeye.imaging.arrays import frames_to_uint8, occlusion_mask, resize, to_float_frames
from secondeye.inpaint.interface import InpainterState, Warped
from secondeye.inpaint.plan import InpaintPlan
from secondeye.inpaint.working_size import padded, reduce_warped
from secondeye.system.errors import UserError


class ShotFrames(NamedTuple):
    """Consecutive frames of one shot; also the state of the diffusion inpainter."""

    frames: Tensor  # uint8 [n, h, w, 3], warped, or inpainted
    holes: Tensor  # bool [n, h, w, 1], True where a pixel is, or was, to be inpainted
    left: Tensor | None  # uint8 [n, h, w, 3], the left view; None if the network does not take it

    @classmethod
    def of_warped(cls, warped: Warped, plan: InpaintPlan, with_left: bool) -> Self:
        """Reduce one frame to the working size."""
        frames, coverage = warped.frames, warped.coverage
        if warped.conditioning_frames is not None:
            frames = warped.conditioning_frames
        if warped.conditioning_coverage is not None:
            coverage = warped.conditioning_coverage
        left = reduce_frames(warped.left, plan) if with_left else None
        if frames.dtype == torch.uint8 and frames.shape[1:3] == (plan.height, plan.width):
            return cls(frames, occlusion_mask(coverage).permute(0, 2, 3, 1), left)
        small, holes = reduce_warped(to_float_frames(frames), coverage, plan.height, plan.width)
        return cls(frames_to_uint8(small), holes.permute(0, 2, 3, 1), left)

    @classmethod
    def of_state(cls, state: InpainterState, plan: InpaintPlan, device: torch.device) -> Self:
        """Return the frames that `tensors` gave. Raises UserError if they have another working size."""
        frames = cls(state["frames"], state["holes"], state.get("left"))._each(lambda plane: plane.to(device))
        height, width = frames.frames.shape[1:3]
        if (height, width) != (plan.height, plan.width):
            raise UserError(
                f"the recorded frames are {width}x{height}, but the plan works at "
                f"{plan.width}x{plan.height}: continue with the recorded plan, or start again"
            )
        return frames

    def tensors(self) -> dict[str, Tensor]:
        """Return the arrays by name."""
        return {name: plane for name, plane in self._asdict().items() if plane is not None}

    def last(self, count: int) -> Self:
        """Return a copy of the last frames, or of all if they are fewer."""
        start = max(0, len(self.frames) - count)
        return self._each(lambda plane: plane[start:].clone())

    def cropped(self, height: int, width: int) -> Self:
        """Return a copy without the rows and columns that `join_padded` added."""
        return self._each(lambda plane: plane[:, :height, :width].clone())

    def take(self, frames: slice) -> Self:
        """Return some of the frames, which share memory with these."""
        return self._each(lambda plane: plane[frames])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        left = None if self.left is None else change(self.left)
        return type(self)(change(self.frames), change(self.holes), left)


def join(parts: Sequence[ShotFrames]) -> ShotFrames:
    """Return all frames together."""
    frames, holes, left = zip(*parts, strict=True)
    return ShotFrames(torch.cat(frames), torch.cat(holes), None if left[0] is None else torch.cat(left))


def join_padded(
    parts: list[ShotFrames],  # emptied, so that the memory of a part is free once it is copied
) -> ShotFrames:
    """Return all frames together, with sides that are multiples of SIDE_MULTIPLE_PX."""
    count, first, start = sum(len(part.frames) for part in parts), parts[0], 0
    height, width = (padded(side) for side in first.frames.shape[1:3])
    whole = first._each(lambda plane: plane.new_empty(count, height, width, plane.shape[3]))
    while parts:
        part = parts.pop(0)
        stop = start + len(part.frames)
        for plane, given in zip(whole, part, strict=True):
            if plane is not None and given is not None:
                plane[start:stop] = repeat_borders(given)
        start = stop
    return whole


def repeat_borders(
    plane: Tensor,  # [n, h, w, C]
) -> Tensor:  # [n, H, W, C]
    """Repeat the last row and column until the sides are multiples of SIDE_MULTIPLE_PX."""
    rows, columns = (
        torch.arange(padded(side), device=plane.device).clamp_max(side - 1) for side in plane.shape[1:3]
    )
    return plane[:, rows[:, None], columns]


def reduce_frames(
    frames: Tensor,  # [T, 3, H, W] in [0, 1], or uint8 [T, H, W, 3]
    plan: InpaintPlan,
) -> Tensor:  # uint8 [T, h, w, 3]
    """Reduce frames to the working size; NaN become black, so that they do not reach the next window."""
    if frames.dtype == torch.uint8 and frames.shape[1:3] == (plan.height, plan.width):
        return frames
    return frames_to_uint8(resize(to_float_frames(frames), plan.height, plan.width).nan_to_num())
