"""Pictures out of a film, one after the other, with their time stamps."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream

from secondeye.video.probe import EXACT_SCALING, TruncatedFilm, frame_colour, open_film, video_stream

DECODER_THREADS = 1  # with several it is chance what FFmpeg conceals damaged pictures with
# Elsewhere (AVI, raw streams, MPEG-TS) a seek lands anywhere or time stamps are guessed from the beginning.
_SEEKABLE = {"mp4", "mov", "matroska", "webm"}
_MAX_BEHIND_KEY = 40  # pictures that are decoded to reach a wanted time
_SHORT_SHARE = Fraction(2, 100)  # headers are imprecise; a cut film lacks more


class Picture(NamedTuple):
    pts: int  # in ticks of the film's time base
    rgb: np.ndarray  # uint8 [H, W, 3], upright
    damaged: bool = False  # the decoder concealed parts of it


def every(pts: int) -> bool:
    """Wants the pictures of all time stamps."""
    return True


def read_pictures(
    path: Path,
    *,
    start_pts: int | None = None,  # begin with the picture of this time stamp, sought where that is safe
    size: tuple[int, int] | None = None,  # height, width to scale to, after rotation; None keeps the film's
    wants: Callable[
        [int], bool
    ] = every,  # which time stamps, asked when each is decoded; others are only decoded
) -> Iterator[Picture]:
    """Yield the pictures of a film in order of display; memory does not grow with its length.

    Time stamps grow strictly: a missing or repeated one is moved to just after the last.
    Raises UnreadableFilm when the film can not be opened; TruncatedFilm where decoding fails,
    where the picture changes
    its size, and at the end of a film that ends well before its header says.
    """
    if start_pts is not None:
        pictures = _read(path, start_pts, size, wants, seek=True)
        first = next(pictures, None)
        if first is not None and first.pts == start_pts:
            yield first
            yield from pictures
            return
    # From the beginning; also where the film's index led past the wanted picture.
    yield from _read(path, start_pts, size, wants, seek=False)


def sample_pictures(
    path: Path,
    count: int,
    size: tuple[int, int],  # height, width
) -> Iterator[np.ndarray]:  # uint8 [height, width, 3]
    """Small pictures at roughly even times; fewer where the film breaks off.

    Key frames may be far apart: only some pictures behind each are decoded. Raises UnreadableFilm when it can
    not be opened.
    """
    with open_film(path) as container:
        stream = video_stream(container, path)
        stream.codec_context.thread_count = DECODER_THREADS
        begin, length = container.start_time or 0, container.duration or 0
        for index in range(count):
            wanted = begin + length * index // count
            try:
                container.seek(wanted)  # the key frame before
                yield upright_rgb(_first_at(container, stream, Fraction(wanted, av.time_base)), size)
            except (StopIteration, av.FFmpegError):
                return


def _first_at(container: InputContainer, stream: VideoStream, second: Fraction) -> VideoFrame:
    """The first picture shown from that second on, or the last of those that may be decoded."""
    frames = islice(container.decode(stream), _MAX_BEHIND_KEY)
    frame = next(frames)
    while frame.time is not None and frame.time < second and (following := next(frames, None)):
        frame = following
    return frame


def nearest_timestamp(path: Path, pts: Fraction) -> int:
    """The time stamp of the film's picture that is shown nearest to `pts`, without decoding any."""
    with open_film(path) as container:
        stream = video_stream(container, path)
        second = round(1 / (stream.time_base or 1))
        if not _seek(container, stream, round(pts)):
            container.seek(0)
        near = round(pts)
        stamps = []
        for packet in container.demux(stream):
            if packet.pts is not None:
                stamps.append(packet.pts)
            if packet.dts is not None and packet.dts > near + second:
                break
        return min(stamps, key=lambda stamp: (abs(stamp - pts), stamp), default=near)


def is_seekable(path: Path) -> bool:
    """Whether a film's kind can be read from its middle on."""
    with open_film(path) as container:
        return _can_seek(container)


def keyframe_before(path: Path, pts: int) -> int | None:
    """The time stamp of the key picture that decoding must begin with to reach another; decodes none.

    None stands for the film's beginning: it is of a kind that is not sought, or its index leads too far.
    """
    with open_film(path) as container:
        stream = video_stream(container, path)
        if not _seek(container, stream, pts):
            return None
        found = next(container.demux(stream)).pts
        return found if found is not None and found <= pts else None


def container_and_frame_count(path: Path) -> tuple[str, int]:
    """FFmpeg's name of a film's container, and how many pictures lie in it, without decoding any."""
    with open_film(path) as container:
        packets = container.demux(video_stream(container, path))
        return container.format.name, sum(1 for packet in packets if packet.size)


