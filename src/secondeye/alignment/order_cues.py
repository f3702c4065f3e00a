"""View order from independent cues: which view is the left one (ours).

Geometry alone cannot tell a swapped pair from a scene turned inside out. What can is what pictures show of
depth without stereo: who owns an occluded strip, who is uncovered by motion, that grounds come towards the
viewer, and that eyes do not diverge.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from torch import Tensor

from secondeye.alignment.view_order import match_both_ways, resize_to_work, strip_score
from secondeye.imaging.optical_flow import backward_warp, dense_flow, to_gray

GAP_FRAMES = 2  # between the frames whose motion uncovers a background
_MIN_STEP_PX = 2.0  # disparity step beside an uncovered pixel
_REACH_PX = 15  # in which both surfaces are looked for
_INCONSISTENT_PX, _INCONSISTENT = 1.0, 0.1  # flow forth and back: px, and relative to its length
_MIN_MOTION_PX = 1.0  # difference of the motions of the two surfaces
_FULL_CONFIDENCE_PIXELS = 400.0  # uncovered pixels
_DIVERGENT_PERCENT = 3.0  # of the width: disparity beyond which one of the two signs is unusual

# Median over a film's clips from which a cue counts. Single shots in order reached -0.23, -0.37, -0.82 and 0.
_STRONG = {"strips": 0.15, "uncovered": 0.15, "ground": 0.3, "screen": 0.3}
_ALONE = 1.5  # factor of these for a film with one shot
_AGREEING = 0.75  # share of the clips, weighted by evidence, on the side of the median
_SHOTS, _SHOT_STRIPS = 3, 0.1  # so many shots, each with this evidence of strips, are a cue of their own
_DOUBTFUL_STRIPS = -0.05  # below, the order is uncertain even if no cue is strong
_MIN_CUES = 2  # for a swap, more than against it


class OrderCues(NamedTuple):
    """Evidence of each cue in [-1, 1]: 1 is in order, -1 is swapped, 0 is undecided."""

    strips: float  # pixels that one view sees look like the farther neighbour
    uncovered: float  # pixels that motion covers or uncovers lie on the farther surface
    ground: float  # lower rows are nearer
    screen: float  # no point is far behind the screen


class OrderVerdict(NamedTuple):
    """What a film's cues say together."""

    swapped: bool  # at least two strong cues more than against it, occlusion strips not against it
    uncertain: bool  # not swapped, but something speaks for it that neither a cue nor a statement outweighs
    cues: OrderCues  # medians over the clips

    @property
    def text(self) -> str:
        """The cues for people."""
        return ", ".join(f"{name} {value:+.2f}" for name, value in self.cues._asdict().items())


def judge_order(
    clips: Sequence[OrderCues],
    shots: Sequence[int],  # of each clip
    *,
    stated: bool,  # whether the film says itself which view is the left one
) -> OrderVerdict:
    """Judge the view order of a film from the cues of its clips: in order unless much speaks against it."""
    table = np.array(clips, np.float64).reshape(-1, len(OrderCues._fields))
    medians = OrderCues(*np.median(table, axis=0).round(4).tolist()) if len(table) else OrderCues(0, 0, 0, 0)
    factor = 1.0 if len(set(shots)) > 1 else _ALONE
    votes = [
        np.sign(median) * (abs(median) >= factor * _STRONG[name] and _agree(table[:, k], median))
        for k, (name, median) in enumerate(medians._asdict().items())
    ]
    by_shot = [np.median(table[np.array(shots) == shot, 0]) for shot in sorted(set(shots))]
    if len(by_shot) >= _SHOTS and all(np.sign(medians.strips) * s >= _SHOT_STRIPS for s in by_shot):
        votes.append(np.sign(medians.strips))
    against, pro = votes.count(-1), votes.count(1)
    swapped = against - pro - stated >= _MIN_CUES and medians.strips < 0
    doubtful = against > 0 or medians.strips <= _DOUBTFUL_STRIPS
    return OrderVerdict(swapped, not swapped and doubtful and against >= pro + stated, medians)


