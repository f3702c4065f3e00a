"""Fill without weights: continue every hole from the background beside it.

A hole opens where a foreground object uncovers what is behind it, so it belongs to the farther of its two
sides. The background's last pixels are extended along the row and blurred vertically, more with distance.
Where the previous frame shows the same surface, it is fetched along the background's motion instead. A hole
at the frame's border has one side only and is mirrored.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import cv2
import numba
import numpy as np
import torch
from torch import Tensor

from secondeye.imaging.arrays import require_frames, require_plane, require_same_size
from secondeye.imaging.optical_flow import MIN_FLOW_SIZE_PX, dense_flow
from secondeye.inpaint.inpainter import Inpainted, InpainterState, Warped

FULL_COVERAGE = 0.999  # coverage from which a pixel needs no filling

_FLOW_WIDTH = 480  # px: frames are reduced to this width to measure motion
_SAME_SURFACE_SHARE = 0.004  # of the width: disparities this close are one surface
_VISIBLE_WEIGHT = 1.0  # of the previous frame's pixel if it was visible there
_FILLED_WEIGHT = 0.75  # if it was filled there, too: steady, and still able to change
_SAME_COLOUR = 0.05  # mean difference up to which the flow is taken to have found the background
_LIKELY_COLOUR = 0.35  # mean difference from the row's continuation above which it found something else


class FillState(NamedTuple):
    """What one frame passes on to the next."""

    frame: np.ndarray  # [3, H, W] float32, filled
    disparity: np.ndarray  # [H, W] float32 px, the background's in holes
    visible: np.ndarray  # [H, W] bool, False where the frame was filled

    def tensors(self) -> dict[str, Tensor]:
        """Return the arrays by name, as tensors that share their memory."""
        return {name: torch.from_numpy(plane) for name, plane in self._asdict().items()}


def fill(
    frames: Tensor,  # [T, 3, H, W] the warped view
    coverage: Tensor,  # [T, 1, H, W] in [0, 1]
    disparity: Tensor,  # [T, 1, H, W] px, of the warped view; ignored where coverage is 0
    state: FillState | None = None,  # of the frame before; None at the start of a shot
) -> tuple[Tensor, FillState]:  # [T, 3, H, W], and the state after the last frame
    """Fill the uncovered share of each pixel.

    Raises ValueError for arrays that are not finite float32 of these shapes.
    """
    require_frames(frames)
    for name, plane in (("coverage", coverage), ("disparity", disparity)):
        require_plane(plane, name)
        require_same_size(frames, plane, name)
    filled = []
    for frame, covered, surface in zip(
        frames.numpy(), coverage[:, 0].numpy(), disparity[:, 0].numpy(), strict=True
    ):
        state = _fill_frame(np.ascontiguousarray(frame), covered, np.ascontiguousarray(surface), state)
        filled.append(torch.from_numpy(state.frame))
    assert state is not None
    return torch.stack(filled), state


def fill_shot(windows: Iterable[Warped], state: InpainterState | None = None) -> Iterator[Inpainted]:
    """Run `fill` as an Inpainter."""
    carried = None if state is None else FillState(**{name: plane.numpy() for name, plane in state.items()})
    for warped in windows:
        frames, carried = fill(warped.frames, warped.coverage, warped.disparity, carried)
        yield Inpainted(frames, carried.tensors())


def _fill_frame(
    frame: np.ndarray, coverage: np.ndarray, disparity: np.ndarray, state: FillState | None
) -> FillState:
    visible = coverage >= FULL_COVERAGE
    filled, background, distance = np.empty_like(frame), np.empty_like(disparity), np.empty_like(disparity)
    source = np.empty(disparity.shape, np.int32)
    _extend_rows(frame, disparity, visible, filled, background, distance, source)
    same_px = max(1.0, _SAME_SURFACE_SHARE * frame.shape[2])
    smooth = np.empty_like(filled)
    _blur_columns(filled, background, visible, distance, same_px, smooth)
    if state is not None and not visible.all():
        flow = backward_flow(smooth, state.frame)
        _fetch_previous(
            smooth, background, visible, source, flow, state.frame, state.disparity, state.visible, same_px
        )
    composed = coverage * frame + (1 - coverage) * smooth
    return FillState(composed.astype(np.float32), background, visible)


@numba.njit(cache=True, parallel=True)
def _extend_rows(
    frame: np.ndarray,  # [3, H, W]
    disparity: np.ndarray,  # [H, W] px
    visible: np.ndarray,  # [H, W] bool
    filled: np.ndarray,  # [3, H, W], written
    background: np.ndarray,  # [H, W] px, written: the disparity of what fills the pixel
    distance: np.ndarray,  # [H, W] px, written: from the visible pixel it is extended from
    source: np.ndarray,  # [H, W] int32, written: that pixel's column
) -> None:
    """Extend the background side of every gap in a row; mirror it at the frame's border."""
    channels, height, width = frame.shape
    for y in numba.prange(height):
        x = 0
        while x < width:
            if visible[y, x]:
                for c in range(channels):
                    filled[c, y, x] = frame[c, y, x]
                background[y, x], distance[y, x], source[y, x] = disparity[y, x], 0.0, x
                x += 1
                continue
            stop = x
            while stop < width and not visible[y, stop]:
                stop += 1
            _extend_gap(frame, disparity, visible, filled, background, distance, source, y, x, stop)
            x = stop