class ShotReader:
    """Reads a film's shots one after the other with one decoder, and seeks only where shots are left out."""

    def __init__(self, path: Path, stamps: Sequence[int]) -> None:
        self._path, self._stamps = path, stamps
        self._pictures: Iterator[Picture] = iter(())
        self._next = -1

    def read(self, start: int, stop: int) -> Iterator[Picture]:
        """Frames start to stop - 1 of the film; read them to the end before the next call."""
        if self._next != start:
            self._pictures = read_pictures(self._path, start_pts=self._stamps[start])
        self._next = stop
        return islice(self._pictures, stop - start)


def _read(
    path: Path,
    start_pts: int | None,
    size: tuple[int, int] | None,
    wants: Callable[[int], bool],
    *,
    seek: bool,
) -> Iterator[Picture]:
    with open_film(path) as container:
        stream = video_stream(container, path)
        stream.codec_context.thread_count = DECODER_THREADS
        if seek and not _seek(container, stream, start_pts or 0):
            return
        moments = ((frame,) for frame in container.decode(stream))
        for pts, (frame,) in with_timestamps(moments, container, stream, path, whole=not seek):
            if (start_pts is None or pts >= start_pts) and wants(pts):
                yield Picture(pts, upright_rgb(frame, size), frame.is_corrupt)


def _seek(container: InputContainer, stream: VideoStream, pts: int) -> bool:
    """Go to the key frame before a time stamp; False where time stamps after that could not be trusted."""
    if not _can_seek(container):
        return False
    container.seek(pts, stream=stream, backward=True)
    return True


def _can_seek(container: InputContainer) -> bool:
    return bool(_SEEKABLE & set(container.format.name.split(",")))


def with_timestamps(
    moments: Iterable[tuple[VideoFrame, ...]],  # the views of each
    container: InputContainer,
    stream: VideoStream,
    path: Path,
    *,
    whole: bool,  # from the beginning, so the end can be judged
) -> Iterator[tuple[int, tuple[VideoFrame, ...]]]:
    """Frames with strictly growing time stamps. Raises TruncatedFilm as `read_pictures` does."""
    count, first, last, lasts = 0, 0, 0, _step(stream)
    shape: tuple[int, int] | None = None
    try:
        for moment in moments:
            frame, given = moment[0], moment[0].pts
            shape = shape or (frame.width, frame.height)
            if (frame.width, frame.height) != shape:
                raise TruncatedFilm(
                    path, count, f"the picture changes its size to {frame.width}x{frame.height}"
                )
            if count == 0:
                first = last = given or 0
            else:
                last = max(last + 1, given if given is not None else last + _step(stream))
            count, lasts = count + 1, frame.duration or _step(stream)
            yield last, moment
    except av.FFmpegError as error:
        raise TruncatedFilm(path, count, error.strerror or "no reason given") from error
    got = (last + lasts - first) * Fraction(stream.time_base or 0)
    promised = _promised_seconds(container, stream, first)
    counted = 0 < stream.frames <= count
    if whole and not counted and promised - got > max(Fraction(1), _SHORT_SHARE * promised):
        raise TruncatedFilm(path, count, f"{float(got):.1f} of the {float(promised):.1f} seconds it promises")


def _step(stream: VideoStream) -> int:
    """Ticks between two frames, on average."""
    return max(1, round(1 / ((stream.average_rate or 25) * (stream.time_base or 1))))


def _promised_seconds(container: InputContainer, stream: VideoStream, first: int) -> Fraction:
    """How long the picture is by the film's header; 0 where it does not say."""
    tag = stream.metadata.get("DURATION", "")
    if stream.duration is not None and stream.time_base is not None:
        own = Fraction(stream.duration * stream.time_base)
    elif re.fullmatch(r"\d+:\d+:\d+(\.\d+)?", tag):
        hours, minutes, seconds = tag.split(":")
        own = int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
        own -= first * Fraction(stream.time_base or 0)  # Matroska counts from 0, not from the first picture
    else:
        return Fraction(0)
    # An edit list may show less of a track than it holds; the whole film's length knows.
    whole = Fraction(container.duration, av.time_base) if container.duration else own
    return min(own, whole)


def upright_rgb(
    frame: VideoFrame,
    size: tuple[int, int] | None,  # height, width after rotation
) -> np.ndarray:  # uint8 [H, W, 3]
    """A decoded picture as a viewer sees it."""
    turns = round(frame.rotation / 90) % 4
    height, width = size or (None, None)
    if turns % 2:
        height, width = width, height
    colour = frame_colour(frame)
    rgb = frame.reformat(
        width=width,
        height=height,
        format="rgb24",
        src_colorspace=colour.scaler_matrix,
        src_color_range=colour.scaler_range,
        interpolation=Interpolation.AREA if size else EXACT_SCALING,
    ).to_ndarray()
    return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb
