"""One frozen map per clip that says what each pixel of the right eye is: no method brings a mask of its own.

It comes from the truth where there is one, else from matching the right eye to the left (ours).
"""

import torch
from torch import Tensor

from secondeye.matching import Matcher
from secondeye.matching.consistency import fill_from_background, is_consistent

UNKNOWN, VISIBLE, DISOCCLUDED, BORDER = range(4)
NAMES = {"visible": VISIBLE, "disoccluded": DISOCCLUDED, "border": BORDER}

_NEARER_PX = 1.0  # what hides a pixel is at least this much nearer


def regions_from_truth(
    right_disparity: Tensor,  # [T, 1, H, W] px of the right eye
    right_occlusion: Tensor,  # bool [T, 1, H, W]: the right eye sees it, the left does not
) -> Tensor:  # uint8 [T, 1, H, W]
    """Hidden pixels lie beyond the left eye's frame (border) or behind something (disoccluded)."""
    outside = _outside(_place_in_left(right_disparity), right_disparity.shape[-1])
    regions = torch.full(right_disparity.shape, VISIBLE, dtype=torch.uint8)
    regions[right_occlusion] = DISOCCLUDED
    regions[outside] = BORDER
    return regions


def regions_from_match(
    matcher: Matcher,
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
    *,
    tolerance_px: float,
) -> Tensor:  # uint8 [T, 1, H, W]
    """Match the right eye to the left: visible where both directions agree, disoccluded where something
    nearer hides the place in the left eye, border where that place lies outside, unknown otherwise.
    """
    forward = matcher(left, right)
    mirrored = matcher(right.flip(-1), left.flip(-1))  # of the right eye, mirrored
    seen = is_consistent(mirrored, forward.flip(-1), tolerance_px)
    behind = fill_from_background(mirrored, seen).flip(-1)
    visible = seen.flip(-1)
    known = is_consistent(forward, mirrored.flip(-1), tolerance_px)
    surface = fill_from_background(forward, known)
    place = _place_in_left(behind)
    outside = _outside(place, left.shape[-1])
    there = surface.gather(-1, place.round().clamp(0, left.shape[-1] - 1).long())
    regions = torch.full(visible.shape, UNKNOWN, dtype=torch.uint8)
    regions[there > behind + _NEARER_PX] = DISOCCLUDED
    regions[outside] = BORDER
    regions[visible] = VISIBLE
    return regions


def _place_in_left(right_disparity: Tensor) -> Tensor:
    """The column of the left eye at which a pixel of the right eye would be seen."""
    return torch.arange(right_disparity.shape[-1]) + right_disparity


def _outside(place: Tensor, width: int) -> Tensor:
    return (place < -0.5) | (place > width - 0.5)
