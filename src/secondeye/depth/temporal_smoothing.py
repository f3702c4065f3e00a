"""Temporal smoothing of depth that was estimated for every frame alone.

Such depth is correct up to a scale and a shift that jump from frame to frame. Each frame is fitted to the
previous one, warped along the optical flow, and then blended with it where the two agree.
"""

from collections.abc import Mapping
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from secondeye.imaging.optical_flow import MIN_FLOW_SIZE_PX, backward_warp, dense_flow, forward_backward_error

MISMATCH_PX = 1.0  # forward-backward error from which a flow vector is ignored
FIT_ROUNDS = 5  # of reweighted least squares
DRIFT_DECAY = 0.05  # of the correction per frame: accumulated errors of the fit fade within a second
BLEND = 0.5  # of the previous frame where both agree
AGREEMENT = 0.05  # of the depth's range: larger differences are change, not flicker


class SmoothedFrame(NamedTuple):
    """A frame and its smoothed depth, which the next frame's depth is fitted to."""

    depth: np.ndarray  # [h, w]
    gray: np.ndarray  # uint8 [h, w]

    def tensors(self) -> dict[str, Tensor]:
        """Return both by name, as tensors that share their memory."""
        return {"smoothed_depth": torch.from_numpy(self.depth), "smoothed_gray": torch.from_numpy(self.gray)}


def smoothed_frame(tensors: Mapping[str, Tensor]) -> SmoothedFrame:
    """Return the frame that `SmoothedFrame.tensors` describes."""
    return SmoothedFrame(tensors["smoothed_depth"].numpy(), tensors["smoothed_gray"].numpy())


def smooth(
    depth: np.ndarray,  # [h, w]
    gray: np.ndarray,  # uint8 [h, w]
    previous: SmoothedFrame | None,  # None at the start of a shot
) -> SmoothedFrame:
    """Bring a frame's depth to the scale of the previous frame, and thus of the shot's first frame."""
    if previous is None:
        return SmoothedFrame(depth, gray)
    warped, usable = _warp_previous(previous, gray)
    scale, shift = fit_scale_shift(depth, warped, usable)
    aligned = depth * np.float32(scale ** (1 - DRIFT_DECAY)) + np.float32(shift * (1 - DRIFT_DECAY))
    return SmoothedFrame(_blend(aligned, warped, usable), gray)


def fit_scale_shift(
    depth: np.ndarray,  # [h, w]
    target: np.ndarray,  # [h, w]
    usable: np.ndarray,  # bool [h, w]
) -> tuple[float, float]:
    """Fit scale and shift from `depth` to `target`, robust to a minority of outliers.

    Iteratively reweighted least squares, which discounts moving objects and occlusions. Returns (1, 0) if a
    map is flat.
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
    # A fit that inverts or flattens the map is due to a flash or a dissolve; a jump is better than that.
    return (float(scale), float(shift)) if 0.2 < scale < 5 else (1.0, 0.0)


def _warp_previous(previous: SmoothedFrame, gray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the previous depth warped to this frame, and where it is reliable."""
    depth, previous_gray = previous
    if min(gray.shape) < MIN_FLOW_SIZE_PX:
        return depth, np.ones(depth.shape, np.bool_)
    flow = dense_flow(gray, previous_gray)
    error = forward_backward_error(flow, dense_flow(previous_gray, gray))
    return backward_warp(depth, flow), error < MISMATCH_PX


def _blend(depth: np.ndarray, warped: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Average with the warped previous depth where the two differ by no more than flicker."""
    spread = max(float(np.ptp(np.percentile(warped, [5, 95]))), 1e-9)
    agreement = np.exp(-(((depth - warped) / np.float32(AGREEMENT * spread)) ** 2))
    share = cv2.blur(np.float32(BLEND) * agreement * usable, (3, 3), borderType=cv2.BORDER_REPLICATE)
    return depth + share * (warped - depth)
