"""Decode the picture that a conversion starts from: the whole frame, or the left view of a packed film."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from secondeye.film.packing import (
    INTERLEAVED,
    packing_axis,
    size_to_decode,
    unpack_scaled,
    view_pixel_aspect,
    view_size,
)
from secondeye.video.orientation import Orientation
from secondeye.video.probe import FilmInfo
from secondeye.video.read import DecodedFrame, decode_film


def left_view_info(info: FilmInfo, packing: str) -> FilmInfo:
    """Return the properties of the left view of a packed film."""
    height, width = view_size((info.height, info.width), packing)
    return replace(
        info,
        packing=packing,
        width=width,
        height=height,
        pixel_aspect=view_pixel_aspect(packing, info.pixel_aspect),
    )


def is_swapped_by_mirror(packing: str, orientation: Orientation) -> bool:
    """Whether a display matrix mirrors a film so that its left view shows what a right eye would see.

    Views side by side need no swap: a mirror that swaps the eyes also swaps the halves of the frame.
    """
    axis = packing_axis(packing)
    if axis in ("tb", INTERLEAVED):
        return orientation.is_mirrored and not orientation.transposed
    return axis != "sbs" and orientation == Orientation(flipped_x=True)


def frame_decoder(info: FilmInfo) -> Callable[..., Iterator[DecodedFrame]]:
    """Return `decode_film` for a film with these properties; of a packed film it yields the left view."""
    decode = partial(decode_film, deinterlace=info.interlaced)
    if not info.packing:
        return decode
    return partial(
        _decode_view, decode, info.packing, int(is_swapped_by_mirror(info.packing, info.orientation))
    )


def _decode_view(
    decode: Callable[..., Iterator[DecodedFrame]],
    packing: str,
    view: int,  # 0: the one that is stored as left
    path: Path,
    *,
    start_pts: int | None = None,
    size: tuple[int, int] | None = None,  # height, width of the view
    whole_every: int | None = None,
) -> Iterator[DecodedFrame]:
    def view_of(image: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
        return unpack_scaled(image, packing, size)[view].copy()

    packed = size_to_decode(size, packing)
    for frame in decode(path, start_pts=start_pts, size=packed, whole_every=whole_every):
        whole = None if frame.whole is None else view_of(frame.whole, None)
        yield frame._replace(rgb=view_of(frame.rgb, size), whole=whole)
