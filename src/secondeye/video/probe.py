"""Probe a film: size, rates, colour and audio, from its header, its timestamps and its first frame."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from typing import Any, cast

import av
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import SideData, Type
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation
from av.video.stream import VideoStream

from secondeye.system.errors import UserError
from secondeye.system.text import pluralize
from secondeye.video.orientation import Orientation, frame_orientation
from secondeye.video.tone_mapping import HLG, PQ

# FFmpeg's AVColorSpace (of a file) to the matrix its scaler takes.
_MATRIX = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
}
_BT709, _UNSPECIFIED, _SMPTE170M = 1, 2, 6
_HIGH_DYNAMIC_RANGE = {PQ: "PQ", HLG: "HLG"}
_DOVI_COLOUR_OFFSET, _DOVI_COLOUR_SPACE, _IPT = 16, 185, 2  # of and in FFmpeg's AVDOVIMetadata
_HD_HEIGHT = 720  # players assume BT.709 from this height up if the file does not say
_BY_ENDING = {".hevc": "hevc"}  # FFmpeg does not detect a raw stream of several layers
_NO_FILM = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_MAX_FAILURES = 3  # of the demuxer in a row: then the file ends
_INTERLACED_PARTS = 4  # of a film: the start of each is looked at
_INTERLACED_FRAMES = 10  # of each: of telecined film two frames of five are marked
_MAX_FIRST = 100  # pictures that may fail to decode before the first one that does

# The rate in a header is an average, and some programs write none or nonsense. It is kept unless timestamps
# differ by more than films with a variable rate do.
_RATE_FRAMES = 100  # whose timestamps are read
_MIN_STEPS = 8  # between them: fewer do not tell a rate
_MAX_RATE_FACTOR = Fraction(3, 2)
_STANDARD_RATES = [
    Fraction(n, d)
    for n, d in [(24000, 1001), (24, 1), (25, 1), (30000, 1001), (30, 1), (50, 1), (60000, 1001), (60, 1)]
]
_RATE_TOLERANCE = Fraction(1, 2000)  # half the distance of 24 from 23.976

# Without the last three flags a round trip through RGB darkens frames by one level.
EXACT_SCALING = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)


class UnreadableFilm(UserError):
    """The file cannot be read as a film."""


class TruncatedFilm(UserError):
    """Decoding stopped before the end of the film, after `frames` frames."""

    def __init__(self, path: Path, frames: int, reason: str) -> None:
        super().__init__(path, frames, reason)  # all arguments, so that it can be unpickled
        self.path, self.frames, self.reason = path, frames, reason

    def __str__(self) -> str:
        return f"{self.path}: ends early after {pluralize(self.frames, 'frame')} ({self.reason})"


@dataclass(frozen=True)
class Colour:
    """The colour space of a film, in FFmpeg's AVCOL_* numbers."""

    matrix: int
    full_range: bool
    primaries: int
    transfer: int

    @property
    def scaler_matrix(self) -> Colorspace:
        """The matrix as FFmpeg's scaler names it."""
        return _MATRIX[self.matrix]

    @property
    def scaler_range(self) -> int:
        """1 for limited (16 to 235), 2 for full range."""
        return 2 if self.full_range else 1


BT709 = Colour(matrix=_BT709, full_range=False, primaries=_BT709, transfer=_BT709)


@dataclass(frozen=True)
class FilmInfo:
    """A film's properties as displayed: width and height after rotation."""

    path: Path
    width: int  # px
    height: int  # px
    pixel_aspect: Fraction  # width / height of one pixel, after rotation
    orientation: Orientation  # width and height are those after it
    fps: Fraction  # the average if the rate varies
    time_base: Fraction  # seconds per timestamp tick
    start_seconds: Fraction  # timestamp of the first frame
    frames: int  # as the container states; 0 if it does not
    bit_depth: int  # bits per channel
    colour: Colour  # that frames are converted to: BT.709 for a film of high dynamic range
    hdr: str  # PQ or HLG, which are tone-mapped; "" for standard dynamic range
    interlaced: bool  # some frames are marked as two fields of different times
    audio: tuple[str, ...]  # codec names of the audio tracks
    packing: str = ""  # of two views in a frame, if only the left one is used; then the size is that of it


def ffmpeg_url(path: Path) -> str:
    """Return the URL FFmpeg opens; without a scheme it takes `Alien: One.mkv` for a protocol."""
    return f"file:{path}"


