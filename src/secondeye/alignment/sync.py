"""Temporal offset between the views: vertical motion then appears as vertical disparity (ours).

Only vertical motion is evidence. Horizontal motion in a delayed view looks like a different depth in a valid
stereo pair.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from secondeye.alignment.correspondences import Correspondences, find_correspondences
from secondeye.alignment.vertical import fit_l1
from secondeye.imaging.optical_flow import dense_flow, to_gray

_MAX_LAG = 3  # frames
_MIN_MOTION_PX = 0.5  # spread of vertical motion, 10th to 90th percentile
_MIN_EXPLAINED = 0.3  # share of the vertical residuals that a lag must explain to be tested
_MAX_RESIDUAL_RATIO = 0.7  # a lag is accepted if the residuals shrink to this share
_MIN_REMAINING_MATCHES = 0.9  # and this share of the matches remains


class Lag(NamedTuple):
    """By how many frames the right view lags behind (negative: leads), and the evidence."""

    frames: int  # 0 without strong evidence
    before_px: float  # mean vertical residual without correction
    after_px: float  # with the lag corrected


def find_lag(
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
    sampled: Tensor,  # int [N]: frame numbers of `matches`
    matches: Correspondences,
    *,
    max_disparity_percent: float,  # as in `find_correspondences`
    max_vertical_percent: float,
) -> Lag:
    """Estimate the lag from vertical motion, and accept it if re-paired frames match better."""
    initial = _mean_residual(matches)
    estimate = _estimate_lag(left, sampled, matches)
    frames = sampled[(sampled + estimate >= 0) & (sampled + estimate < len(left))]
    if not estimate or not len(frames):
        return Lag(0, initial, initial)
    shifted = find_correspondences(
        left[frames],
        right[frames + estimate],
        max_disparity_percent=max_disparity_percent,
        max_vertical_percent=max_vertical_percent,
    )
    corrected = _mean_residual(shifted)
    improved = corrected <= _MAX_RESIDUAL_RATIO * initial
    enough_matches = shifted.match_ratio >= _MIN_REMAINING_MATCHES * matches.match_ratio
    return Lag(estimate if improved and enough_matches else 0, initial, corrected)


def _mean_residual(matches: Correspondences) -> float:
    """Return the mean absolute deviation from the median vertical disparity of all frames, px."""
    # Not the median of each frame: a lag during a vertical pan shifts all points of a frame equally.
    if not len(matches.vertical):
        return 0.0
    return float(np.abs(matches.vertical - np.median(matches.vertical)).mean())


def _estimate_lag(left: Tensor, sampled: Tensor, matches: Correspondences) -> int:
    """Estimate the lag k by fitting vertical = a - k * motion: a delayed view shows where points were."""
    motion = _vertical_motion(left, sampled, matches)
    residual = matches.vertical - np.median(matches.vertical) if len(motion) else motion
    if not len(motion) or np.subtract(*np.percentile(motion, [90, 10])) < _MIN_MOTION_PX:
        return 0
    terms = np.stack([np.ones_like(motion), motion], axis=1)
    fitted = fit_l1(terms, residual)
    explained = 1 - np.abs(residual - terms @ fitted).sum() / max(np.abs(residual).sum(), 1e-9)
    lag = round(-float(fitted[1]))
    return lag if explained >= _MIN_EXPLAINED and abs(lag) <= _MAX_LAG else 0


def _vertical_motion(
    left: Tensor, sampled: Tensor, matches: Correspondences
) -> np.ndarray:  # [N] px a frame, downwards
    """Return the vertical optical flow at every point."""
    motion = np.zeros(len(matches.x))
    for number, frame in enumerate(sampled.tolist()):
        first = min(frame, len(left) - 2)
        if first < 0:
            continue
        gray, next_gray = to_gray(left[first : first + 2])
        in_frame = matches.frame == number
        row, column = (values[in_frame].round().astype(int) for values in (matches.y, matches.x))
        motion[in_frame] = dense_flow(gray, next_gray)[row, column, 1]
    return motion
