"""Two files or two folders, one an eye, as one stream of pictures."""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice, takewhile
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
    """Pictures of two folders with the same number, else in order of their names; time stamps count from 0.

    One without a partner ends the film, for behind it time would jump.
    """
    lefts, rights = pictures_of(left), pictures_of(right)
    pairs = _partners(lefts, rights)
    shape = None
    for index in range(start_pts or 0, len(pairs)):
        eyes = read_still(pairs[index][0]), read_still(pairs[index][1])
        shape = shape or eyes[0].shape
        if {eye.shape for eye in eyes} != {shape}:
            raise FilmBroke(left, index, "the pictures change their size")
        yield index, scale(eyes[0], size), scale(eyes[1], size)
    alone = len(lefts) - len(pairs), len(rights) - len(pairs)
    if any(alone):
        told = f"{alone[0]} pictures of the left eye and {alone[1]} of the right are left without a partner"
        raise FilmBroke(left, len(pairs), told)


def _partners(lefts: Sequence[Path], rights: Sequence[Path]) -> list[tuple[Path, Path]]:
    """From the first number that both have up to one that either lacks."""
    ours, theirs = _by_number(lefts), _by_number(rights)
    both = ours.keys() & theirs.keys()
    if len(ours) < len(lefts) or len(theirs) < len(rights) or not both:
        return list(zip(lefts, rights, strict=False))
    numbers = sorted(ours.keys() | theirs.keys())
    run = takewhile(both.__contains__, numbers[numbers.index(min(both)) :])
    return [(ours[number], theirs[number]) for number in run]


def _by_number(pictures: Sequence[Path]) -> dict[int, Path]:
    """By the last number in their names; those without one are left out."""
    digits = [(re.findall(r"\d+", path.stem), path) for path in pictures]
    return {int(found[-1]): path for found, path in digits if found}
