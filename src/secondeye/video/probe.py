"""What a film is, read from its header and its first picture."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation
from av.video.stream import VideoStream

from secondeye.system.errors import UserError

# FFmpeg's AVColorSpace (what a file says) to the matrix the scaler is told to use.
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
_HD_HEIGHT = 720  # players assume BT.709 from here on when a file does not say
_BY_ENDING = {".hevc": "hevc"}  # a raw stream of several layers, FFmpeg does not know by its content

# Without the last three a way to RGB and back darkens a picture by one level.
EXACT_SCALING = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)


class UnreadableFilm(UserError):
    """The file is not a film that can be read."""


class TruncatedFilm(UserError):
    """The film breaks off; `pictures` of it were good."""

    def __init__(self, path: Path, pictures: int, reason: str) -> None:
        super().__init__(path, pictures, reason)  # all of them, so that it survives pickling
        self.path, self.pictures, self.reason = path, pictures, reason

    def __str__(self) -> str:
        return f"{self.path}: breaks off after {self.pictures} frames ({self.reason})"


@dataclass(frozen=True)
class Colour:
    """How the numbers of a film become light; values are FFmpeg's AVCOL_* numbers."""

    matrix: int
    full_range: bool
    primaries: int
    transfer: int

    @property
    def scaler_matrix(self) -> Colorspace:
        """The scaler's name of the matrix."""
        return _MATRIX[self.matrix]

    @property
    def scaler_range(self) -> int:
        """1 for limited (16 to 235), 2 for full range."""
        return 2 if self.full_range else 1


BT709 = Colour(matrix=_BT709, full_range=False, primaries=_BT709, transfer=_BT709)


@dataclass(frozen=True)
class FilmInfo:
    """A film as a viewer sees it: width and height are those after rotation."""

    path: Path
    width: int  # px
    height: int  # px
    pixel_aspect: Fraction  # width over height of one upright pixel
    fps: Fraction  # frames per second, the average for a variable rate
    time_base: Fraction  # seconds per tick of a time stamp
    begin: Fraction  # seconds, the first picture's time stamp
    frames: int  # what the container claims; 0 where it claims nothing
    bits: int  # per colour channel
    colour: Colour
    sound: tuple[str, ...]  # codec names of its sound tracks

    @property
    def is_hdr(self) -> bool:
        """True for PQ and HLG, which an 8-bit picture can not hold."""
        return self.colour.transfer in _HIGH_DYNAMIC_RANGE


def ffmpeg_url(path: Path) -> str:
    """The name FFmpeg opens; without the scheme it would take `Alien: One.mkv` for a protocol."""
    return f"file:{path}"


def open_film(path: Path) -> InputContainer:
    """Open a film for reading; raises UnreadableFilm with one clear line."""
    if not path.exists():
        raise UnreadableFilm(f"{path}: there is no such file")
    if path.is_dir():
        raise UnreadableFilm(f"{path}: is a folder; name one film file")
    try:
        return av.open(ffmpeg_url(path), "r", format=_BY_ENDING.get(path.suffix.lower()))
    except av.FFmpegError as error:
        raise UnreadableFilm(f"{path}: is not a film FFmpeg can read ({error.strerror})") from error


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The film's main picture stream; raises UnreadableFilm where there is none."""
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream) or stream.codec_context is None:
        raise UnreadableFilm(f"{path}: has no video stream")
    return stream


def decode_first_frame(container: InputContainer, stream: VideoStream, path: Path) -> VideoFrame:
    """The first picture of a stream just opened; raises UnreadableFilm where none decodes."""
    try:
        return next(container.decode(stream))
    except (StopIteration, av.FFmpegError) as error:
        raise UnreadableFilm(f"{path}: its video stream holds no picture that decodes") from error


def probe(path: Path) -> FilmInfo:
    """Read a film's header and decode its first picture.

    Raises UnreadableFilm when the file is missing, a folder, no film, or has no picture that decodes.
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
            begin=(first.pts or 0) * time_base,
            frames=stream.frames,
            bits=max(component.bits for component in first.format.components),
            colour=frame_colour(first),
            sound=tuple(track.codec_context.name for track in container.streams.audio if track.codec_context),
        )


def frame_colour(frame: VideoFrame) -> Colour:
    """The colour a picture says it has, with a player's guesses where it says nothing."""
    matrix = int(frame.colorspace)
    if matrix not in _MATRIX:
        matrix = _BT709 if frame.height >= _HD_HEIGHT else _SMPTE170M
    full = int(frame.color_range) == 2 or frame.format.name.startswith("yuvj")
    return Colour(matrix, full, int(frame.color_primaries), int(frame.color_trc))
