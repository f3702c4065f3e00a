"""Two files or two folders, one an eye, as one stream of pictures."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np

from secondeye.sources.stills import pictures_of, read_still, scale
from secondeye.video.probe import FilmBroke, probe
from secondeye.video.read import Picture, read_pictures, stamp_near

Moment = tuple[int, np.ndarray, np.ndarray]  # time stamp, left, right: uint8 [H, W, 3]
_UNEVEN_SECONDS = 1  # an eye that ends this much before the other is broken off, not cut unevenly


def read_film_pair(
    left: Path,
    right: Path,
    *,
    start_pts: int | None,  # of the left film
    size: tuple[int, int] | None,
) -> Iterator[Moment]:
    """Pictures shown within half a frame of each other, with the left film's time stamps."""
    ours, theirs = probe(left), probe(right)
    lefts = read_pictures(left, start_pts=start_pts, size=size)
    rights = _read_from(
        right, None if start_pts is None else start_pts * ours.time_base / theirs.time_base, size
    )
    half = 1 / (2 * ours.fps)
    count = 0
    eye, other = next(lefts, None), next(rights, None)
    while eye is not None and other is not None:
        lag = eye.pts * ours.time_base - other.pts * theirs.time_base
        if abs(lag) <= half:
            yield eye.pts, eye.rgb, other.rgb
            count += 1
            eye, other = next(lefts, None), next(rights, None)
        elif lag > 0:
            other = next(rights, None)
        else:
            eye = next(lefts, None)
    if start_pts is None:
        _require_same_end(left, right, count, lefts if eye else None, rights if other else None, ours.fps)


def _read_from(path: Path, pts: Fraction | None, size: tuple[int, int] | None) -> Iterator[Picture]:
    """From the picture shown nearest to a time, which may lie between two ticks."""
    return read_pictures(path, start_pts=None if pts is None else stamp_near(path, pts), size=size)


def _require_same_end(
    left: Path,
    right: Path,
    count: int,
    lefts: Iterator[Picture] | None,  # what is left of the eye that goes on
    rights: Iterator[Picture] | None,
    fps: Fraction,
) -> None:
    more = lefts or rights or iter(())
    if sum(1 for _ in islice(more, int(_UNEVEN_SECONDS * fps))) >= int(_UNEVEN_SECONDS * fps):
        raise FilmBroke(right if lefts else left, count, "the other eye goes on")


def read_folder_pair(
    left: Path, right: Path, *, start_pts: int | None, size: tuple[int, int] | None
) -> Iterator[Moment]:
    """Pictures of two folders in order of their names; time stamps count them from 0."""
    lefts, rights = pictures_of(left), pictures_of(right)
    shape = None
    for index in range(start_pts or 0, min(len(lefts), len(rights))):
        eyes = read_still(lefts[index]), read_still(rights[index])
        shape = shape or eyes[0].shape
        if {eye.shape for eye in eyes} != {shape}:
            raise FilmBroke(left, index, "the pictures change their size")
        yield index, scale(eyes[0], size), scale(eyes[1], size)
    if len(lefts) != len(rights):
        raise FilmBroke(left, min(len(lefts), len(rights)), f"{len(lefts)} pictures against {len(rights)}")
