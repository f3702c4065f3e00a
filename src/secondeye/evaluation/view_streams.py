"""One eye of a film, whatever else the film holds; and several eyes side by side, frame by frame."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np

from secondeye.film.packing import packing_from_name, unpack, view_pixel_aspect
from secondeye.system.errors import UserError
from secondeye.video.probe import FilmInfo, probe
from secondeye.video.read import read_pictures

LEFT, RIGHT = 0, 1

_SAME_RATE = Fraction(5, 1000)  # headers round: 23.976 may be called 24

Pictures = tuple[np.ndarray, ...]  # uint8 [H, W, 3] of each eye


class Eye(NamedTuple):
    """One eye of a film."""

    info: FilmInfo
    packing: str | None  # None: the film is the eye
    side: int  # LEFT or RIGHT

    def of(
        self,
        picture: np.ndarray,  # uint8 [H, W, 3]: of the film
    ) -> np.ndarray:  # uint8 [h, w, 3]
        """What this eye sees of a picture."""
        return picture if self.packing is None else unpack(picture, self.packing)[self.side]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, px."""
        height, width, _ = self.of(np.empty((self.info.height, self.info.width, 3), np.uint8)).shape
        return height, width

    @property
    def pixel_aspect(self) -> Fraction:
        """Width over height of one pixel."""
        aspect = self.info.pixel_aspect
        return aspect if self.packing is None else view_pixel_aspect(self.packing, aspect)

    def __str__(self) -> str:
        side = ("left", "right")[self.side]
        return f"the {side} eye of {self.info.path} ({self.packing})" if self.packing else str(self.info.path)


def open_eye(film: Path, side: int) -> Eye:
    """The asked eye of a film whose name has a packing tag; any other film is the eye."""
    return Eye(probe(film), packing_from_name(film.stem), side)


def same_rate(one: Fraction, other: Fraction) -> bool:
    """Whether two films may show the same frames, by their frames a second."""
    return abs(one - other) <= _SAME_RATE * max(one, other)


def by(size: tuple[int, int]) -> str:
    """Height and width as people write them."""
    return f"{size[1]}x{size[0]}"


def require_alike(eyes: Sequence[Eye]) -> None:
    """Raise Refusal where headers tell that the eyes do not show the same frames, or not at one size."""
    first = eyes[0]
    for eye in eyes[1:]:
        if eye.size != first.size:
            raise UserError(
                f"{eye} is {by(eye.size)} px, {first} is {by(first.size)}; scale one to the other"
            )
        if not same_rate(eye.info.fps, first.info.fps):
            here, there = float(eye.info.fps), float(first.info.fps)
            raise UserError(
                f"{eye} has {here:.3f} frames a second, {first} has {there:.3f}; give the same frames of both"
            )
        if eye.info.frames and first.info.frames and eye.info.frames != first.info.frames:
            here, there = eye.info.frames, first.info.frames
            raise UserError(f"{eye} has {here} frames, {first} has {there}; give the same frames of both")


def read_together(eyes: Sequence[Eye]) -> Iterator[Pictures]:
    """One frame of all eyes after the other; a film that holds several of them is decoded once.

    Raises TruncatedFilm, and Refusal where one film ends before another.
    """
    paths = list(dict.fromkeys(eye.info.path for eye in eyes))
    for count, pictures in enumerate(zip_longest(*map(read_pictures, paths))):
        shown = dict(zip(paths, pictures, strict=True))
        over = [path for path in paths if shown[path] is None]
        if over:
            longer = next(path for path in paths if shown[path] is not None)
            raise UserError(f"{over[0]}: ends after {count} frames, but {longer} goes on; cut both alike")
        yield tuple(eye.of(shown[eye.info.path].rgb) for eye in eyes)
