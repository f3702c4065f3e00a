"""Stereo matching by optical flow (DIS): frame by frame, no weights, not limited to rows.

Finds disparities of either sign and the remaining vertical disparity. It answers nearly everywhere, even
where it can only guess, so check it for consistency. The evaluation measures results with it because no
method produces its disparity with it.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from secondeye.imaging.optical_flow import dense_flow_frames
from secondeye.matching.interface import Matcher

_MAX_VERTICAL_PERCENT = 0.5  # of the width: two thirds of the matches farther off their row are wrong
_MAX_VERTICAL_PX = 1.0  # lower bound, the flow's accuracy in small frames


class FlowMatch(NamedTuple):
    """Positions of the left view's pixels in the right view."""

    disparity: Tensor  # [T, 1, H, W] px, NaN where unmatched
    vertical: Tensor  # [T, 1, H, W] px, positive if lower in the right view; 0 if rectified


def make_flow_matcher(max_disparity_px: int) -> Matcher:
    """Return a matcher for disparities in [-max_disparity_px, max_disparity_px]."""

    def match_by_flow(left: Tensor, right: Tensor) -> Tensor:
        disparity = match_flow(left, right).disparity
        return torch.where(disparity.abs() <= max_disparity_px, disparity, torch.nan)

    return match_by_flow


def match_flow(
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
) -> FlowMatch:
    """Match by optical flow; NaN where a pixel leaves the right view or is too far off its row."""
    horizontal, vertical = dense_flow_frames(left, right, fine=True).split(1, dim=1)
    width = left.shape[-1]
    target = torch.arange(width) + horizontal
    inside = (target > -0.5) & (target < width - 0.5)
    inside &= vertical.abs() <= max(_MAX_VERTICAL_PX, _MAX_VERTICAL_PERCENT / 100 * width)
    return FlowMatch(torch.where(inside, -horizontal, torch.nan), vertical)
