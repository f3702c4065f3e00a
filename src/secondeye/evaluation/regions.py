"""Region maps of the true right view: visible, disoccluded, border or unknown. Equal for every method.

They come from ground truth if there is any, otherwise from matching the right view to the left (ours).
"""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from secondeye.matching import Matcher, make_matcher
from secondeye.matching.consistency import fill_from_background, is_consistent
from secondeye.matching.flow_matcher import match_flow

UNKNOWN, VISIBLE, DISOCCLUDED, BORDER = range(4)
REGIONS = {"visible": VISIBLE, "disoccluded": DISOCCLUDED, "border": BORDER}  # those that are scored

_OCCLUDER_PX = 1.0  # an occluder is at least this much nearer than the pixel it hides
# Disparity range in which `match_by_search` looks for matches, in % (ours).
_MAX_DISPARITY_PERCENT = 18.0  # of the width, in both directions
_MARGIN_PERCENT = 1.0  # of the width, beyond the range that optical flow finds
_OUTLIER_PERCENT = 0.2  # of the pixels at either end of that range: mostly wrong
_TOLERANCE_PX = 1.0  # of the left-right check


def regions_from_truth(
    right_disparity: Tensor,  # [T, 1, H, W] px of the right view
    right_occlusion: Tensor,  # bool [T, 1, H, W]: visible to the right view only
) -> Tensor:  # uint8 [T, 1, H, W]
    """Classify pixels from exact disparity and occlusion: border, disoccluded, otherwise visible.

    A border pixel corresponds to a position outside the left frame.
    """
    outside = _is_outside(_column_in_left(right_disparity), right_disparity.shape[-1])
    regions = torch.full(right_disparity.shape, VISIBLE, dtype=torch.uint8)
    regions[right_occlusion] = DISOCCLUDED
    regions[outside] = BORDER
    return regions


class PairMatch(NamedTuple):
    """A stereo pair matched both ways; gaps have the disparity of the background beside them."""

    left: Tensor  # [T, 1, H, W] px, of the left view
    right: Tensor  # [T, 1, H, W] px, of the right view
    regions: Tensor  # uint8 [T, 1, H, W] of the right view


def match_pair(
    matcher: Matcher,
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
    *,
    tolerance_px: float,
) -> PairMatch:
    """Match both views to each other and classify the right view's pixels.

    Visible where both directions agree, disoccluded where something nearer hides that position in the left
    view, border where the position is outside the left frame, unknown otherwise.
    """
    forward = matcher(left, right)
    mirrored = matcher(right.flip(-1), left.flip(-1))  # of the right view, mirrored
    consistent = is_consistent(mirrored, forward.flip(-1), tolerance_px)
    background = fill_from_background(mirrored, consistent).flip(-1)
    visible = consistent.flip(-1)
    known = is_consistent(forward, mirrored.flip(-1), tolerance_px)
    surface = fill_from_background(forward, known)
    column = _column_in_left(background)
    outside = _is_outside(column, left.shape[-1])
    occluder = surface.gather(-1, column.round().clamp(0, left.shape[-1] - 1).long())
    regions = torch.full(visible.shape, UNKNOWN, dtype=torch.uint8)
    regions[occluder > background + _OCCLUDER_PX] = DISOCCLUDED
    regions[outside] = BORDER
    regions[visible] = VISIBLE
    return PairMatch(surface, background, regions)


def regions_from_match(
    matcher: Matcher,
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
    *,
    tolerance_px: float,
) -> Tensor:  # uint8 [T, 1, H, W]
    """Match both views to each other and return the regions of the right view."""
    return match_pair(matcher, left, right, tolerance_px=tolerance_px).regions


def match_by_search(
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
) -> PairMatch:
    """Match frame by frame in the disparity range that optical flow finds, on both sides of the screen."""
    pairs = zip(left.split(1), right.split(1), strict=True)
    matches = [match_pair(_signed_matcher(*pair), *pair, tolerance_px=_TOLERANCE_PX) for pair in pairs]
    return PairMatch(*(torch.cat(planes) for planes in zip(*matches, strict=True)))


def _signed_matcher(left: Tensor, right: Tensor) -> Matcher:
    """Return a block matcher that also finds negative disparities, by shifting the right view to the left."""
    far_px, near_px = _disparity_range(left, right)
    matcher = make_matcher("block", near_px - far_px)

    def match(left: Tensor, right: Tensor) -> Tensor:
        shifted = F.pad(left, (-far_px, 0, 0, 0), "replicate"), F.pad(right, (0, -far_px, 0, 0), "replicate")
        return matcher(*shifted)[..., -far_px:] + far_px

    return match


def _disparity_range(left: Tensor, right: Tensor) -> tuple[int, int]:
    """Return the smallest disparity of a frame (at most 0) and the largest one, px."""
    percent = left.shape[-1] / 100
    disparity = match_flow(left, right).disparity
    known = disparity[~disparity.isnan()].numpy()
    ends = np.percentile(known, [_OUTLIER_PERCENT, 100 - _OUTLIER_PERCENT]) if known.size else np.zeros(2)
    margin, limit = _MARGIN_PERCENT * percent, _MAX_DISPARITY_PERCENT * percent
    far, near = np.clip(ends + np.array([-margin, margin]), -limit, limit)
    return min(0, math.floor(far)), max(0, math.ceil(near))


def _column_in_left(right_disparity: Tensor) -> Tensor:
    """Return the column of the left view to which each pixel of the right view corresponds."""
    return torch.arange(right_disparity.shape[-1]) + right_disparity


def _is_outside(column: Tensor, width: int) -> Tensor:
    return (column < -0.5) | (column > width - 0.5)
