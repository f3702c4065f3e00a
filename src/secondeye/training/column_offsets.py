"""Crops of the left and the right view at different columns.

The stage `shift` makes every disparity at least zero, so a whole view has border holes on its right side
only. A converted film has its screen inside the scene, and border holes on both sides. With the left view
cropped at column a and the right view at column c, the disparity between the crops is d - a + c (ours).
"""

import math


def offset_range(
    median_px: float,  # median disparity
    room_px: int,  # view width less crop width
    hole_px: float,  # widest border hole beside points at the median disparity
) -> tuple[int, int]:  # px, both included
    """Return the range of offsets, left column less right column, to draw uniformly from.

    At offset k, disparities above k open a hole on the right side and those below k one on the left, as wide
    as they differ. Offsets are symmetric around the median disparity, so that points at the median open holes
    on either side equally often, and all disparities together nearly so. The midpoint of the extremes would
    be skewed: most of a frame is background, and a few points stand far in front of it. The range shrinks
    if there is little room, down to the nearest possible offset if the median itself is out of reach.
    """
    median = round(median_px)
    reach = min(math.floor(hole_px), room_px - abs(median))
    if reach < 0:
        nearest = room_px if median > 0 else -room_px
        return nearest, nearest
    return median - reach, median + reach


def column_range(
    offset_px: int,  # left column less right column
    room_px: int,  # at least |offset_px|
) -> tuple[int, int]:  # px, both included
    """Return the range of the right crop's column for which both crops lie within their views."""
    return max(0, -offset_px), min(room_px, room_px - offset_px)
