"""Separate takes: two recordings of one scene whose pictures match, but whose motion does not (ours)."""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from secondeye.alignment.correspondences import Correspondences
from secondeye.imaging.optical_flow import dense_flow, to_gray

_MIN_DIFFERENCE_PX = 0.5  # a frame; flow is less exact than this where views are noisy
_MIN_DIFFERENCE = 0.5  # relative to the motion: views of one moment differ by parallax only, far less


class MotionDifference(NamedTuple):
    """How differently matching points move in the two views, medians in px a frame."""

    difference_px: float
    motion_px: float  # of the view that moves more

    @property
    def separate_takes(self) -> bool:
        """Whether the views cannot show the same moment."""
        return self.difference_px > max(_MIN_DIFFERENCE_PX, _MIN_DIFFERENCE * self.motion_px)


def motion_difference(
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
    sampled: Tensor,  # int [N]: frame numbers of `matches`
    matches: Correspondences,
) -> MotionDifference:
    """Compare the optical flow of matching points; 0 and 0 for a single frame or without a match."""
    right_xy = matches.x - matches.disparity, matches.y + matches.vertical
    flows = [np.zeros((2, 0, 2))]
    for number, frame in enumerate(sampled.tolist() if len(left) > 1 else []):
        at = matches.frame == number
        first = min(frame, len(left) - 2)
        pairs = (left, matches.x, matches.y), (right, *right_xy)
        flows.append(np.stack([_flow_at(view[first : first + 2], x[at], y[at]) for view, x, y in pairs]))
    of_left, of_right = np.concatenate(flows, axis=1)
    if not len(of_left):
        return MotionDifference(0.0, 0.0)
    difference, *motions = (np.hypot(*flow.T) for flow in (of_left - of_right, of_left, of_right))
    return MotionDifference(float(np.median(difference)), float(max(map(np.median, motions))))


def _flow_at(frames: Tensor, x: np.ndarray, y: np.ndarray) -> np.ndarray:  # [N, 2] px
    """Return the optical flow from the first to the second of two frames at some points."""
    height, width = frames.shape[-2:]
    row, column = y.round().clip(0, height - 1).astype(int), x.round().clip(0, width - 1).astype(int)
    flow: np.ndarray = dense_flow(*to_gray(frames))[row, column]
    return flow
