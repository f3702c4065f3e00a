"""Decode the frames of a film, with their timestamps."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream

from secondeye.system.errors import UserError
from secondeye.system.text import pluralize
from secondeye.video.deinterlace import deinterlace as deinterlace_frames
from secondeye.video.orientation import Orientation, frame_orientation
from secondeye.video.probe import (
    EXACT_SCALING,
    Losses,
    TruncatedFilm,
    UnreadableFilm,
    decode_frames,
    frame_colour,
    open_film,
    probe,
    video_stream,
)
from secondeye.video.tone_mapping import HLG, PQ, dither, tone_map

DECODER_THREADS = 1  # with several, FFmpeg's error concealment is not deterministic
# In other containers (AVI, raw streams, MPEG-TS) seeking is imprecise or timestamps depend on the start.
_SEEKABLE = {"mp4", "mov", "matroska", "webm"}
_MAX_AFTER_KEYFRAME = 40  # frames decoded to reach a sampled time
_EARLIER_FRAMES = 5  # that an interlaced film is sought before a frame
_STEP_WITHOUT_SEEKING = 25  # frames from one sample to the next
# Share of the duration in the header that may be missing: headers are imprecise, truncated films lack more.
_MISSING_SHARE = Fraction(2, 100)


class DecodedFrame(NamedTuple):
    """One decoded frame."""

    pts: int  # ticks of the film's time base
    rgb: np.ndarray  # uint8 [H, W, 3], upright
    damaged: bool = False  # the decoder concealed errors
    lost_before: int = 0  # pictures since the previous frame that did not decode
    whole: np.ndarray | None = None  # uint8 [H, W, 3] at full size, of the frames that were asked for


def select_all(pts: int) -> bool:
    """Select every timestamp."""
    return True


def decode_film(
    path: Path,
    *,
    start_pts: int | None = None,  # first timestamp to yield, sought if that is reliable
    size: tuple[int, int] | None = None,  # height, width to scale to, after rotation; None keeps the film's
    select: Callable[[int], bool] = select_all,  # which timestamps to convert and yield
    deinterlace: bool | None = None,  # None: if the film is interlaced
    whole_every: int | None = None,  # also return every so-many-th frame at full size; None: none
) -> Iterator[DecodedFrame]:
    """Yield the frames of a film in display order; memory use is independent of its length.

    Timestamps increase strictly: a repeated one becomes the previous one plus 1, a missing one the end of
    the previous frame. Pictures that do not decode are skipped. Raises UnreadableFilm if the film cannot be
    opened or most of it does not decode, and TruncatedFilm if no picture decodes from some point on, if the
    frame size changes, and at the end of a film that is much shorter than its header states.
    """
    if deinterlace is None:
        deinterlace = path.exists() and _is_interlaced(path, path.stat().st_mtime_ns)
    if start_pts is not None:
        frames = _read(path, start_pts, size, select, deinterlace, whole_every, seek=True)
        try:
            first = next(frames, None)
        except TruncatedFilm:  # nothing decodes since the key frame that was sought: it is damaged
            first = None
        if first is not None and first.pts == start_pts:
            yield first
            yield from frames
            return
    # Decode from the start; also if the film's index led past the first timestamp.
    yield from _read(path, start_pts, size, select, deinterlace, whole_every, seek=False)


@lru_cache(maxsize=64)
def _is_interlaced(path: Path, modified_ns: int) -> bool:
    """Return whether a film is interlaced; cached while the file stays the same."""
    return probe(path).interlaced


def decode_gray(path: Path) -> Iterator[np.ndarray]:  # uint16 [H, W]
    """Yield the brightness of each frame over the whole range of 16 bits, whatever is stored.

    Raises UnreadableFilm if the film cannot be opened, and TruncatedFilm if decoding fails.
    """
    with open_film(path) as container:
        stream = video_stream(container, path)
        stream.codec_context.thread_count = DECODER_THREADS
        count = 0
        try:
            for frame in container.decode(stream):
                yield frame.to_ndarray(format="gray16le", dst_color_range="JPEG")
                count += 1
        except av.FFmpegError as error:
            raise TruncatedFilm(path, count, str(error)) from error


def sample_frames(
    path: Path,
    count: int,
    size: tuple[int, int],  # height, width
) -> Iterator[np.ndarray]:  # uint8 [height, width, 3]
    """Yield small frames at roughly even times; fewer if decoding stops early.

    Keyframes may be far apart, so only some frames after each are decoded. Raises UnreadableFilm if the film
    cannot be opened.
    """
    with open_film(path) as container:
        stream = video_stream(container, path)
        stream.codec_context.thread_count = DECODER_THREADS
        start, duration = container.start_time or 0, container.duration or 0
        orientation: Orientation | None = None
        for index in range(count):
            target = start + duration * index // count
            try:
                container.seek(target)  # to the keyframe before
            except av.FFmpegError:
                break
            frame = _first_at(container, stream, Fraction(target, av.time_base))
            if frame is None:
                return
            yield upright_rgb(frame, size, orientation := orientation or frame_orientation(frame))
        else:
            return
    with open_film(path) as container:
        stream = video_stream(container, path)
        stream.codec_context.thread_count = DECODER_THREADS
        frames = decode_frames(container, stream, Losses())
        for frame in islice(frames, 0, (count - index) * _STEP_WITHOUT_SEEKING, _STEP_WITHOUT_SEEKING):
            yield upright_rgb(frame, size, orientation := orientation or frame_orientation(frame))


def _first_at(container: InputContainer, stream: VideoStream, second: Fraction) -> VideoFrame | None:
    """Return the first frame displayed at or after `second`, or the last one within the decoding limit."""
    frame = None
    for frame in islice(decode_frames(container, stream, Losses()), _MAX_AFTER_KEYFRAME):
        if frame.time is None or frame.time >= second:
            return frame
    return frame


def nearest_timestamp(path: Path, pts: Fraction) -> int:
    """Return the timestamp of the frame nearest to `pts`, without decoding."""
    with open_film(path) as container:
        stream = video_stream(container, path)
        second = round(1 / (stream.time_base or 1))
        if not _seek(container, stream, round(pts)):
            container.seek(0)
        near = round(pts)
        timestamps = []
        for packet in container.demux(stream):
            if packet.pts is not None:
                timestamps.append(packet.pts)
            if packet.dts is not None and packet.dts > near + second:
                break
        return min(timestamps, key=lambda timestamp: (abs(timestamp - pts), timestamp), default=near)


def is_seekable(path: Path) -> bool:
    """Whether decoding can start in the middle of a film in this container."""
    with open_film(path) as container:
        return _can_seek(container)


def keyframe_before(path: Path, pts: int) -> int | None:
    """Return the timestamp of the keyframe from which decoding reaches `pts`, without decoding.

    None is the start of the film: its container is not seekable, or its index leads past `pts`.
    """
    with open_film(path) as container:
        stream = video_stream(container, path)
        if not _seek(container, stream, pts):
            return None
        found = next(container.demux(stream)).pts
        return found if found is not None and found <= pts else None


def container_and_frame_count(path: Path) -> tuple[str, int]:
    """Return FFmpeg's name of the container and the number of frames, without decoding."""
    with open_film(path) as container:
        packets = container.demux(video_stream(container, path))
        return container.format.name, sum(1 for packet in packets if packet.size)


