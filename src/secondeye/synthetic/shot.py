"""The data of a rendered shot."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Shot:
    """One rendered shot of T frames with exact geometry; views are rectified, positions are pixel centres.

    A point is occluded if the other camera's ray to it leaves the frame, or hits a surface of opacity 0.5 or
    more whose disparity is larger by more than half a pixel. Where surfaces blend (alpha edges, glass), the
    disparity is that of the nearest surface of opacity 0.5 or more; with motion blur, that of mid-exposure.
    """

    left: Tensor  # [T, 3, H, W] float32 RGB in [0, 1]
    right: Tensor  # [T, 3, H, W]
    disparity: Tensor  # [T, 1, H, W] float32 px: x_right = x_left - disparity
    right_disparity: Tensor  # [T, 1, H, W] px: x_left = x_right + right_disparity
    left_occlusion: Tensor  # [T, 1, H, W] bool: in the left view only, also if outside the right frame
    right_occlusion: Tensor  # [T, 1, H, W] bool: in the right view only; elsewhere called `occlusion`
