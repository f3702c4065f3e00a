"""Stereo matching by optical flow (DIS): frame by frame, no weights, and no rows to keep to.

It finds disparities of either sign, and what is left of vertical disparity. It answers nearly everywhere,
also where it can only guess: check it from the other eye. The evaluation judges pairs with it, since no
method makes its disparity with it.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from secondeye.imaging.optical_flow import dense_flow_frames
from secondeye.matching import Matcher

_LARGEST_VERTICAL_PERCENT = 0.5  # of the width: two of three matches that miss their row by more are wrong
_LARGEST_VERTICAL_PX = 1.0  # at least, since the flow is no better than that in small pictures


class Match(NamedTuple):
    """Where the left eye's pixels are found in the right eye."""

    disparity: Tensor  # [T, 1, H, W] px, NaN for none
    vertical: Tensor  # [T, 1, H, W] px, how much lower they lie there: 0 in a rectified pair


def make_flow_matcher(max_disparity_px: int) -> Matcher:
    """A matcher that finds disparities in [-max_disparity_px, max_disparity_px]."""

    def match_by_flow(left: Tensor, right: Tensor) -> Tensor:
        disparity = match_flow(left, right).disparity
        return torch.where(disparity.abs() <= max_disparity_px, disparity, torch.nan)

    return match_by_flow


def match_flow(
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
) -> Match:
    """No disparity where a pixel would lie beside the right eye's picture, or far from its own row."""
    across, vertical = dense_flow_frames(left, right, fine=True).split(1, dim=1)
    width = left.shape[-1]
    place = torch.arange(width) + across
    found = (place > -0.5) & (place < width - 0.5)
    found &= vertical.abs() <= max(_LARGEST_VERTICAL_PX, _LARGEST_VERTICAL_PERCENT / 100 * width)
    return Match(torch.where(found, -across, torch.nan), vertical)