def header_seconds(path: Path) -> float:
    """Return the duration of a film's longest track as its header states it; 0 if it does not."""
    with open_film(path) as container:
        return (container.duration or 0) / av.time_base


class ShotReader:
    """Read the shots of a film in order with one decoder, seeking only where shots are skipped."""

    def __init__(
        self,
        path: Path,
        timestamps: Sequence[int],
        size: tuple[int, int] | None = None,  # height, width to scale to; None keeps the film's
        *,
        decode: Callable[..., Iterator[DecodedFrame]] = decode_film,
        seeks: bool = True,  # False for a damaged film: frames after damage depend on those before
    ) -> None:
        self._path, self._timestamps, self._size = path, timestamps, size
        self._decode, self._seeks = decode, seeks
        self._frames: Iterator[DecodedFrame] = iter(())
        self._next = -1

    def read(self, start: int, stop: int) -> Iterator[DecodedFrame]:
        """Yield frames `start` to `stop - 1`; exhaust them before the next call.

        Raises UserError if the film has fewer frames than it had.
        """
        if self._next != start:
            if self._seeks:
                self._frames = self._decode(self._path, start_pts=self._timestamps[start], size=self._size)
            else:
                self._frames = islice(self._decode(self._path, size=self._size), start, None)
        self._next = stop
        for number in range(start, stop):
            frame = next(self._frames, None)
            if frame is None:
                raise UserError(
                    f"{self._path}: frame {number} was read before and cannot be read now; "
                    "check the file and the disk"
                )
            yield frame


