"""Keep a shot's depth steady when every frame was estimated alone.

Such estimates are right up to a scale and a shift, which jump from frame to frame. So each frame is fitted
to the frame before it, carried along the optical flow, and then blended with it where they agree. Ours.
"""

from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from secondeye.imaging.optical_flow import MIN_FLOW_SIZE_PX, backward_warp, dense_flow, forward_backward_error

MISMATCH_PX = 1.0  # there-and-back error from which a flow vector is not used
FIT_ROUNDS = 5  # of reweighted least squares
FORGETTING = 0.05  # of the correction per frame: what errors of the fit would add up to fades in a second
BLEND = 0.5  # of the frame before, where both agree
AGREEMENT = 0.05  # of the depth's spread: differences above it are change, not flicker


def smooth_over_time(
    shot: Iterable[tuple[np.ndarray, np.ndarray]],  # of each frame: depth [h, w], grey picture [h, w]
) -> Iterator[np.ndarray]:  # [h, w]
    """Yield each frame's depth on the scale of the shot's first frame; looks at no frame ahead, keeps one."""
    previous: tuple[np.ndarray, np.ndarray] | None = None
    for depth, grey in shot:
        if previous is not None:
            carried, usable = _carry(previous, grey)
            scale, shift = fit_scale_shift(depth, carried, usable)
            aligned = depth * np.float32(scale ** (1 - FORGETTING)) + np.float32(shift * (1 - FORGETTING))
            depth = _blend(aligned, carried, usable)
        previous = depth, grey
        yield depth


def fit_scale_shift(
    depth: np.ndarray,  # [h, w]
    target: np.ndarray,  # [h, w]
    usable: np.ndarray,  # [h, w]
) -> tuple[float, float]:
    """Scale and shift that bring `depth` closest to `target`, whatever a minority of pixels says.

    Least squares, reweighted so that movers and hidden places lose their vote. (1, 0) if a map is flat.
    """
    x, y = depth[usable].astype(np.float64), target[usable].astype(np.float64)
    if len(x) < 2 or min(x.std(), y.std()) < 1e-6 * max(1.0, np.abs(x).max()):
        return 1.0, 0.0
    weight = np.ones_like(x)
    scale, shift = 1.0, 0.0
    for _ in range(FIT_ROUNDS):
        mean_x, mean_y = np.average(x, weights=weight), np.average(y, weights=weight)
        scale = np.average((x - mean_x) * (y - mean_y), weights=weight)
        scale /= max(np.average((x - mean_x) ** 2, weights=weight), 1e-12)
        shift = mean_y - scale * mean_x
        error = np.abs(scale * x + shift - y)
        weight = 1 / (1 + (error / max(2 * float(np.median(error)), 1e-9)) ** 2)
    # A fit that turns the map over or flattens it has met a flash or a dissolve; better a jump than that.
    return (float(scale), float(shift)) if 0.2 < scale < 5 else (1.0, 0.0)


def _carry(previous: tuple[np.ndarray, np.ndarray], grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The previous depth as this frame sees it, and where that can be trusted."""
    depth, before = previous
    if min(grey.shape) < MIN_FLOW_SIZE_PX:
        return depth, np.ones(depth.shape, np.bool_)
    flow = dense_flow(grey, before)
    return backward_warp(depth, flow), forward_backward_error(flow, dense_flow(before, grey)) < MISMATCH_PX


def _blend(depth: np.ndarray, carried: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Average with the carried depth where the two differ by no more than flicker."""
    spread = max(float(np.ptp(np.percentile(carried, [5, 95]))), 1e-9)
    agreement = np.exp(-(((depth - carried) / np.float32(AGREEMENT * spread)) ** 2))
    share = cv2.blur(np.float32(BLEND) * agreement * usable, (3, 3), borderType=cv2.BORDER_REPLICATE)
    return depth + share * (carried - depth)
