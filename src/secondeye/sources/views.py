"""Both eyes of any source, picture by picture, however they are stored."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from secondeye.film.packing import MULTIVIEW, PAIR, packing_axis, unpack, view_pixel_aspect
from secondeye.sources.source import Source, is_still
from secondeye.sources.spherical import spherical_reason
from secondeye.sources.stills import pictures_of, read_mpo, read_still, scale
from secondeye.sources.view_pairs import Note, StereoFrame, read_film_pair, read_folder_pair, silent
from secondeye.video.multiview import read_multiview
from secondeye.video.probe import FilmInfo, UnreadableFilm, probe
from secondeye.video.read import every, read_pictures

__all__ = ["StereoFrame", "ViewInfo", "read_stereo_frames", "spherical_reason", "view_info"]

STILL_FPS = Fraction(25)  # of pictures that are files of their own
_SMALLEST = 16  # px, height and width of an eye
_RATES_APART = Fraction(1, 100)  # two eyes' rates may differ by rounding


@dataclass(frozen=True)
class ViewInfo:
    """What one eye of a source is."""

    height: int  # px
    width: int  # px
    pixel_aspect: Fraction  # width over height of one pixel
    fps: Fraction  # frames per second, the average for a variable rate
    time_base: Fraction  # seconds per tick of a time stamp
    still: bool  # one picture, not a film


def view_info(source: Source) -> ViewInfo:
    """What its eyes are, from headers and the first pictures.

    Raises UnreadableFilm where there are no two alike.
    """
    if is_still(source.paths[0]):
        return _info_of_pictures(*_still(source, None), source, still=True)
    if source.packing == PAIR and source.paths[0].is_dir():
        left, right = (_first_of(folder) for folder in source.paths)
        return _info_of_pictures(read_still(left), read_still(right), source, still=False)
    info = probe(source.paths[0])
    if source.packing == PAIR:
        _require_alike(info, probe(source.paths[1]))
    height, width = info.height, info.width
    if packing_axis(source.packing) == "sbs":
        width //= 2
    elif packing_axis(source.packing) == "tb":
        height //= 2
    _require_size(source, height, width)
    aspect = view_pixel_aspect(source.packing, info.pixel_aspect)
    return ViewInfo(height, width, aspect, info.fps, info.time_base, still=False)


def read_stereo_frames(
    source: Source,
    *,
    start_pts: int | None = None,  # begin with the picture of this time stamp
    size: tuple[int, int] | None = None,  # height, width of one eye to scale to; None keeps the film's
    note: Note = silent,  # takes what is to be said of how the eyes were put together
    wants: Callable[[int], bool] = every,  # which time stamps, asked when each is decoded; pairs give all
) -> Iterator[StereoFrame]:
    """Yield both eyes of every picture in order of display; memory does not grow with the film's
    length.

    The pictures of a pair are put together by the time they are shown at; those without a partner are left
    out. Raises UnreadableFilm for no second eye; TruncatedFilm, after all that was
    good, where one of its files breaks off or one eye ends well before the other.
    """
    first = source.paths[0]
    if is_still(first):
        return iter([StereoFrame(0, *_still(source, size))])
    if source.packing == MULTIVIEW:
        return (
            StereoFrame(*views)
            for views in read_multiview(first, start_pts=start_pts, size=size, wants=wants)
        )
    if source.packing != PAIR:
        return _packed(source, start_pts, size, wants)
    read_pair = read_folder_pair if first.is_dir() else read_film_pair
    return read_pair(first, source.paths[1], start_pts=start_pts, size=size, note=note)


def _packed(
    source: Source, start_pts: int | None, size: tuple[int, int] | None, wants: Callable[[int], bool]
) -> Iterator[StereoFrame]:
    path, packing = source.paths[0], source.packing
    if size is not None:
        size = (size[0], 2 * size[1]) if packing_axis(packing) == "sbs" else (2 * size[0], size[1])
    for picture in read_pictures(path, start_pts=start_pts, size=size, wants=wants):
        yield StereoFrame(picture.pts, *unpack(picture.rgb, packing), picture.damaged)


def _still(source: Source, size: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray]:
    if source.packing == PAIR:
        left, right = (read_still(path) for path in source.paths)
    elif source.packing == MULTIVIEW:
        left, right = read_mpo(source.paths[0])
    else:
        left, right = unpack(read_still(source.paths[0]), source.packing)
    _require_same_size(source, left, right)
    return scale(left, size), scale(right, size)


def _first_of(folder: Path) -> Path:
    pictures = pictures_of(folder)
    if not pictures:
        raise UnreadableFilm(f"{folder}: holds no picture (.png, .jpg, .webp, .tif)")
    return pictures[0]


def _info_of_pictures(left: np.ndarray, right: np.ndarray, source: Source, *, still: bool) -> ViewInfo:
    _require_same_size(source, left, right)
    aspect = view_pixel_aspect(source.packing, Fraction(1))
    height, width = left.shape[:2]
    _require_size(source, height, width)
    return ViewInfo(height, width, aspect, STILL_FPS, 1 / STILL_FPS, still)


def _require_size(source: Source, height: int, width: int) -> None:
    if min(height, width) < _SMALLEST:
        raise UnreadableFilm(f"{source.paths[0]}: its eyes are {width}x{height} px; {_SMALLEST} is the least")


def _require_same_size(source: Source, left: np.ndarray, right: np.ndarray) -> None:
    if left.shape != right.shape:
        sizes = " and ".join(f"{eye.shape[1]}x{eye.shape[0]}" for eye in (left, right))
        raise UnreadableFilm(f"{source.paths[0]}: its eyes differ in size, {sizes}")


def _require_alike(left: FilmInfo, right: FilmInfo) -> None:
    if (left.width, left.height) != (right.width, right.height):
        raise UnreadableFilm(
            f"{left.path}: its eyes differ in size, "
            f"{left.width}x{left.height} and {right.width}x{right.height}"
        )
    if abs(left.fps - right.fps) > _RATES_APART * left.fps:
        raise UnreadableFilm(
            f"{left.path}: its eyes play at {float(left.fps):.2f} and {float(right.fps):.2f} frames a second"
        )