def _read(
    path: Path,
    start_pts: int | None,
    size: tuple[int, int] | None,
    select: Callable[[int], bool],
    deinterlace: bool,
    whole_every: int | None,
    *,
    seek: bool,
) -> Iterator[DecodedFrame]:
    with open_film(path) as container:
        stream = video_stream(container, path)
        stream.codec_context.thread_count = DECODER_THREADS
        # Deinterlacing needs the frame before, so that reading from here gives the same as reading on. The
        # index counts decoding times, which are up to some frames earlier.
        earlier = _EARLIER_FRAMES * _frame_ticks(stream) if deinterlace else 0
        if seek and not _seek(container, stream, max(0, (start_pts or 0) - earlier)):
            return
        losses = Losses()
        decoded = decode_frames(container, stream, losses)
        if seek and deinterlace:
            first = next(decoded, None)
            if first is None or first.pts is None or first.pts >= (start_pts or 0):
                return
            decoded = chain([first], decoded)
        frames = deinterlace_frames(decoded, stream) if deinterlace else decoded
        views = ((frame,) for frame in frames)
        count = 0
        orientation: Orientation | None = None
        for pts, (frame,), lost in with_timestamps(
            views, container, stream, path, losses=losses, whole=not seek
        ):
            if (start_pts is None or pts >= start_pts) and select(pts):
                damaged = frame.is_corrupt or frame.pts in losses.partial
                is_whole = whole_every is not None and count % whole_every == 0
                orientation = orientation or frame_orientation(frame)
                whole = upright_rgb(frame, None, orientation) if is_whole else None
                yield DecodedFrame(pts, upright_rgb(frame, size, orientation), damaged, lost, whole)
                count += 1


def _seek(container: InputContainer, stream: VideoStream, pts: int) -> bool:
    """Seek to the keyframe before a timestamp; return False if timestamps would be unreliable after that."""
    if not _can_seek(container):
        return False
    try:
        container.seek(pts, stream=stream, backward=True)
    except av.FFmpegError:
        return False
    return True


def _can_seek(container: InputContainer) -> bool:
    return bool(_SEEKABLE & set(container.format.name.split(",")))


def with_timestamps(
    frames: Iterable[tuple[VideoFrame, ...]],  # the views of each frame
    container: InputContainer,
    stream: VideoStream,
    path: Path,
    *,
    losses: Losses,  # counted by the decoder
    whole: bool,  # read from the start, so that the length can be checked
) -> Iterator[tuple[int, tuple[VideoFrame, ...], int]]:
    """Yield frames with strictly increasing timestamps, and the number of pictures lost before each.

    Raises TruncatedFilm and UnreadableFilm as `decode_film` does.
    """
    count, lost, first, last, duration = 0, 0, 0, 0, 0
    size: tuple[int, int] | None = None
    for views in frames:
        frame, pts = views[0], views[0].pts
        size = size or (frame.width, frame.height)
        if (frame.width, frame.height) != size:
            raise TruncatedFilm(path, count, f"the frame size changes to {frame.width}x{frame.height}")
        if count == 0:
            first = last = pts or 0
        else:
            last = max(last + 1, pts if pts is not None else last + (frame.duration or _frame_ticks(stream)))
        lost_before = losses.take_before(last)
        count, lost, duration = count + 1, lost + lost_before, frame.duration or _frame_ticks(stream)
        yield last, views, lost_before
    if losses.timestamps:
        raise TruncatedFilm(path, count, losses.reason)
    if whole and (beyond := _frames_beyond_end(container, stream, path)):
        reason = f"{pluralize(beyond, 'frame')} of its index lie beyond the end of the file"
        raise TruncatedFilm(path, count, reason)
    if lost > count:
        raise UnreadableFilm(
            f"{path}: {lost} of {count + lost} pictures do not decode ({losses.reason}); copy the film again"
        )
    decoded = (last + duration - first) * Fraction(stream.time_base or 0)
    stated = _stated_seconds(container, stream, first)
    counted = 0 < stream.frames <= count + lost
    if whole and not counted and stated - decoded > max(Fraction(1), _MISSING_SHARE * stated):
        raise TruncatedFilm(
            path, count, f"{float(decoded):.1f} of the {float(stated):.1f} seconds in its header"
        )


def _frames_beyond_end(container: InputContainer, stream: VideoStream, path: Path) -> int:
    """Return how many frames the index of an mp4 or mov places after the end of the file."""
    if "mp4" not in container.format.name.split(","):
        return 0
    end = path.stat().st_size
    return sum(entry.pos + entry.size > end for entry in stream.index_entries)


def _frame_ticks(stream: VideoStream) -> int:
    """Return the average number of ticks per frame."""
    return max(1, round(1 / ((stream.average_rate or 25) * (stream.time_base or 1))))


def _stated_seconds(container: InputContainer, stream: VideoStream, first: int) -> Fraction:
    """Return the duration of the video stream by the film's header; 0 if it does not state one."""
    tag = stream.metadata.get("DURATION", "")
    if stream.duration is not None and stream.time_base is not None:
        track = Fraction(stream.duration * stream.time_base)
    elif re.fullmatch(r"\d+:\d+:\d+(\.\d+)?", tag):
        hours, minutes, seconds = tag.split(":")
        track = int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
        track -= first * Fraction(stream.time_base or 0)  # Matroska counts from 0, not from the first frame
    else:
        return Fraction(0)
    # An edit list may show less of a track than it holds; the container's duration accounts for that.
    whole = Fraction(container.duration, av.time_base) if container.duration else track
    return min(track, whole)


def upright_rgb(
    frame: VideoFrame,
    size: tuple[int, int] | None,  # height, width after rotation
    orientation: Orientation,  # that of the film, see `frame_orientation`
) -> np.ndarray:  # uint8 [H, W, 3]
    """Convert a decoded frame to RGB as displayed: tone-mapped, dithered from more than 8 bits, upright."""
    height, width = orientation.size(*size) if size else (None, None)
    colour = frame_colour(frame)
    is_hdr = colour.transfer in (PQ, HLG)
    is_deep = is_hdr or max(component.bits for component in frame.format.components) > 8
    rgb = frame.reformat(
        width=width,
        height=height,
        format="rgb48le" if is_deep else "rgb24",
        src_colorspace=colour.scaler_matrix,
        src_color_range=colour.scaler_range,
        dst_color_range=2,
        interpolation=Interpolation.AREA if size else EXACT_SCALING,
    ).to_ndarray()
    if is_deep:
        deep = rgb.astype(np.uint16, copy=False)
        rgb = dither(tone_map(deep, colour.transfer) if is_hdr else deep)
    return orientation.apply(rgb)