@dataclass
class Losses:
    """Pictures of a film that did not decode, or parts of the file that could not be read."""

    timestamps: list[int | None] = field(default_factory=list)  # in ticks, if known
    reason: str = ""  # of the last one
    partial: set[int] = field(default_factory=set)  # timestamps of packets that the file holds in part
    _waiting: set[int] = field(default_factory=set)  # of packets since an error without a frame so far
    _has_fields: bool = False  # then a frame may have two packets

    def add(self, pts: int | None, error: av.FFmpegError) -> None:
        """Add a picture."""
        self.timestamps.append(pts)
        self.reason = error.strerror or "no reason given"

    def watch(self, packet: Packet, frames: Sequence[VideoFrame]) -> None:
        """Add the pictures that a decoder drops in silence after an error, as until the next key frame.

        Frames come in display order: a packet before the newest one gives none any more.
        """
        if packet.pts is not None:
            if packet.is_corrupt:
                self.partial.add(packet.pts)
            if self.reason and packet.size and not packet.is_discard:
                self._waiting.add(packet.pts)
        for frame in frames:
            self._has_fields |= frame.interlaced_frame
            if frame.pts is not None:
                self._waiting.discard(frame.pts)
                self._drop(pts for pts in self._waiting if pts < frame.pts)

    def finish(self) -> None:
        """Add the pictures that are still missing at the end of the film."""
        self._drop(self._waiting)

    def _drop(self, timestamps: Iterable[int]) -> None:
        dropped = sorted(timestamps)
        self._waiting.difference_update(dropped)
        self.timestamps += [] if self._has_fields else dropped

    def take_before(self, pts: int) -> int:
        """Remove the pictures before a timestamp, and return how many there were."""
        count = len(self.timestamps)
        self.timestamps = [lost for lost in self.timestamps if lost is not None and lost > pts]
        return count - len(self.timestamps)


def open_container(path: Path) -> InputContainer:
    """Open a film for reading. Raises UnreadableFilm."""
    if not path.exists():
        raise UnreadableFilm(f"{path}: file does not exist")
    if path.is_dir():
        raise UnreadableFilm(
            f"{path}: is a folder; give a film file, and make one of images first, as with "
            "ffmpeg -framerate 25 -i FOLDER/%04d.png -c:v ffv1 film.mkv"
        )
    try:
        return av.open(ffmpeg_url(path), "r", format=_BY_ENDING.get(path.suffix.lower()))
    except av.FFmpegError as error:
        raise UnreadableFilm(f"{path}: not a film that FFmpeg can read ({error.strerror})") from error


@contextmanager
def open_film(path: Path) -> Iterator[InputContainer]:
    """Open a film for reading alone. Raises UnreadableFilm, also if FFmpeg cannot read it later."""
    with open_container(path) as container:
        try:
            yield container
        except av.FFmpegError as error:
            raise UnreadableFilm(f"{path}: cannot be read ({error.strerror})") from error


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """Return the film's video stream: the largest one, except covers, thumbnails and still images.

    Raises UnreadableFilm if there is none, or FFmpeg has no decoder for it.
    """
    streams = container.streams.video
    films = [stream for stream in streams if not stream.disposition & _NO_FILM]
    if not films:
        found = "only a cover picture, no film" if streams else "no video stream"
        raise UnreadableFilm(f"{path}: has {found}")
    decodable = [stream for stream in films if stream.codec_context is not None]
    if not decodable:
        raise UnreadableFilm(f"{path}: this FFmpeg has no decoder for its video; convert it to H.264 first")
    best = container.streams.best("video")
    return max(decodable, key=lambda s: (s.frames != 1, s.width * s.height, s is best))


def demux_film(container: InputContainer, streams: Stream | list[Stream], losses: Losses) -> Iterator[Packet]:
    """Yield the packets of streams, skipping parts of the file that cannot be read."""
    failures = 0
    while failures < _MAX_FAILURES:
        try:
            for packet in container.demux(streams):
                failures = 0
                yield packet
            return
        except av.FFmpegError as error:
            failures += 1
            losses.add(None, error)


def decode_packet(packet: Packet, losses: Losses) -> Sequence[Any]:
    """Return the frames of a packet; none if it cannot be decoded."""
    try:
        return packet.decode()
    except av.FFmpegError as error:
        losses.add(packet.pts, error)
        return []


def decode_frames(container: InputContainer, stream: VideoStream, losses: Losses) -> Iterator[VideoFrame]:
    """Yield the frames of a stream that decode, in display order."""
    for packet in demux_film(container, stream, losses):
        known = len(losses.timestamps)
        frames = decode_packet(packet, losses)
        if len(losses.timestamps) == known:
            losses.watch(packet, frames)
        yield from frames
    losses.finish()


def decode_first_frame(container: InputContainer, stream: VideoStream, path: Path) -> VideoFrame:
    """Decode the first frame of a newly opened stream. Raises UnreadableFilm if none decodes."""
    losses = Losses()
    for packet in demux_film(container, stream, losses):
        for frame in decode_packet(packet, losses):
            return frame
        if len(losses.timestamps) > _MAX_FIRST:
            break
    if container.format.name == "webp_pipe":
        raise UnreadableFilm(
            f"{path}: is animated WebP, which FFmpeg does not decode; convert it to GIF or MP4"
        )
    raise UnreadableFilm(f"{path}: no frame of its video stream decodes")


