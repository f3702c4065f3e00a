"""Alignment of the views of a real stereo film."""

from torch import Tensor

from secondeye.alignment.correspondences import find_correspondences
from secondeye.alignment.disparity_range import disparity_range
from secondeye.alignment.vertical import filter_by_row
from secondeye.dataset.corrections import apply_shift


def align_views(
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
    every: int = 1,  # frames from one that is matched to the next
) -> tuple[Tensor, Tensor]:  # [T, 3, H, w]
    """Shift the views as the stage `shift` does, so that the farthest point has a disparity of about 1 px."""
    matches = find_correspondences(
        left[::every], right[::every], max_disparity_percent=25, max_vertical_percent=3
    )
    found = disparity_range(filter_by_row(matches, *left.shape[-2:]), margin_px=1)
    return apply_shift(left, right, found.shift_px)