@numba.njit(cache=True)
def _extend_gap(
    frame: np.ndarray,
    disparity: np.ndarray,
    visible: np.ndarray,
    filled: np.ndarray,
    background: np.ndarray,
    distance: np.ndarray,
    source: np.ndarray,
    y: int,
    start: int,
    stop: int,
) -> None:
    channels, _, width = frame.shape
    at_border = start == 0 or stop == width
    if start == 0 and stop == width:  # nothing of this row is visible: the vertical blur has to fill it
        for x in range(width):
            for c in range(channels):
                filled[c, y, x] = frame[c, y, x]
            background[y, x], distance[y, x], source[y, x] = 0.0, float(width), x
        return
    from_left = stop == width or (start > 0 and disparity[y, start - 1] <= disparity[y, stop])
    edge = start - 1 if from_left else stop
    inward = -1 if from_left else 1
    neighbour = min(max(edge + inward, 0), width - 1)
    if not visible[y, neighbour] or abs(disparity[y, neighbour] - disparity[y, edge]) > 2.0:
        neighbour = edge
    for x in range(start, stop):
        away = abs(x - edge)
        mirrored = edge + inward * away
        inside = 0 <= mirrored < width
        for c in range(channels):
            if at_border and inside and visible[y, mirrored]:
                filled[c, y, x] = frame[c, y, mirrored]
            else:
                filled[c, y, x] = 0.5 * (frame[c, y, edge] + frame[c, y, neighbour])
        background[y, x], source[y, x] = disparity[y, edge], neighbour
        distance[y, x] = 0.0 if at_border and inside else float(away)


@numba.njit(cache=True, parallel=True)
def _blur_columns(
    filled: np.ndarray,
    background: np.ndarray,
    visible: np.ndarray,
    distance: np.ndarray,
    same_px: float,
    smooth: np.ndarray,  # [3, H, W], written
) -> None:
    """Average each filled pixel with its column, over a reach that grows with its distance."""
    channels, height, width = filled.shape
    for y in numba.prange(height):
        for x in range(width):
            reach = 0 if visible[y, x] else int(0.5 + 0.35 * distance[y, x])
            for c in range(channels):
                total, weight = 0.0, 0.0
                for other in range(max(0, y - reach), min(height, y + reach + 1)):
                    if other == y or abs(background[other, x] - background[y, x]) <= same_px:
                        closeness = 1.0 - abs(other - y) / (reach + 1.0)
                        total += closeness * filled[c, other, x]
                        weight += closeness
                smooth[c, y, x] = total / weight


def backward_flow(frame: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """Return the optical flow [H, W, 2] px from a frame [3, H, W] to the previous one.

    Zero for frames that are too small for optical flow.
    """
    _, height, width = frame.shape
    scale = min(1.0, _FLOW_WIDTH / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if min(size) < MIN_FLOW_SIZE_PX:
        return np.zeros((height, width, 2), np.float32)
    flow = dense_flow(_to_gray(frame, size), _to_gray(previous, size))
    flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR)
    return flow * np.array([width / size[0], height / size[1]], np.float32)


def _to_gray(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    luma = 0.299 * frame[0] + 0.587 * frame[1] + 0.114 * frame[2]
    small = cv2.resize(luma, size, interpolation=cv2.INTER_AREA)
    return (np.clip(small, 0, 1) * 255).astype(np.uint8)


@numba.njit(cache=True, parallel=True)
def _fetch_previous(
    smooth: np.ndarray,  # [3, H, W], updated
    background: np.ndarray,
    visible: np.ndarray,
    source: np.ndarray,
    flow: np.ndarray,
    previous: np.ndarray,
    previous_disparity: np.ndarray,
    previous_visible: np.ndarray,
    same_px: float,
) -> None:
    """Blend in pixels of the previous frame that show the same background, visible or filled."""
    channels, height, width = smooth.shape
    for y in numba.prange(height):
        for x in range(width):
            if visible[y, x]:
                continue
            # Hidden background moves like the visible background beside it, not like the filled pixels.
            beside = source[y, x]
            move_x, move_y = flow[y, beside, 0], flow[y, beside, 1]
            if _difference(smooth, y, beside, previous, y + move_y, beside + move_x) > _SAME_COLOUR:
                continue
            there_x, there_y = x + move_x, y + move_y
            if _difference(smooth, y, x, previous, there_y, there_x) > _LIKELY_COLOUR:
                continue
            left, top = int(np.floor(there_x)), int(np.floor(there_y))
            if left < 0 or top < 0 or left + 1 >= width or top + 1 >= height:
                continue
            agrees, was_visible = True, True
            for j in range(2):
                for i in range(2):
                    agrees &= abs(previous_disparity[top + j, left + i] - background[y, x]) <= same_px
                    was_visible &= previous_visible[top + j, left + i]
            if not agrees:
                continue
            weight = _VISIBLE_WEIGHT if was_visible else _FILLED_WEIGHT
            u, v = there_x - left, there_y - top
            for c in range(channels):
                above = (1 - u) * previous[c, top, left] + u * previous[c, top, left + 1]
                below = (1 - u) * previous[c, top + 1, left] + u * previous[c, top + 1, left + 1]
                smooth[c, y, x] += weight * ((1 - v) * above + v * below - smooth[c, y, x])


@numba.njit(cache=True)
def _difference(
    frame: np.ndarray, y: int, x: int, previous: np.ndarray, there_y: float, there_x: float
) -> float:
    """Return the mean colour difference to the nearest pixel of the previous frame; inf outside of it."""
    channels, height, width = frame.shape
    row, column = int(np.rint(there_y)), int(np.rint(there_x))
    if row < 0 or column < 0 or row >= height or column >= width:
        return np.inf
    total = 0.0
    for c in range(channels):
        total += abs(frame[c, y, x] - previous[c, row, column])
    return total / channels