def probe(path: Path) -> FilmInfo:
    """Read a film's header and first timestamps, and decode its first frame.

    Raises UnreadableFilm if the file is missing, a folder, not a film, or has no frame that decodes.
    """
    with open_film(path) as container:
        stream = video_stream(container, path)
        first = decode_first_frame(container, stream, path)
        _reject_dolby_vision(first, path)
        _reject_impossible_times(stream, path)
        colour = frame_colour(first)
        hdr = _HIGH_DYNAMIC_RANGE.get(colour.transfer, "")
        orientation = frame_orientation(first)
        height, width = orientation.size(first.height, first.width)
        aspect = stream.sample_aspect_ratio or Fraction(1)
        time_base = Fraction(stream.time_base or Fraction(1, 90000))
        return FilmInfo(
            path=path,
            width=width,
            height=height,
            pixel_aspect=1 / aspect if orientation.transposed else aspect,
            orientation=orientation,
            fps=_frame_rate(container, stream, path),
            time_base=time_base,
            start_seconds=(first.pts or 0) * time_base,
            frames=stream.frames,
            bit_depth=max(component.bits for component in first.format.components),
            colour=BT709 if hdr else colour,
            hdr=hdr,
            interlaced=first.interlaced_frame or _is_interlaced(container, stream),
            audio=tuple(track.codec_context.name for track in container.streams.audio if track.codec_context),
        )


def _reject_impossible_times(stream: VideoStream, path: Path) -> None:
    """Raise UnreadableFilm if the header states more frames than ticks: most of them would be dropped."""
    if stream.duration and stream.frames > stream.duration + 1:
        ticks = f"{stream.frames} frames into {stream.duration} ticks of {stream.time_base} s"
        raise UnreadableFilm(f"{path}: its header is damaged: it puts {ticks}; copy the film again")


def _reject_dolby_vision(frame: VideoFrame, path: Path) -> None:
    """Raise UnreadableFilm for Dolby Vision whose colours are IPT, as of profile 5: nothing else tells."""
    try:
        data = cast(Mapping[Type, SideData], frame.side_data).get(Type.DOVI_METADATA)
    except ValueError:  # as in `frame_orientation`
        return
    if data is None:
        return
    content = bytes(data)
    start = int.from_bytes(content[_DOVI_COLOUR_OFFSET : _DOVI_COLOUR_OFFSET + 8], sys.byteorder)
    if content[start + _DOVI_COLOUR_SPACE] == _IPT:
        raise UnreadableFilm(
            f"{path}: Dolby Vision with IPT colours (profile 5), which only its own decoders show; "
            "convert it to HDR10 or SDR first"
        )


def _frame_rate(container: InputContainer, stream: VideoStream, path: Path) -> Fraction:
    """Return the rate in the header, unless the timestamps contradict it; then theirs."""
    stated = Fraction(stream.average_rate or stream.guessed_rate or 25)
    if _agrees(stated, _measured_rate(demux_film(container, stream, Losses()), stream)):
        return stated
    # Packets may be fields, half frames: frames decide.
    with open_film(path) as again:
        stream = video_stream(again, path)
        measured = _measured_rate(decode_frames(again, stream, Losses()), stream)
    if measured is None or _agrees(stated, measured):
        return stated
    nearest = min(_STANDARD_RATES, key=lambda rate: abs(rate - measured))
    if abs(nearest - measured) <= _RATE_TOLERANCE * nearest:
        return nearest
    return measured.limit_denominator(1001)


def _is_interlaced(container: InputContainer, stream: VideoStream) -> bool:
    """Whether a frame in the middle is marked as interlaced: a film may begin with a progressive logo."""
    start, duration = container.start_time or 0, container.duration or 0
    for part in range(1, _INTERLACED_PARTS):
        try:
            container.seek(start + duration * part // _INTERLACED_PARTS)
        except av.FFmpegError:
            return False
        if any(
            frame.interlaced_frame
            for frame in islice(decode_frames(container, stream, Losses()), _INTERLACED_FRAMES)
        ):
            return True
    return False


def _agrees(stated: Fraction, measured: Fraction | None) -> bool:
    return measured is None or 1 / _MAX_RATE_FACTOR <= stated / measured <= _MAX_RATE_FACTOR


def _measured_rate(timed: Iterable[Packet | VideoFrame], stream: VideoStream) -> Fraction | None:
    """Return the rate of the first frames, without those that stand much longer; None for too few."""
    known = (one.pts for one in islice(timed, _RATE_FRAMES) if one.pts is not None)
    steps = [after - before for before, after in pairwise(sorted(set(known)))]
    if len(steps) < _MIN_STEPS:
        return None
    typical = median(steps)
    regular = [step for step in steps if typical / 2 < step < typical * 2]
    return len(regular) / (sum(regular) * Fraction(stream.time_base or 1))


def read_tags(path: Path) -> dict[str, str]:
    """Return the tags of the container, with names in lower case. Raises UnreadableFilm."""
    with open_film(path) as container:
        return {name.lower(): value for name, value in container.metadata.items()}


def frame_colour(frame: VideoFrame) -> Colour:
    """Return a frame's colour space, with the defaults of players for what it does not state."""
    matrix = int(frame.colorspace)
    if matrix not in _MATRIX:
        matrix = _BT709 if frame.height >= _HD_HEIGHT else _SMPTE170M
    full = int(frame.color_range) == 2 or frame.format.name.startswith("yuvj")
    return Colour(matrix, full, int(frame.color_primaries), int(frame.color_trc))