def _agree(values: np.ndarray, median: float) -> bool:
    """Whether most of the evidence has the sign of the median."""
    return bool(np.abs(values[values * median > 0]).sum() >= _AGREEING * np.abs(values).sum())


def order_cues(
    left: Tensor,  # [T, 3, H, W], rectified, colours matched
    right: Tensor,  # [T, 3, H, W]
    later: tuple[
        Tensor, Tensor
    ],  # both views of each frame a little later or earlier; [0, 3, H, W] for stills
    *,
    far_px: float,  # disparity range of the pair
    near_px: float,
) -> OrderCues:
    """Return the evidence of each cue; the views exchanged give the opposite."""
    factor, (left, right) = resize_to_work(left, right)
    _, moved = resize_to_work(*later)
    far, near = far_px / factor, near_px / factor
    there = _one_order(left, right, moved[0], far, near)
    back = _one_order(right, left, moved[1], -near, -far)
    strips, uncovered, ground = ((a - b) / 2 for a, b in zip(there, back, strict=True))
    width_percent = left.shape[-1] / 100
    beyond = [max(0.0, px / width_percent - _DIVERGENT_PERCENT) for px in (near, -far)]
    return OrderCues(strips, uncovered, ground, float(np.clip(beyond[0] - beyond[1], -1, 1)))


def _one_order(
    left: Tensor, right: Tensor, later: Tensor, far: float, near: float
) -> tuple[float, float, float]:  # strips, uncovered, ground
    matched = match_both_ways(left, right, far, near)
    disparity = [forward for forward, _ in matched]
    grays = zip(to_gray(left), to_gray(later), disparity, strict=False)
    uncovered = [_uncovered(gray, other, d) for gray, other, d in grays]
    return strip_score(left, right, matched), _pool(uncovered), _ground(np.stack(disparity))


def _pool(found: list[np.ndarray]) -> float:
    scores = np.concatenate([np.zeros(0), *found])
    return float(scores.mean() * min(1.0, len(scores) / _FULL_CONFIDENCE_PIXELS)) if len(scores) else 0.0


def _uncovered(gray: np.ndarray, later: np.ndarray, disparity: np.ndarray) -> np.ndarray:  # [N]
    """Return for each pixel that motion hides 1 if it lies on the farther surface, -1 if on the nearer."""
    forth, back = dense_flow(gray, later), dense_flow(later, gray)
    returned = forth + backward_warp(back, forth)
    length = np.hypot(forth[..., 0], forth[..., 1])
    hidden = np.hypot(returned[..., 0], returned[..., 1]) > _INCONSISTENT_PX + _INCONSISTENT * length
    known = ~np.isnan(disparity)
    kernel = np.ones((3, 2 * _REACH_PX + 1), np.uint8)
    filled = disparity.astype(np.float32)
    nearest = cv2.dilate(np.where(known, filled, -1e6).astype(np.float32), kernel)
    farthest = cv2.erode(np.where(known, filled, 1e6).astype(np.float32), kernel)
    step = nearest - farthest
    motion = cv2.dilate(forth, kernel) - cv2.erode(forth, kernel)
    moving = np.hypot(motion[..., 0], motion[..., 1]) >= _MIN_MOTION_PX
    chosen = hidden & known & moving & (step >= _MIN_STEP_PX) & (step < 1e5)
    scores: np.ndarray = 1 - 2 * (filled[chosen] - farthest[chosen]) / step[chosen]
    return scores


def _ground(disparity: np.ndarray) -> float:  # [T, h, w] px, NaN where unmatched
    """Return the correlation of row and disparity."""
    frame, row, column = np.nonzero(~np.isnan(disparity))
    values = disparity[frame, row, column]
    if len(values) < 2 or values.std() < 1e-6 or row.std() == 0:
        return 0.0
    return float(np.corrcoef(row, values)[0, 1])
