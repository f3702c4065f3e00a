"""Fill without weights: continue every hole from the background beside it.

A hole opens where a foreground object uncovers what is behind it, so it belongs to the farther of its two
sides; a hole at the frame's border has one side only. That side's last pixels are extended along the row and
blurred vertically, more with distance. Where the previous frame shows the same surface, it is fetched along
the background's motion instead. All colours are treated alike, so that a gray film stays gray.

Frames come in either form, float or 8-bit. Only pixels in holes are computed; all others are copied.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import cv2
import numba
import numpy as np
import torch
from torch import Tensor

from secondeye.imaging.arrays import frames_to_uint8, require_images, require_plane, require_same_size
from secondeye.imaging.optical_flow import MIN_FLOW_SIZE_PX, dense_flow
from secondeye.inpaint.interface import Inpainted, InpainterState, Warped

FULL_COVERAGE = 0.999  # coverage from which a pixel needs no filling

_FLOW_WIDTH = 480  # px: frames are reduced to this width to measure motion
_SAME_SURFACE_SHARE = 0.004  # of the width: disparities this close are one surface
_VISIBLE_WEIGHT = 1.0  # of the previous frame's pixel if it was visible there
_FILLED_WEIGHT = 0.75  # if it was filled there, too: steady, and still able to change
_SAME_COLOUR = 0.05  # mean difference up to which the flow is taken to have found the background
_LIKELY_COLOUR = 0.35  # mean difference from the row's continuation above which it found something else

_kernel = numba.njit(cache=True, nogil=True)


class FillState(NamedTuple):
    """What one frame passes on to the next."""

    frame: Tensor  # [3, H, W] in [0, 1], or uint8 [H, W, 3]: filled
    disparity: Tensor  # [H, W] px, the background's in holes
    visible: Tensor  # bool [H, W], False where the frame was filled
    gray: Tensor  # uint8 [h, w], the filled frame from `flow_gray`


def fill(
    frames: Tensor,  # [T, 3, H, W] or uint8 [T, H, W, 3]: the warped view
    coverage: Tensor,  # [T, 1, H, W] in [0, 1]
    disparity: Tensor,  # [T, 1, H, W] px, of the warped view; ignored where coverage is 0
    state: FillState | None = None,  # of the frame before, in the same form; None at the start of a shot
) -> tuple[Tensor, FillState]:  # filled, in the form of the frames, and the state after the last frame
    """Fill the uncovered share of each pixel.

    Raises ValueError for arrays that are not finite float32 (or uint8) of these shapes.
    """
    require_images(frames)
    for name, plane in (("coverage", coverage), ("disparity", disparity)):
        require_plane(plane, name)
        require_same_size(frames, plane, name)
    return _fill_frames(frames, coverage, disparity, state)


def fill_shot(windows: Iterable[Warped], state: InpainterState | None = None) -> Iterator[Inpainted]:
    """Run `fill` as an Inpainter. It runs on the CPU: from a GPU all but the left view is copied there."""
    carried = None if state is None else FillState(**state)
    for warped in windows:
        view = warped.frames
        planes = view.cpu(), warped.coverage.cpu(), warped.disparity.cpu()
        frames, carried = _fill_frames(*planes, carried)
        yield Inpainted(frames.to(view.device), carried._asdict())
        del frames, warped, view, planes  # or they would be kept while the next window is warped


def _fill_frames(
    frames: Tensor, coverage: Tensor, disparity: Tensor, state: FillState | None
) -> tuple[Tensor, FillState]:
    filled = frames.clone(memory_format=torch.contiguous_format)
    surfaces = disparity[:, 0].clone(memory_format=torch.contiguous_format)
    for planes in zip(frames, coverage[:, 0].contiguous(), filled, surfaces, strict=True):
        state = _fill_frame(*planes, state)
    assert state is not None
    return filled, state


def _fill_frame(
    frame: Tensor,  # [3, H, W], or uint8 [H, W, 3]
    coverage: Tensor,  # [H, W]
    filled: Tensor,  # a copy of the frame; its holes are written
    disparity: Tensor,  # [H, W] px; its holes are written: the disparity of what fills the pixel
    state: FillState | None,
) -> FillState:
    pixels, composed, background = interleaved(frame), interleaved(filled), disparity.numpy()
    share = coverage.numpy()
    visible, gaps = _find_gaps(share, FULL_COVERAGE)
    levels, rounding = (255.0, 0.5) if frame.dtype == torch.uint8 else (1.0, 0.0)
    same_px = same_surface_px(share.shape[1])
    # Only the holes of these are written and read: the rest of their memory is never touched.
    extended, smooth = (np.empty(pixels.shape, np.float32) for _ in range(2))
    distance, sources = np.empty(share.shape, np.float32), np.empty(len(gaps), np.int32)
    _extend_gaps(pixels, visible, gaps, background, extended, distance, sources)
    _blur_columns(pixels, extended, background, visible, distance, gaps, same_px, smooth)
    if state is not None and len(gaps) > 0:
        _write_holes(pixels, share, smooth, gaps, rounding, False, composed)
        flow = flow_between(flow_gray(filled), state.gray)
        if flow is not None:
            previous = interleaved(state.frame), state.disparity.numpy(), state.visible.numpy()
            _fetch_previous(
                pixels, visible, smooth, background, gaps, sources, flow, *previous, same_px, levels
            )
    _write_holes(pixels, share, smooth, gaps, rounding, True, composed)
    return FillState(filled, disparity, torch.from_numpy(visible), flow_gray(filled))


def same_surface_px(width: int) -> float:
    """Return up to which difference in disparity, px, pixels of a frame of this width show one surface."""
    return max(1.0, _SAME_SURFACE_SHARE * width)


def interleaved(
    frame: Tensor,  # [3, H, W], or uint8 [H, W, 3]
) -> np.ndarray:  # [H, W, 3], shares the frame's memory
    """Return a frame of either form with its channels last."""
    return frame.numpy() if frame.dtype == torch.uint8 else frame.permute(1, 2, 0).numpy()


@_kernel
def _find_gaps(
    coverage: np.ndarray,  # [H, W]
    full_coverage: float,
) -> tuple[np.ndarray, np.ndarray]:  # bool [H, W] visible pixels, int32 [N, 3] row, start, stop of the others
    height, width = coverage.shape
    visible = np.empty((height, width), np.bool_)
    gaps = np.empty((height * ((width + 1) // 2), 3), np.int32)
    count = 0
    for y in range(height):
        for x in range(width):
            visible[y, x] = coverage[y, x] >= full_coverage
        x = 0
        while x < width:
            if visible[y, x]:
                x += 1
                continue
            start = x
            while x < width and not visible[y, x]:
                x += 1
            gaps[count, 0], gaps[count, 1], gaps[count, 2] = y, start, x
            count += 1
    return visible, gaps[:count].copy()


@_kernel
def _extend_gaps(
    frame: np.ndarray,  # [H, W, 3]
    visible: np.ndarray,  # [H, W] bool
    gaps: np.ndarray,  # [N, 3] row, start, stop
    disparity: np.ndarray,  # [H, W] px, written in gaps: the disparity of what fills the pixel
    extended: np.ndarray,  # [H, W, 3], written in gaps
    distance: np.ndarray,  # [H, W] px, written in gaps: from the visible pixel it is extended from
    sources: np.ndarray,  # [N] written: that pixel's column; -1 in a row without visible pixels
) -> None:
    """Extend the background side of every gap in its row."""
    for n in range(len(gaps)):
        y, start, stop = gaps[n]
        sources[n] = _extend_gap(frame[y], visible[y], start, stop, disparity[y], extended[y], distance[y])


@_kernel
def _extend_gap(
    frame: np.ndarray,  # [W, 3], a row
    visible: np.ndarray,  # [W]
    start: int,
    stop: int,
    disparity: np.ndarray,  # [W], written
    extended: np.ndarray,  # [W, 3], written
    distance: np.ndarray,  # [W], written
) -> int:
    width = len(visible)
    if start == 0 and stop == width:  # nothing of this row is visible: the vertical blur has to fill it
        for x in range(width):
            for c in range(3):
                extended[x, c] = frame[x, c]
            disparity[x], distance[x] = 0.0, float(width)
        return -1
    from_left = stop == width or (start > 0 and disparity[start - 1] <= disparity[stop])
    edge = start - 1 if from_left else stop
    neighbour = min(max(edge - 1 if from_left else edge + 1, 0), width - 1)
    at_border = start == 0 or stop == width  # where the last column alone is closer to the truth (measured)
    if at_border or not visible[neighbour] or abs(disparity[neighbour] - disparity[edge]) > 2.0:
        neighbour = edge
    for x in range(start, stop):
        for c in range(3):
            extended[x, c] = 0.5 * (frame[edge, c] + np.float32(frame[neighbour, c]))
        disparity[x], distance[x] = disparity[edge], float(abs(x - edge))
    return neighbour


@_kernel
def _blur_columns(
    frame: np.ndarray,  # [H, W, 3]
    extended: np.ndarray,  # [H, W, 3], used in gaps
    background: np.ndarray,  # [H, W] px
    visible: np.ndarray,  # [H, W] bool
    distance: np.ndarray,  # [H, W] px, used in gaps
    gaps: np.ndarray,  # [N, 3]
    same_px: float,
    smooth: np.ndarray,  # [H, W, 3], written in gaps
) -> None:
    """Average each filled pixel with its column, over a reach that grows with its distance."""
    height = len(frame)
    for n in range(len(gaps)):
        y, start, stop = gaps[n]
        for x in range(start, stop):
            reach = int(0.5 + 0.35 * distance[y, x])
            red, green, blue, weight = 0.0, 0.0, 0.0, 0.0
            for other in range(max(0, y - reach), min(height, y + reach + 1)):
                if other == y or abs(background[other, x] - background[y, x]) <= same_px:
                    closeness = 1.0 - abs(other - y) / (reach + 1.0)
                    if visible[other, x]:
                        red += closeness * frame[other, x, 0]
                        green += closeness * frame[other, x, 1]
                        blue += closeness * frame[other, x, 2]
                    else:
                        red += closeness * extended[other, x, 0]
                        green += closeness * extended[other, x, 1]
                        blue += closeness * extended[other, x, 2]
                    weight += closeness
            smooth[y, x, 0], smooth[y, x, 1], smooth[y, x, 2] = red / weight, green / weight, blue / weight


@_kernel
def _write_holes(
    frame: np.ndarray,  # [H, W, 3]
    coverage: np.ndarray,  # [H, W] in [0, 1]
    smooth: np.ndarray,  # [H, W, 3], used in gaps
    gaps: np.ndarray,  # [N, 3]
    rounding: float,  # added before a value is truncated to 8 bits
    blend: bool,  # with the covered share of the frame's own pixel
    filled: np.ndarray,  # [H, W, 3], written in gaps
) -> None:
    for n in range(len(gaps)):
        y, start, stop = gaps[n]
        for x in range(start, stop):
            share = coverage[y, x] if blend else np.float32(0)
            for c in range(3):
                filled[y, x, c] = share * frame[y, x, c] + (1 - share) * smooth[y, x, c] + rounding


def flow_gray(
    frame: Tensor,  # [3, H, W], or uint8 [H, W, 3]
) -> Tensor:  # uint8 [h, w]
    """Return the luma of a frame at the size at which motion is measured."""
    pixels = frame if frame.dtype == torch.uint8 else frames_to_uint8(frame[None])[0]
    height, width, _ = pixels.shape
    scale = min(1.0, _FLOW_WIDTH / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    luma = cv2.cvtColor(pixels.numpy(), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(luma.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return torch.from_numpy(small.astype(np.uint8))


def flow_between(
    gray: Tensor,  # uint8 [h, w] from `flow_gray`
    previous: Tensor,  # uint8 [h, w] of the frame before
) -> np.ndarray | None:  # [h, w, 2] px of this size
    """Return the optical flow from a frame to the previous one; None for frames too small for it."""
    return dense_flow(gray.numpy(), previous.numpy()) if min(gray.shape) >= MIN_FLOW_SIZE_PX else None


@_kernel
def _fetch_previous(
    frame: np.ndarray,  # [H, W, 3]
    visible: np.ndarray,  # [H, W] bool
    smooth: np.ndarray,  # [H, W, 3], updated in gaps
    background: np.ndarray,  # [H, W] px
    gaps: np.ndarray,  # [N, 3]
    sources: np.ndarray,  # [N]
    flow: np.ndarray,  # [h, w, 2] px of its own size
    previous: np.ndarray,  # [H, W, 3]
    previous_disparity: np.ndarray,  # [H, W] px
    previous_visible: np.ndarray,  # [H, W] bool
    same_px: float,
    levels: float,  # the largest value of a colour
) -> None:
    """Blend in pixels of the previous frame that show the same background, visible or filled."""
    height, width, _ = frame.shape
    for n in range(len(gaps)):
        y, start, stop = gaps[n]
        for x in range(start, stop):
            # Hidden background moves like the visible background beside it, not like the filled pixels.
            beside = x if sources[n] < 0 else sources[n]
            move_x, move_y = _flow_at(flow, y, beside, height, width)
            if visible[y, beside]:
                difference = _difference(frame[y, beside], previous, y + move_y, beside + move_x)
            else:
                difference = _difference(smooth[y, beside], previous, y + move_y, beside + move_x)
            if difference > _SAME_COLOUR * levels:
                continue
            there_x, there_y = x + move_x, y + move_y
            if _difference(smooth[y, x], previous, there_y, there_x) > _LIKELY_COLOUR * levels:
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
            for c in range(3):
                above = (1 - u) * previous[top, left, c] + u * previous[top, left + 1, c]
                below = (1 - u) * previous[top + 1, left, c] + u * previous[top + 1, left + 1, c]
                smooth[y, x, c] += weight * ((1 - v) * above + v * below - smooth[y, x, c])


@_kernel
def _flow_at(flow: np.ndarray, y: int, x: int, height: int, width: int) -> tuple[float, float]:
    """Return the flow (x, y) of a pixel in px of the whole frame, interpolated bilinearly."""
    rows, columns, _ = flow.shape
    scale_y, scale_x = height / rows, width / columns
    row = min(max((y + 0.5) / scale_y - 0.5, 0.0), rows - 1.0)
    column = min(max((x + 0.5) / scale_x - 0.5, 0.0), columns - 1.0)
    top, left = int(row), int(column)
    bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
    v, u = row - top, column - left
    above_x = (1 - u) * flow[top, left, 0] + u * flow[top, right, 0]
    below_x = (1 - u) * flow[bottom, left, 0] + u * flow[bottom, right, 0]
    above_y = (1 - u) * flow[top, left, 1] + u * flow[top, right, 1]
    below_y = (1 - u) * flow[bottom, left, 1] + u * flow[bottom, right, 1]
    return scale_x * ((1 - v) * above_x + v * below_x), scale_y * ((1 - v) * above_y + v * below_y)


@_kernel
def _difference(pixel: np.ndarray, previous: np.ndarray, there_y: float, there_x: float) -> float:
    """Return the mean colour difference to the nearest pixel of the previous frame; inf outside of it."""
    height, width, _ = previous.shape
    row, column = int(np.rint(there_y)), int(np.rint(there_x))
    if row < 0 or column < 0 or row >= height or column >= width:
        return np.inf
    total = 0.0
    for c in range(3):
        total += abs(np.float64(pixel[c]) - previous[row, column, c])
    return total / 3
