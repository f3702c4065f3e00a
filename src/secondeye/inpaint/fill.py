"""Filling without weights: every hole is continued from the background beside it (ours).

A hole opens where something near uncovers what is behind it, so it belongs to the farther of its two sides.
The background's last pixels are drawn along the row and blurred vertically, the more the farther away from
where they were seen. What the previous frame showed there is taken along the background's motion instead,
where it is the same surface. A hole at the frame's border has one side only and is mirrored.
"""

from typing import NamedTuple

import cv2
import numba
import numpy as np
import torch
from torch import Tensor

from secondeye.imaging.arrays import require_frames, require_plane, require_same_size
from secondeye.inpaint import Warped

_WHOLE = 0.999  # coverage from which on a pixel needs nothing
_FLOW_WIDTH = 480  # px of the pictures the background's motion is measured in
_SAME_SURFACE_SHARE = 0.004  # of the width: disparities this close are one surface
_SEEN_WEIGHT = 1.0  # the previous frame really saw it
_FILLED_WEIGHT = 0.75  # the previous frame made it up, too: steadier, and still able to follow
_SAME_COLOUR = 0.05  # mean difference at which the flow has found the background again
_LIKELY_COLOUR = 0.35  # mean difference from what the row suggests, above which something else was found
_SMALLEST_FLOW_SIDE = 16  # px; optical flow needs a picture


class FillState(NamedTuple):
    """What one frame leaves for the next."""

    frame: np.ndarray  # [3, H, W] float32, holes filled
    disparity: np.ndarray  # [H, W] float32 px, holes filled with the background's
    seen: np.ndarray  # [H, W] bool, False where it was filled


def fill(
    frames: Tensor,  # [T, 3, H, W] the warped view
    coverage: Tensor,  # [T, 1, H, W] in [0, 1]
    disparity: Tensor,  # [T, 1, H, W] px, of the warped view; ignored where coverage is 0
    state: FillState | None = None,  # what the frame before these left
) -> tuple[Tensor, FillState]:  # [T, 3, H, W] whole pictures, and what the last frame leaves
    """Blend each pixel's covered share with what is filled in for the rest.

    Raises ValueError for arrays that are not finite float32 of these shapes.
    """
    require_frames(frames)
    for name, plane in (("coverage", coverage), ("disparity", disparity)):
        require_plane(plane, name)
        require_same_size(frames, plane, name)
    pictures = []
    for frame, share, surface in zip(
        frames.numpy(), coverage[:, 0].numpy(), disparity[:, 0].numpy(), strict=True
    ):
        state = _fill_frame(np.ascontiguousarray(frame), share, np.ascontiguousarray(surface), state)
        pictures.append(torch.from_numpy(state.frame))
    assert state is not None
    return torch.stack(pictures), state


def fill_warped(warped: Warped, state: FillState | None) -> tuple[Tensor, FillState]:
    """`fill` as an Inpainter."""
    return fill(warped.frames, warped.coverage, warped.disparity, state)


def _fill_frame(
    frame: np.ndarray, share: np.ndarray, surface: np.ndarray, state: FillState | None
) -> FillState:
    seen = share >= _WHOLE
    filled, behind, distance = np.empty_like(frame), np.empty_like(surface), np.empty_like(surface)
    source = np.empty(surface.shape, np.int32)
    _extend(frame, surface, seen, filled, behind, distance, source)
    same_px = max(1.0, _SAME_SURFACE_SHARE * frame.shape[2])
    smooth = np.empty_like(filled)
    _blur_down(filled, behind, seen, distance, same_px, smooth)
    if state is not None and not seen.all():
        flow = flow_back(smooth, state.frame)
        _reuse(smooth, behind, seen, source, flow, state.frame, state.disparity, state.seen, same_px)
    whole = share * frame + (1 - share) * smooth
    return FillState(whole.astype(np.float32), behind, seen)


@numba.njit(cache=True, parallel=True)
def _extend(
    frame: np.ndarray,
    surface: np.ndarray,
    seen: np.ndarray,
    filled: np.ndarray,
    behind: np.ndarray,
    distance: np.ndarray,
    source: np.ndarray,
) -> None:
    """Continue every gap of a row from its background side; mirror it at the frame's border."""
    channels, height, width = frame.shape
    for y in numba.prange(height):
        x = 0
        while x < width:
            if seen[y, x]:
                for c in range(channels):
                    filled[c, y, x] = frame[c, y, x]
                behind[y, x], distance[y, x], source[y, x] = surface[y, x], 0.0, x
                x += 1
                continue
            stop = x
            while stop < width and not seen[y, stop]:
                stop += 1
            _extend_gap(frame, surface, seen, filled, behind, distance, source, y, x, stop)
            x = stop


