"""Two files or two folders, one an eye, as one stream of pictures."""

import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from secondeye.sources.stills import pictures_of, read_still, scale
from secondeye.video.probe import FilmInfo, TruncatedFilm, UnreadableFilm, probe
from secondeye.video.read import Picture, container_and_frame_count, nearest_timestamp, read_pictures

Note = Callable[[str], object]  # takes what a reader has to say of a film
_UNEVEN_SECONDS = 1  # an eye that ends this much before the other is broken off, not cut unevenly


class StereoFrame(NamedTuple):
    pts: int  # in ticks of the source's time base
    left: np.ndarray  # uint8 [H, W, 3] RGB, upright
    right: np.ndarray  # uint8 [H, W, 3]
    damaged: bool = False  # a decoder concealed parts of one
    jumps: bool = False  # pictures before it were left out for want of a partner


def silent(said: str) -> None:
    """Note nothing."""


def read_film_pair(
    left: Path,
    right: Path,
    *,
    start_pts: int | None,  # of the left film
    size: tuple[int, int] | None,
    note: Note,
) -> Iterator[StereoFrame]:
    """Pictures shown within half a frame of each other, with the left film's time stamps.

    Raises UnreadableFilm where the two films' time stamps overlap nowhere, and nothing else tells
    how to pair them.
    """
    ours, theirs = probe(left), probe(right)
    later = _later(ours, theirs, note)
    lefts = read_pictures(left, start_pts=start_pts, size=size)
    rights = _read_from(
        right, None if start_pts is None else (start_pts * ours.time_base + later) / theirs.time_base, size
    )
    count, alone, jumps = 0, 0, False
    eye, other = next(lefts, None), next(rights, None)
    while eye is not None and other is not None:
        lag = eye.pts * ours.time_base - other.pts * theirs.time_base + later
        if abs(lag) <= 1 / (2 * ours.fps):
            yield StereoFrame(eye.pts, eye.rgb, other.rgb, eye.damaged or other.damaged, jumps)
            count, jumps = count + 1, False
            eye, other = next(lefts, None), next(rights, None)
            continue
        alone, jumps = alone + 1, True
        if lag > 0:
            other = next(rights, None)
        else:
            eye = next(lefts, None)
    if start_pts is None:
        second = int(_UNEVEN_SECONDS * ours.fps)
        more = sum(1 for _ in islice(lefts if eye else rights, second)) + (eye is not other)
        broken = more > second
        _note_alone(note, alone + (0 if broken else more))
        if broken:
            raise TruncatedFilm(right if eye else left, count, "the other eye goes on")


def _later(ours: FilmInfo, theirs: FilmInfo, note: Note) -> Fraction:
    """Seconds to take off the right film's time stamps: they need not be of the same clock.

    Containers of different kinds begin to count at different times, such as MPEG-TS at no 0.
    """
    later = theirs.begin - ours.begin
    if abs(later) <= 1 / (2 * ours.fps):
        return Fraction(0)
    (kind, count), (other_kind, others) = (container_and_frame_count(film.path) for film in (ours, theirs))
    lag = round(later * ours.fps)
    shared = min(count, others + lag) - max(0, lag)  # frames that pair by their time stamps
    if shared >= min(count, others) or (kind == other_kind and shared > 0):
        return Fraction(0)
    if shared <= 0 and count != others:
        raise UnreadableFilm(
            f"{ours.path}: the time stamps of its eyes overlap nowhere (they begin at "
            f"{float(ours.begin):.2f} and {float(theirs.begin):.2f} s), "
            f"and {count} and {others} frames do not pair from the first on"
        )
    note(f"eyes paired from their first frames on, for their time stamps begin {float(later):.3f} s apart")
    return later


def _note_alone(note: Note, alone: int) -> None:
    if alone:
        note(f"left out for want of a partner: {alone} frames")


def _read_from(path: Path, pts: Fraction | None, size: tuple[int, int] | None) -> Iterator[Picture]:
    """From the picture shown nearest to a time, which may lie between two ticks."""
    return read_pictures(path, start_pts=None if pts is None else nearest_timestamp(path, pts), size=size)


def read_folder_pair(
    left: Path, right: Path, *, start_pts: int | None, size: tuple[int, int] | None, note: Note
) -> Iterator[StereoFrame]:
    """Pictures of two folders with the same number; time goes on where one without a partner is left out."""
    lefts, rights = pictures_of(left), pictures_of(right)
    pairs = _partners(left, lefts, rights)
    _note_lone_pictures(note, lefts, rights, pairs)
    shape, before = None, -1
    for count, (pts, ours, theirs) in enumerate(pairs):
        if pts < (start_pts or 0):
            continue
        try:
            eyes = read_still(ours), read_still(theirs)
        except UnreadableFilm as error:
            raise TruncatedFilm(left, count, str(error)) from error
        shape = shape or eyes[0].shape
        if {eye.shape for eye in eyes} != {shape}:
            raise TruncatedFilm(left, count, "the pictures change their size")
        yield StereoFrame(pts, scale(eyes[0], size), scale(eyes[1], size), jumps=pts > before + 1)
        before = pts


def _partners(
    folder: Path, lefts: Sequence[Path], rights: Sequence[Path]
) -> list[tuple[int, Path, Path]]:  # place, left, right
    """By number where all names have one of their own, else in order.."""
    ours, theirs = _by_number(lefts), _by_number(rights)
    if len(ours) == len(lefts) and len(theirs) == len(rights) and ours.keys() & theirs.keys():
        numbers = sorted(ours.keys() | theirs.keys())
        places = {number: place for place, number in enumerate(numbers)}
        return [(places[k], ours[k], theirs[k]) for k in numbers if k in ours and k in theirs]
    if len(lefts) != len(rights):
        raise UnreadableFilm(
            f"{folder}: its eyes are {len(lefts)} and {len(rights)} pictures, and no numbers in their names "
            "tell which belong together"
        )
    return [(place, *pair) for place, pair in enumerate(zip(lefts, rights, strict=True))]


def _by_number(pictures: Sequence[Path]) -> dict[int, Path]:
    """By the last number in their names; those without one are left out."""
    digits = [(re.findall(r"\d+", path.stem), path) for path in pictures]
    return {int(found[-1]): path for found, path in digits if found}


def _note_lone_pictures(
    note: Note, lefts: Sequence[Path], rights: Sequence[Path], pairs: Sequence[tuple[int, Path, Path]]
) -> None:
    used = {path for _, *pair in pairs for path in pair}
    alone = [path for path in (*lefts, *rights) if path not in used]
    if alone:
        eye = "left" if alone[0] in lefts else "right"
        note(f"left out for want of a partner: {len(alone)} pictures, first {eye} eye/{alone[0].name}")
