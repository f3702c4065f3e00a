"""Streams of single views, taken from films of any packing, and read frame by frame in sync."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np

from secondeye.film.packing import unpack, view_pixel_aspect
from secondeye.sources.packing_detection import stated_packing
from secondeye.system.errors import UserError
from secondeye.system.text import pluralize
from secondeye.video.probe import FilmInfo, probe
from secondeye.video.read import decode_film

LEFT, RIGHT = 0, 1

_RATE_TOLERANCE = Fraction(5, 1000)  # headers round: 23.976 may be written as 24

ViewImages = tuple[np.ndarray, ...]  # uint8 [H, W, 3] of each view


class View(NamedTuple):
    """One view of a film."""

    info: FilmInfo
    packing: str | None  # None: the film is the view
    side: int  # LEFT or RIGHT

    def extract(
        self,
        image: np.ndarray,  # uint8 [H, W, 3]: of the film
    ) -> np.ndarray:  # uint8 [h, w, 3]
        """Cut this view out of an image."""
        return image if self.packing is None else unpack(image, self.packing)[self.side]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, px."""
        height, width, _ = self.extract(np.empty((self.info.height, self.info.width, 3), np.uint8)).shape
        return height, width

    @property
    def pixel_aspect(self) -> Fraction:
        """Width over height of one pixel."""
        aspect = self.info.pixel_aspect
        return aspect if self.packing is None else view_pixel_aspect(self.packing, aspect)

    def __str__(self) -> str:
        side = ("left", "right")[self.side]
        return f"the {side} eye of {self.info.path} ({self.packing})" if self.packing else str(self.info.path)


def open_view(film: Path, side: int) -> View:
    """Open one view of a film: a part of it if its metadata or name state a packing, otherwise all of it."""
    return View(probe(film), stated_packing(film), side)


def is_same_rate(one: Fraction, other: Fraction) -> bool:
    """Return whether two frame rates are equal but for rounding."""
    return abs(one - other) <= _RATE_TOLERANCE * max(one, other)


def format_size(size: tuple[int, int]) -> str:
    """Format height and width as WIDTHxHEIGHT."""
    return f"{size[1]}x{size[0]}"


def require_same_format(views: Sequence[View]) -> None:
    """Raise UserError if the headers differ in the size of a view, frame rate or number of frames."""
    first = views[0]
    for view in views[1:]:
        if view.size != first.size:
            raise UserError(
                f"{view} is {format_size(view.size)} px, {first} is {format_size(first.size)}; "
                "scale one to the other, or say how a stereo film is packed in its name (_sbs, _tb ...)"
            )
        if not is_same_rate(view.info.fps, first.info.fps):
            rates = f"{view} has {float(view.info.fps):.3f} fps, {first} has {float(first.info.fps):.3f}"
            raise UserError(f"{rates}; convert one to the rate of the other")
        if view.info.frames and first.info.frames and view.info.frames != first.info.frames:
            counts = f"{view} has {pluralize(view.info.frames, 'frame')}, {first} has {first.info.frames}"
            raise UserError(f"{counts}; cut both to the same frames")


def read_synchronized(views: Sequence[View]) -> Iterator[ViewImages]:
    """Yield the images of all views frame by frame; a film that holds several views is decoded once.

    Raises TruncatedFilm, and UserError if a frame does not decode or one film ends before another.
    """
    paths = list(dict.fromkeys(view.info.path for view in views))
    for count, frames in enumerate(zip_longest(*map(decode_film, paths))):
        by_path = dict(zip(paths, frames, strict=True))
        ended = [path for path in paths if by_path[path] is None]
        if ended:
            longer = next(path for path in paths if by_path[path] is not None)
            raise UserError(
                f"{ended[0]}: ends after {pluralize(count, 'frame')}, but {longer} is longer; "
                "cut both to the same frames"
            )
        lost = [path for path in paths if by_path[path].lost_before]
        if lost:
            raise UserError(f"{lost[0]}: a picture before frame {count} does not decode; copy the film again")
        yield tuple(view.extract(by_path[view.info.path].rgb) for view in views)
