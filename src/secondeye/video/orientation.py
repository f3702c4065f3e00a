"""The orientation that a film is displayed in: its display matrix, as rotations and mirrors."""

from collections.abc import Mapping
from typing import NamedTuple, cast

import numpy as np
from av.sidedata.sidedata import SideData, Type
from av.video.frame import VideoFrame


class Orientation(NamedTuple):
    """How a decoded image becomes the displayed one: transposed first, then flipped."""

    transposed: bool = False  # rows become columns
    flipped_x: bool = False  # the first column becomes the last
    flipped_y: bool = False  # the first row becomes the last

    @property
    def is_mirrored(self) -> bool:
        """Whether the image is mirrored, not only rotated: the matrix has a negative determinant."""
        return self.transposed ^ self.flipped_x ^ self.flipped_y

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the displayed height and width of a decoded image, or the reverse."""
        return (width, height) if self.transposed else (height, width)

    def apply(self, image: np.ndarray) -> np.ndarray:  # [H, W, 3] to the displayed size
        """Turn a decoded image as it is displayed."""
        if self.transposed:
            image = image.transpose(1, 0, 2)
        if self.flipped_x:
            image = image[:, ::-1]
        return np.ascontiguousarray(image[::-1] if self.flipped_y else image)


_ROTATIONS = [  # by counter-clockwise quarter turns
    Orientation(),
    Orientation(transposed=True, flipped_y=True),
    Orientation(flipped_x=True, flipped_y=True),
    Orientation(transposed=True, flipped_x=True),
]


def frame_orientation(frame: VideoFrame) -> Orientation:
    """Read a frame's display matrix, rounded to quarter turns.

    The matrix (a b u, c d v, x y w) maps a decoded position to the displayed one:
    x' = a x + c y, y' = b x + d y. It is the same for all frames of a film: read it once, since PyAV keeps
    every frame whose side data was read in memory until the garbage collector finds it.
    """
    try:
        data = cast(Mapping[Type, SideData], frame.side_data).get(Type.DISPLAYMATRIX)
    except ValueError:  # PyAV reads none if it does not know one of them, such as the view ids of MV-HEVC
        return _ROTATIONS[round(frame.rotation / 90) % 4]
    if data is None:
        return Orientation()
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(True, flipped_x=c < 0, flipped_y=b < 0)
    return Orientation(False, flipped_x=a < 0, flipped_y=d < 0)
