"""Probe a film: size, rates, colour and audio, from its header and first frame."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation
from av.video.stream import VideoStream

from secondeye.system.errors import UserError
from secondeye.system.text import pluralize

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
_HIGH_DYNAMIC_RANGE = {16, 18}  # PQ and HLG
_HD_HEIGHT = 720  # players assume BT.709 from this height up if the file does not say
_BY_ENDING = {".hevc": "hevc"}  # FFmpeg does not detect a raw stream of several layers

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
    fps: Fraction  # the average if the rate varies
    time_base: Fraction  # seconds per timestamp tick
    start_seconds: Fraction  # timestamp of the first frame
    frames: int  # as the container states; 0 if it does not
    bit_depth: int  # bits per channel
    colour: Colour
    audio: tuple[str, ...]  # codec names of the audio tracks

    @property
    def is_hdr(self) -> bool:
        """Whether the transfer function is PQ or HLG, which 8-bit frames cannot hold."""
        return self.colour.transfer in _HIGH_DYNAMIC_RANGE


def ffmpeg_url(path: Path) -> str:
    """Return the URL FFmpeg opens; without a scheme it takes `Alien: One.mkv` for a protocol."""
    return f"file:{path}"


def open_film(path: Path) -> InputContainer:
    """Open a film for reading. Raises UnreadableFilm."""
    if not path.exists():
        raise UnreadableFilm(f"{path}: file does not exist")
    if path.is_dir():
        raise UnreadableFilm(f"{path}: is a folder; give a film file")
    try:
        return av.open(ffmpeg_url(path), "r", format=_BY_ENDING.get(path.suffix.lower()))
    except av.FFmpegError as error:
        raise UnreadableFilm(f"{path}: not a film that FFmpeg can read ({error.strerror})") from error


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """Return the film's main video stream. Raises UnreadableFilm if it has none."""
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream) or stream.codec_context is None:
        raise UnreadableFilm(f"{path}: has no video stream")
    return stream


def decode_first_frame(container: InputContainer, stream: VideoStream, path: Path) -> VideoFrame:
    """Decode the first frame of a newly opened stream. Raises UnreadableFilm if none decodes."""
    try:
        return next(container.decode(stream))
    except (StopIteration, av.FFmpegError) as error:
        raise UnreadableFilm(f"{path}: no frame of its video stream decodes") from error


def probe(path: Path) -> FilmInfo:
    """Read a film's header and decode its first frame.

    Raises UnreadableFilm if the file is missing, a folder, not a film, or has no frame that decodes.
    """
    with open_film(path) as container:
        stream = video_stream(container, path)
        first = decode_first_frame(container, stream, path)
        rotation = round(first.rotation / 90) % 4
        width, height = (first.height, first.width) if rotation % 2 else (first.width, first.height)
        aspect = stream.sample_aspect_ratio or Fraction(1)
        time_base = Fraction(stream.time_base or Fraction(1, 90000))
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        return FilmInfo(
            path=path,
            width=width,
            height=height,
            pixel_aspect=1 / aspect if rotation % 2 else aspect,
            fps=Fraction(rate),
            time_base=time_base,
            start_seconds=(first.pts or 0) * time_base,
            frames=stream.frames,
            bit_depth=max(component.bits for component in first.format.components),
            colour=frame_colour(first),
            audio=tuple(track.codec_context.name for track in container.streams.audio if track.codec_context),
        )


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
