"""Whether one eye lags behind: what moves up or down then stands at two heights (ours).

Only vertical motion tells. Something that moves across in a lagging eye looks like something at another
depth, in a picture that is as good as any.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from secondeye.alignment.correspondences import Correspondences, find_correspondences
from secondeye.alignment.vertical import fit_least_absolute
from secondeye.imaging.optical_flow import dense_flow, to_gray

_MOST = 3  # frames
_MIN_MOTION_PX = 0.5  # by which points must move differently, 10th to 90th percentile
_MIN_EXPLAINED = 0.3  # share of the vertical misses that lagging must explain before it is tried
_FEWER_MISSES = 0.7  # a lag is believed when with it the misses fall to that share, at most
_AS_MANY = 0.9  # and at least that share of the matches remains


class Lag(NamedTuple):
    """By how many frames the right eye lags (negative: it is ahead), and how sure that is."""

    frames: int  # 0 without strong evidence
    before_px: float  # mean vertical miss as the frames are paired
    after_px: float  # with the lag taken out


def find_lag(
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
    sampled: Tensor,  # int [N]: the frames of `matches`
    matches: Correspondences,
    *,
    max_disparity_percent: float,  # as in `find_matches`
    max_vertical_percent: float,
) -> Lag:
    """Compare vertical misses with vertical motion; what that suggests must also pair the frames better."""
    before = _miss(matches)
    guess = _guess(left, sampled, matches)
    frames = sampled[(sampled + guess >= 0) & (sampled + guess < len(left))]
    if not guess or not len(frames):
        return Lag(0, before, before)
    again = find_correspondences(
        left[frames],
        right[frames + guess],
        max_disparity_percent=max_disparity_percent,
        max_vertical_percent=max_vertical_percent,
    )
    after = _miss(again)
    better = after <= _FEWER_MISSES * before and again.support >= _AS_MANY * matches.support
    return Lag(guess if better else 0, before, after)


def _miss(matches: Correspondences) -> float:
    """How far points are from the rows that the median of their frame gives them, at the mean."""
    misses = [np.zeros(0)]
    for frame in np.unique(matches.frame):
        vertical = matches.vertical[matches.frame == frame]
        misses.append(np.abs(vertical - np.median(matches.vertical)))
    together = np.concatenate(misses)
    return float(together.mean()) if len(together) else 0.0


def _guess(left: Tensor, sampled: Tensor, matches: Correspondences) -> int:
    """A lag of k frames shows every point where it was k frames ago: vertical = a - k * motion."""
    moved = _motion(left, sampled, matches)
    usual = matches.vertical - np.median(matches.vertical) if len(moved) else moved
    if not len(moved) or np.subtract(*np.percentile(moved, [90, 10])) < _MIN_MOTION_PX:
        return 0
    terms = np.stack([np.ones_like(moved), moved], axis=1)
    fitted = fit_least_absolute(terms, usual)
    explained = 1 - np.abs(usual - terms @ fitted).sum() / max(np.abs(usual).sum(), 1e-9)
    lag = round(-float(fitted[1]))
    return lag if explained >= _MIN_EXPLAINED and abs(lag) <= _MOST else 0


def _motion(
    left: Tensor, sampled: Tensor, matches: Correspondences
) -> np.ndarray:  # [N] px a frame, downwards
    moved = np.zeros(len(matches.x))
    for number, frame in enumerate(sampled.tolist()):
        first = min(frame, len(left) - 2)
        if first < 0:
            continue
        here, there = to_gray(left[first : first + 2])
        mine = matches.frame == number
        row, column = (values[mine].round().astype(int) for values in (matches.y, matches.x))
        moved[mine] = dense_flow(here, there)[row, column, 1]
    return moved
