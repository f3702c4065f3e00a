"""Motion of the background beside and behind holes, from frame to frame of a warped view (ours).

Optical flow is measured between frames that are filled, in both directions, and kept where the two confirm
each other. Holes, and what stands before the background, are completed from the background: a point moves
like the nearest pixel of its row that shows the same surface.
"""

from typing import NamedTuple

import cv2
import numba
import numpy as np
from numpy.typing import NDArray

from secondeye.imaging.optical_flow import forward_backward_error
from secondeye.inpaint.fill import FillState, flow_between, same_surface_px

_MAX_ERROR_PX = 1.0  # of the forward-backward check, at the size of the flow
_AVERAGE_PX = 2  # pixels on each side that the motion of one is averaged over, at the size of the flow
_CLEAR_PX = 4  # pixels on each side that must show no hole and nothing nearer, or the flow is mixed
_SEARCH_SHARE = 0.25  # of the width: how far from a point or a hole its surface is looked for

_kernel = numba.njit(cache=True, nogil=True)


def search_px(width: int) -> int:
    """Return how far from a point or a hole its surface is looked for in images of this width, px."""
    return max(1, round(_SEARCH_SHARE * width))


class Motion(NamedTuple):
    """Where the pixels of a frame are in a neighbouring frame."""

    flow: NDArray[np.float32]  # [h, w, 2] px of this size; NaN where no flow is confirmed
    disparity: NDArray[np.float32]  # [h, w] px of the whole frame, the background's in holes


def motion_between(frame: FillState, other: FillState) -> tuple[Motion, Motion] | None:
    """Return the motion from a frame to another and back; None for frames too small for optical flow."""
    forward, backward = flow_between(frame.gray, other.gray), flow_between(other.gray, frame.gray)
    if forward is None or backward is None:
        return None
    return _confirm(frame, forward, backward), _confirm(other, backward, forward)


def _confirm(frame: FillState, flow: np.ndarray, backward: np.ndarray) -> Motion:
    """Average the flow over confirmed, visible pixels of the same surface."""
    height, width = frame.visible.shape
    rows, columns = (
        ((np.arange(small) + 0.5) * side / small).astype(np.intp)
        for small, side in zip(flow.shape[:2], (height, width), strict=True)
    )
    nearest = np.ix_(rows, columns)
    disparity = np.ascontiguousarray(frame.disparity.numpy()[nearest])
    same_px, around = same_surface_px(width), np.ones((2 * _CLEAR_PX + 1,) * 2, np.uint8)
    is_clear = cv2.erode(frame.visible.numpy()[nearest].astype(np.uint8), around) > 0
    is_clear &= cv2.dilate(disparity, around) - disparity <= 2 * same_px
    confirmed = is_clear & (forward_backward_error(flow, backward) <= _MAX_ERROR_PX)
    return Motion(_average(flow, confirmed, disparity, same_px, _AVERAGE_PX), disparity)


@_kernel
def _average(
    flow: np.ndarray,  # [h, w, 2]
    confirmed: np.ndarray,  # bool [h, w]
    disparity: np.ndarray,  # [h, w] px
    same_px: float,
    reach: int,
) -> np.ndarray:  # [h, w, 2], NaN without a confirmed pixel of the same surface within reach
    height, width, _ = flow.shape
    averaged = np.empty_like(flow)
    for y in range(height):
        for x in range(width):
            move_x, move_y, count = 0.0, 0.0, 0
            for j in range(max(0, y - reach), min(height, y + reach + 1)):
                for i in range(max(0, x - reach), min(width, x + reach + 1)):
                    if confirmed[j, i] and abs(disparity[j, i] - disparity[y, x]) <= same_px:
                        move_x += flow[j, i, 0]
                        move_y += flow[j, i, 1]
                        count += 1
            averaged[y, x, 0] = move_x / count if count else np.nan
            averaged[y, x, 1] = move_y / count if count else np.nan
    return averaged


def follow(
    points: np.ndarray,  # float [N, 2] px (x, y) of a frame
    surfaces: np.ndarray,  # [N] px: the disparity of each point
    moved: np.ndarray,  # float [N, 2] px (x, y), from `points` to this frame; updated
    lost: np.ndarray,  # bool [N], updated: True where a point leaves the frame or its motion is unknown
    motion: Motion,  # to the next frame
    height: int,  # px, of the whole frame
    width: int,
) -> None:
    """Add the motion to the next frame to the displacement of points that move with their surface."""
    rows, columns = motion.disparity.shape
    _follow(
        points,
        surfaces,
        moved,
        lost,
        *motion,
        same_surface_px(width),
        (height / rows, width / columns),
        search_px(columns),
    )


@_kernel
def _follow(
    points: np.ndarray,
    surfaces: np.ndarray,
    moved: np.ndarray,
    lost: np.ndarray,
    flow: np.ndarray,  # [h, w, 2]
    disparity: np.ndarray,  # [h, w]
    same_px: float,
    scale: tuple[float, float],  # of the frame: down, across
    reach: int,
) -> None:
    rows, columns = disparity.shape
    for n in range(len(points)):
        if lost[n]:
            continue
        row = int(np.floor((points[n, 1] + moved[n, 1] + 0.5) / scale[0]))
        column = int(np.floor((points[n, 0] + moved[n, 0] + 0.5) / scale[1]))
        if row < 0 or column < 0 or row >= rows or column >= columns:
            lost[n] = True
            continue
        found = -1
        for away in range(reach + 1):
            for x in (column - away, column + away):
                is_inside = found < 0 and 0 <= x < columns
                if is_inside and abs(disparity[row, x] - surfaces[n]) <= same_px:
                    found = x if not np.isnan(flow[row, x, 0]) else -1
            if found >= 0:
                break
        if found < 0:
            lost[n] = True
        else:
            moved[n, 0] += scale[1] * flow[row, found, 0]
            moved[n, 1] += scale[0] * flow[row, found, 1]
