"""Crops of the two eyes at columns of their own.

The shift left every disparity at or above zero, so that a whole view has border holes on its right side only.
A converted film has its screen among the things it shows, and border holes on both sides. With the left
view's crop at column a and the right view's at column c the crops' disparity is d - a + c (ours).
"""

import math


def offset_range(
    middle_px: float,  # median disparity
    room_px: int,  # the crop can be moved within its view
    hole_px: float,  # no border hole is wider beside what has the median disparity
) -> tuple[int, int]:  # px, both included
    """How far the left crop may begin to the right of the right crop, drawn evenly.

    At an offset of k, disparities above k open a hole on the right side and those below k one on the left,
    as wide as they differ. Offsets lie evenly around the median, so that it opens either side with the same
    chance, and all disparities together nearly so. (The middle of the extremes would not do: most of a
    picture is background, before which a little stands out far.) With little room there are fewer offsets,
    and only the nearest one where the median itself is out of reach.
    """
    middle = round(middle_px)
    reach = min(math.floor(hole_px), room_px - abs(middle))
    if reach < 0:
        nearest = room_px if middle > 0 else -room_px
        return nearest, nearest
    return middle - reach, middle + reach


def column_range(
    offset_px: int,  # of the left crop against the right one
    room_px: int,  # |offset_px| or more
) -> tuple[int, int]:  # px, both included
    """Where the right crop may begin so that both lie within their views."""
    return max(0, -offset_px), min(room_px, room_px - offset_px)
