"""Read both views of any source frame by frame, however they are stored."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from secondeye.film.packing import (
    MULTIVIEW,
    PACKED,
    PAIR,
    packing_axis,
    size_to_decode,
    unpack,
    unpack_scaled,
    view_pixel_aspect,
)
from secondeye.film.view import is_swapped_by_mirror, left_view_info
from secondeye.sources.source import Source, is_still
from secondeye.sources.spherical import spherical_reason
from secondeye.sources.stills import list_images, read_mpo, read_still, scale
from secondeye.sources.view_pairs import Log, StereoFrame, no_log, read_film_pair, read_folder_pair
from secondeye.video.multiview import read_multiview
from secondeye.video.probe import FilmInfo, UnreadableFilm, probe
from secondeye.video.read import decode_film, select_all

__all__ = ["StereoFrame", "ViewInfo", "read_stereo_frames", "spherical_reason", "view_info"]

STILL_FPS = Fraction(25)  # of image files
_MIN_SIZE_PX = 16  # height and width of a view
_RATE_TOLERANCE = Fraction(1, 100)  # by which the frame rates of a pair may differ


@dataclass(frozen=True)
class ViewInfo:
    """The properties of one view of a source."""

    height: int  # px
    width: int  # px
    pixel_aspect: Fraction  # width / height of one pixel
    fps: Fraction  # the average if the rate varies
    time_base: Fraction  # seconds per timestamp tick
    still: bool  # a single image, not a film
    interlaced: bool = False  # its frames are deinterlaced when they are read
    hdr: str = ""  # PQ or HLG: its frames are tone-mapped to BT.709 when they are read


def view_info(source: Source) -> ViewInfo:
    """Return the properties of a source's views, from headers and first frames.

    Raises UnreadableFilm if there are no two views of the same size and rate.
    """
    if is_still(source.paths[0]):
        return _image_info(*_read_still_views(source, None), source, still=True)
    if source.packing == PAIR and source.paths[0].is_dir():
        left, right = (_first_image(folder) for folder in source.paths)
        return _image_info(read_still(left), read_still(right), source, still=False)
    info = probe(source.paths[0])
    if source.packing == PAIR:
        _check_same_format(info, probe(source.paths[1]))
    if source.packing in PACKED:
        info = left_view_info(info, source.packing)
    _check_min_size(source, info.height, info.width)
    size = info.height, info.width
    return ViewInfo(*size, info.pixel_aspect, info.fps, info.time_base, False, info.interlaced, info.hdr)


def read_stereo_frames(
    source: Source,
    *,
    start_pts: int | None = None,  # first timestamp to yield
    size: tuple[int, int] | None = None,  # height, width to scale each view to; None keeps the film's
    log: Log = no_log,  # receives remarks on how the views were paired
    select: Callable[[int], bool] = select_all,  # which timestamps to convert and yield; ignored for pairs
) -> Iterator[StereoFrame]:
    """Yield both views of every frame in display order; memory use is independent of the film's length.

    Frames of a pair are matched by display time; those without a partner are dropped. Raises UnreadableFilm
    if the source cannot be opened or has no second view, and TruncatedFilm, after all valid frames, if
    decoding fails or one view ends well before the other.
    """
    first = source.paths[0]
    if is_still(first):
        return iter([StereoFrame(0, *_read_still_views(source, size))])
    if first.is_dir():
        return read_folder_pair(first, source.paths[1], start_pts=start_pts, size=size, log=log)
    frames: Iterator[StereoFrame]
    if source.packing == MULTIVIEW:
        multiview = read_multiview(first, start_pts=start_pts, size=size, select=select)
        frames = (
            StereoFrame(one.pts, one.base, one.second, one.damaged, one.lost_before > 0, one.lost_before)
            for one in multiview
        )
    elif source.packing == PAIR:
        frames = read_film_pair(first, source.paths[1], start_pts=start_pts, size=size, log=log)
    else:
        frames = _read_packed(source, start_pts, size, select)
    return map(_swap_views, frames) if _is_swapped_by_mirror(source) else frames


def _is_swapped_by_mirror(source: Source) -> bool:
    """Whether a mirror swaps the eyes; of a pair both films must have one: one alone stands in the rig."""
    if packing_axis(source.packing) == "sbs":
        return False
    return all(is_swapped_by_mirror(source.packing, probe(path).orientation) for path in source.paths)


def _swap_views(frame: StereoFrame) -> StereoFrame:
    return frame._replace(left=frame.right, right=frame.left)


def _read_packed(
    source: Source, start_pts: int | None, size: tuple[int, int] | None, select: Callable[[int], bool]
) -> Iterator[StereoFrame]:
    path, packing = source.paths[0], source.packing
    whole = size_to_decode(size, packing)
    for frame in decode_film(path, start_pts=start_pts, size=whole, select=select):
        lost = frame.lost_before
        views = unpack_scaled(frame.rgb, packing, size)
        yield StereoFrame(frame.pts, *views, frame.damaged, lost > 0, lost)


def _read_still_views(source: Source, size: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray]:
    if source.packing == PAIR:
        left, right = (read_still(path) for path in source.paths)
    elif source.packing == MULTIVIEW:
        left, right = read_mpo(source.paths[0])
    else:
        left, right = unpack(read_still(source.paths[0]), source.packing)
    _check_same_size(source, left, right)
    return scale(left, size), scale(right, size)


def _first_image(folder: Path) -> Path:
    images = list_images(folder)
    if not images:
        raise UnreadableFilm(f"{folder}: contains no image (.png, .jpg, .webp, .tif)")
    return images[0]


def _image_info(left: np.ndarray, right: np.ndarray, source: Source, *, still: bool) -> ViewInfo:
    _check_same_size(source, left, right)
    aspect = view_pixel_aspect(source.packing, Fraction(1))
    height, width = left.shape[:2]
    _check_min_size(source, height, width)
    return ViewInfo(height, width, aspect, STILL_FPS, 1 / STILL_FPS, still)


def _check_min_size(source: Source, height: int, width: int) -> None:
    if min(height, width) < _MIN_SIZE_PX:
        raise UnreadableFilm(
            f"{source.paths[0]}: its views are {width}x{height} px; the minimum is {_MIN_SIZE_PX}"
        )


def _check_same_size(source: Source, left: np.ndarray, right: np.ndarray) -> None:
    if left.shape != right.shape:
        sizes = " and ".join(f"{view.shape[1]}x{view.shape[0]}" for view in (left, right))
        raise UnreadableFilm(f"{source.paths[0]}: its views differ in size: {sizes}")


def _check_same_format(left: FilmInfo, right: FilmInfo) -> None:
    if (left.width, left.height) != (right.width, right.height):
        raise UnreadableFilm(
            f"{left.path}: its views differ in size: "
            f"{left.width}x{left.height} and {right.width}x{right.height}"
        )
    if left.hdr != right.hdr:
        raise UnreadableFilm(f"{left.path}: only one of its views is HDR")
    if abs(left.fps - right.fps) > _RATE_TOLERANCE * left.fps:
        raise UnreadableFilm(
            f"{left.path}: its views differ in rate: {float(left.fps):.2f} and {float(right.fps):.2f} fps"
        )
