"""The warped view of a window, and the view that its inpainter's network is conditioned on.

The released network was trained on the soft splat, so it gets one. The image is composed with the sharp warp.
"""

import math

from torch import Tensor

from secondeye.imaging.arrays import occlusion_mask
from secondeye.inpaint import Conditioning, Warped
from secondeye.splat import exponent_at_width, splat
from secondeye.warp import warp

RELEASED_EXPONENT_PER_PX = math.log2(1.414)  # at a width of 1024 px; the paper says sqrt(2)


def warped_window(
    left: Tensor,  # uint8 [T, H, W, 3], or [T, 3, H, W] in [0, 1]
    disparity: Tensor,  # [T, 1, H, W] px of the left view
    conditioning: Conditioning,
) -> Warped:  # frames in the form of `left`
    """Warp the left view and, for `splat`, add the view that the released network was trained on.

    That view is the soft splat with the released weights and border rule, blended colours included where
    little of a pixel is covered. As in the release a pixel is a hole if it is covered by half or less, here
    also if the sharp warp leaves it open: all that the image lacks is inpainted.
    """
    sharp = warp(left, disparity)
    if conditioning == "warp":
        return Warped(left, *sharp)
    exponent = exponent_at_width(disparity.shape[-1], RELEASED_EXPONENT_PER_PX)
    soft = splat(left, disparity, border="released", weight_exponent_per_px=exponent)
    holes = occlusion_mask(soft.coverage) | occlusion_mask(sharp.coverage)
    return Warped(left, *sharp, soft.warped, 1 - holes.float())
