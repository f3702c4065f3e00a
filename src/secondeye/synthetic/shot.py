"""What a rendered shot is: two views and everything that is known about them."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Shot:
    """One shot, exact. T frames; the two views are rectified; positions are pixel centres.

    A point is occluded when the other eye's ray to it leaves the frame, or meets something at least half
    opaque whose disparity is larger by more than half a pixel. Where surfaces mix (alpha edges, glass), the
    disparity is that of the nearest one at least half opaque; with motion blur, that of mid-exposure.
    """

    left: Tensor  # [T, 3, H, W] float32 RGB in [0, 1]
    right: Tensor  # [T, 3, H, W]
    disparity: Tensor  # [T, 1, H, W] float32 px: x_right = x_left - disparity
    right_disparity: Tensor  # [T, 1, H, W] px, of the right view's pixels: x_left = x_right + right_disparity
    left_occlusion: Tensor  # [T, 1, H, W] bool: the left eye sees it, the right does not, in or out of frame
    right_occlusion: (
        Tensor  # [T, 1, H, W] bool: the right eye sees it, the left does not: the project's `occlusion`
    )