@numba.njit(cache=True)
def _extend_gap(
    frame: np.ndarray,
    surface: np.ndarray,
    seen: np.ndarray,
    filled: np.ndarray,
    behind: np.ndarray,
    distance: np.ndarray,
    source: np.ndarray,
    y: int,
    start: int,
    stop: int,
) -> None:
    channels, _, width = frame.shape
    at_border = start == 0 or stop == width
    if start == 0 and stop == width:  # nothing of this row was seen: the vertical blur must do
        for x in range(width):
            for c in range(channels):
                filled[c, y, x] = frame[c, y, x]
            behind[y, x], distance[y, x], source[y, x] = 0.0, float(width), x
        return
    from_left = stop == width or (start > 0 and surface[y, start - 1] <= surface[y, stop])
    edge = start - 1 if from_left else stop
    inward = -1 if from_left else 1
    neighbour = min(max(edge + inward, 0), width - 1)
    if not seen[y, neighbour] or abs(surface[y, neighbour] - surface[y, edge]) > 2.0:
        neighbour = edge
    for x in range(start, stop):
        away = abs(x - edge)
        mirrored = edge + inward * away
        inside = 0 <= mirrored < width
        for c in range(channels):
            if at_border and inside and seen[y, mirrored]:
                filled[c, y, x] = frame[c, y, mirrored]
            else:
                filled[c, y, x] = 0.5 * (frame[c, y, edge] + frame[c, y, neighbour])
        behind[y, x], source[y, x] = surface[y, edge], neighbour
        distance[y, x] = 0.0 if at_border and inside else float(away)


@numba.njit(cache=True, parallel=True)
def _blur_down(
    filled: np.ndarray,
    behind: np.ndarray,
    seen: np.ndarray,
    distance: np.ndarray,
    same_px: float,
    smooth: np.ndarray,
) -> None:
    """Average each filled pixel with its column; the reach grows with the distance from what was seen."""
    channels, height, width = filled.shape
    for y in numba.prange(height):
        for x in range(width):
            reach = 0 if seen[y, x] else int(0.5 + 0.35 * distance[y, x])
            for c in range(channels):
                total, weight = 0.0, 0.0
                for other in range(max(0, y - reach), min(height, y + reach + 1)):
                    if other == y or abs(behind[other, x] - behind[y, x]) <= same_px:
                        closeness = 1.0 - abs(other - y) / (reach + 1.0)
                        total += closeness * filled[c, other, x]
                        weight += closeness
                smooth[c, y, x] = total / weight


def flow_back(frame: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """Optical flow [H, W, 2] px from this frame to the previous one (DIS, Kroeger 2016)."""
    _, height, width = frame.shape
    scale = min(1.0, _FLOW_WIDTH / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if min(size) < _SMALLEST_FLOW_SIDE:
        return np.zeros((height, width, 2), np.float32)
    here, there = (_grey(picture, size) for picture in (frame, previous))
    engine = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    flow = cv2.resize(
        engine.calc(here, there, np.zeros((*here.shape, 2), np.float32)),
        (width, height),
        interpolation=cv2.INTER_LINEAR,
    )
    return flow * np.array([width / size[0], height / size[1]], np.float32)


def _grey(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    luma = 0.299 * picture[0] + 0.587 * picture[1] + 0.114 * picture[2]
    small = cv2.resize(luma, size, interpolation=cv2.INTER_AREA)
    return (np.clip(small, 0, 1) * 255).astype(np.uint8)


@numba.njit(cache=True, parallel=True)
def _reuse(
    smooth: np.ndarray,
    behind: np.ndarray,
    seen: np.ndarray,
    source: np.ndarray,
    flow: np.ndarray,
    previous: np.ndarray,
    previous_surface: np.ndarray,
    previous_seen: np.ndarray,
    same_px: float,
) -> None:
    """Take filled pixels from the previous frame where the background was there, seen or filled."""
    channels, height, width = smooth.shape
    for y in numba.prange(height):
        for x in range(width):
            if seen[y, x]:
                continue
            # What is hidden moves as the background beside it does, not as the picture made up for it.
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
            agrees, was_seen = True, True
            for j in range(2):
                for i in range(2):
                    agrees &= abs(previous_surface[top + j, left + i] - behind[y, x]) <= same_px
                    was_seen &= previous_seen[top + j, left + i]
            if not agrees:
                continue
            weight = _SEEN_WEIGHT if was_seen else _FILLED_WEIGHT
            u, v = there_x - left, there_y - top
            for c in range(channels):
                above = (1 - u) * previous[c, top, left] + u * previous[c, top, left + 1]
                below = (1 - u) * previous[c, top + 1, left] + u * previous[c, top + 1, left + 1]
                smooth[c, y, x] += weight * ((1 - v) * above + v * below - smooth[c, y, x])


@numba.njit(cache=True)
def _difference(
    frame: np.ndarray, y: int, x: int, previous: np.ndarray, there_y: float, there_x: float
) -> float:
    """Mean difference of a pixel's colour from the nearest pixel of the previous frame; inf outside of it."""
    channels, height, width = frame.shape
    row, column = int(np.rint(there_y)), int(np.rint(there_x))
    if row < 0 or column < 0 or row >= height or column >= width:
        return np.inf
    total = 0.0
    for c in range(channels):
        total += abs(frame[c, y, x] - previous[c, row, column])
    return total / channels
