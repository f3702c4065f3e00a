"""Read two files or two folders, one per view, as one stream of stereo frames."""

import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from secondeye.sources.stills import list_images, read_still, scale
from secondeye.system.text import pluralize
from secondeye.video.probe import FilmInfo, TruncatedFilm, UnreadableFilm, probe
from secondeye.video.read import DecodedFrame, container_and_frame_count, decode_film, nearest_timestamp

Log = Callable[[str], object]  # receives a reader's remarks on a film
_END_TOLERANCE_SECONDS = 1  # by which one view may end before the other without being truncated


class StereoFrame(NamedTuple):
    """Both views of one frame."""

    pts: int  # ticks of the source's time base
    left: np.ndarray  # uint8 [H, W, 3] RGB, upright
    right: np.ndarray  # uint8 [H, W, 3]
    damaged: bool = False  # a decoder concealed errors in a view
    after_gap: bool = False  # frames before it are missing: one view was, or a picture did not decode
    lost_before: int = 0  # pictures since the previous frame that did not decode, of the view that lost more


def no_log(message: str) -> None:
    """Discard a message."""


def read_film_pair(
    left: Path,
    right: Path,
    *,
    start_pts: int | None,  # of the left film
    size: tuple[int, int] | None,
    log: Log,
) -> Iterator[StereoFrame]:
    """Yield frames displayed within half a frame of each other, with the left film's timestamps.

    Raises UnreadableFilm if the films cannot be paired by timestamp or by frame count, and TruncatedFilm if
    one ends well before the other.
    """
    left_info, right_info = probe(left), probe(right)
    offset = _clock_offset(left_info, right_info, log)
    lefts = decode_film(left, start_pts=start_pts, size=size)
    right_start = (
        None if start_pts is None else (start_pts * left_info.time_base + offset) / right_info.time_base
    )
    rights = _read_from(right, right_start, size)
    count, dropped, after_gap = 0, 0, False
    lost = [0, 0]  # of the left and the right view, since the previous frame

    def advance(frames: Iterator[DecodedFrame], view: int) -> DecodedFrame | None:
        frame = next(frames, None)
        lost[view] += frame.lost_before if frame else 0
        return frame

    one, other = advance(lefts, 0), advance(rights, 1)
    while one is not None and other is not None:
        lag = one.pts * left_info.time_base - other.pts * right_info.time_base + offset
        if abs(lag) <= 1 / (2 * left_info.fps):
            damaged = one.damaged or other.damaged
            yield StereoFrame(one.pts, one.rgb, other.rgb, damaged, after_gap or any(lost), max(lost))
            count, after_gap, lost[:] = count + 1, False, [0, 0]
            one, other = advance(lefts, 0), advance(rights, 1)
            continue
        dropped, after_gap = dropped + 1, True
        if lag > 0:
            other = advance(rights, 1)
        else:
            one = advance(lefts, 0)
    if start_pts is None:
        tolerance = int(_END_TOLERANCE_SECONDS * left_info.fps)
        rest = sum(1 for _ in islice(lefts if one else rights, tolerance)) + (one is not other)
        truncated = rest > tolerance
        _log_dropped(log, dropped + (0 if truncated else rest))
        if truncated:
            raise TruncatedFilm(right if one else left, count, "the other view continues")


def _clock_offset(left: FilmInfo, right: FilmInfo, log: Log) -> Fraction:
    """Return the seconds to subtract from the right film's timestamps, whose clock may differ.

    The first timestamp depends on the container; MPEG-TS, for example, does not start at 0.
    """
    offset = right.start_seconds - left.start_seconds
    if abs(offset) <= 1 / (2 * left.fps):
        return Fraction(0)
    (left_container, left_count), (right_container, right_count) = (
        container_and_frame_count(film.path) for film in (left, right)
    )
    lag = round(offset * left.fps)
    paired = min(left_count, right_count + lag) - max(0, lag)  # frames that pair by their timestamps
    if paired >= min(left_count, right_count) or (left_container == right_container and paired > 0):
        return Fraction(0)
    if paired <= 0 and left_count != right_count:
        raise UnreadableFilm(
            f"{left.path}: the timestamps of its views do not overlap (they start at "
            f"{float(left.start_seconds):.2f} and {float(right.start_seconds):.2f} s), "
            f"and with {left_count} and {right_count} frames they cannot be paired by frame number"
        )
    log(f"views paired from their first frames, since their timestamps start {float(offset):.3f} s apart")
    return offset


def _log_dropped(log: Log, dropped: int) -> None:
    if dropped:
        log(f"dropped without a partner: {dropped} frames")


def _read_from(path: Path, pts: Fraction | None, size: tuple[int, int] | None) -> Iterator[DecodedFrame]:
    """Read from the frame nearest to a time, which may lie between two ticks."""
    return decode_film(path, start_pts=None if pts is None else nearest_timestamp(path, pts), size=size)


def read_folder_pair(
    left: Path, right: Path, *, start_pts: int | None, size: tuple[int, int] | None, log: Log
) -> Iterator[StereoFrame]:
    """Yield images of two folders that have the same number; a dropped image still takes up its time."""
    lefts, rights = list_images(left), list_images(right)
    pairs = _pair_images(left, lefts, rights)
    _log_unpaired(log, lefts, rights, pairs)
    shape, previous = None, -1
    for count, (pts, left_path, right_path) in enumerate(pairs):
        if pts < (start_pts or 0):
            continue
        try:
            views = read_still(left_path), read_still(right_path)
        except UnreadableFilm as error:
            raise TruncatedFilm(left, count, str(error)) from error
        shape = shape or views[0].shape
        if {view.shape for view in views} != {shape}:
            raise TruncatedFilm(left, count, "the image size changes")
        yield StereoFrame(pts, scale(views[0], size), scale(views[1], size), after_gap=pts > previous + 1)
        previous = pts


def _pair_images(
    folder: Path, lefts: Sequence[Path], rights: Sequence[Path]
) -> list[tuple[int, Path, Path]]:  # index among all numbers of both folders, left, right
    """Pair images by number if all names have distinct ones, else in order.

    Raises UnreadableFilm if neither is possible.
    """
    by_number = _by_number(lefts), _by_number(rights)
    numbers = by_number[0].keys() | by_number[1].keys()
    shared = by_number[0].keys() & by_number[1].keys()
    if len(by_number[0]) == len(lefts) and len(by_number[1]) == len(rights) and shared:
        index = {number: place for place, number in enumerate(sorted(numbers))}
        return [(index[k], by_number[0][k], by_number[1][k]) for k in sorted(shared)]
    if len(lefts) != len(rights):
        raise UnreadableFilm(
            f"{folder}: its views have {len(lefts)} and {len(rights)} images, "
            "and their names have no numbers to pair them by"
        )
    return [(index, *pair) for index, pair in enumerate(zip(lefts, rights, strict=True))]


def _by_number(images: Sequence[Path]) -> dict[int, Path]:
    """Return images by the last number in their names, without those that have none."""
    digits = [(re.findall(r"\d+", path.stem), path) for path in images]
    return {int(found[-1]): path for found, path in digits if found}


def _log_unpaired(
    log: Log, lefts: Sequence[Path], rights: Sequence[Path], pairs: Sequence[tuple[int, Path, Path]]
) -> None:
    used = {path for _, *pair in pairs for path in pair}
    unpaired = [path for path in (*lefts, *rights) if path not in used]
    if unpaired:
        view = "left" if unpaired[0] in lefts else "right"
        images = pluralize(len(unpaired), "image")
        log(f"dropped without a partner: {images}, first {view} view/{unpaired[0].name}")
