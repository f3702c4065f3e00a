"""Write films for viewing, and lossless arrays."""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast

import av
import cv2
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from secondeye.system.files import atomic_path
from secondeye.video.encoders import APPLE_HEVC, Encoding, quiet_svt
from secondeye.video.probe import BT709, EXACT_SCALING, Colour, ffmpeg_url

_MAX_STEP_TICKS = 2**31 - 1  # from one frame to the next: mp4 stores it in 32 bits
_TIME_BASES = [Fraction(1, 10**6), Fraction(1, 90000), Fraction(1, 1000)]  # coarser than that of some films
_MAX_REORDERED = 16  # frames that an HEVC encoder may hold back to sort them
_LOSSLESS_RATE = 24  # FFV1 files hold arrays; their frame rate has no meaning


def container_time_base(time_base: Fraction, timestamps: Sequence[int]) -> Fraction:
    """Return the time base of a film's timestamps, or a coarser one if mp4 cannot hold their longest step."""
    longest = max((after - before for before, after in pairwise(timestamps)), default=0) * time_base
    return next((base for base in (time_base, *_TIME_BASES) if longest / base <= _MAX_STEP_TICKS), time_base)


class FilmWriter:
    """Write one or more video streams of one size to an mp4 file, frame by frame.

    The caller renames and cleans up.
    """

    def __init__(
        self,
        path: Path,
        width: int,
        height: int,
        *,
        fps: Fraction,
        time_base: Fraction,
        colour: Colour = BT709,
        pixel_aspect: Fraction = Fraction(1),
        encoding: Encoding | None = None,  # None: 8-bit H.264; 4:4:4 for odd sizes, which 4:2:0 lacks
        frame_packing: int | None = None,  # of the SEI in H.264; see stereo_tag.py
        streams: int = 1,
    ) -> None:
        if encoding is None:
            encoding = Encoding(full_chroma=bool(width % 2 or height % 2))
        quiet_svt()
        self._container: OutputContainer = av.open(ffmpeg_url(path), "w", format="mp4")
        self._streams: list[VideoStream] = []
        for _ in range(streams):
            options = encoding.options(streams * height * width, frame_packing)
            added = self._container.add_stream(encoding.encoder.name, rate=fps, options=options)
            stream = cast(VideoStream, added)
            stream.width, stream.height = width, height
            stream.pix_fmt = encoding.pixel_format
            if encoding.encoder.codec == "hevc":
                stream.codec_context.codec_tag = APPLE_HEVC
            stream.time_base = stream.codec_context.time_base = time_base
            stream.codec_context.sample_aspect_ratio = pixel_aspect
            if not _is_rgb(stream):
                stream.codec_context.colorspace = colour.matrix
                stream.codec_context.color_range = colour.scaler_range
            stream.codec_context.color_primaries = colour.primaries
            stream.codec_context.color_trc = colour.transfer
            self._streams.append(stream)
        self._colour, self.time_base = colour, time_base
        # Of a segment of one or two frames x265 gives packets without decoding times.
        self._sets_times = encoding.encoder.name == "libx265"
        self._given: list[list[int]] = [[] for _ in range(streams)]  # timestamps of frames
        self._encoded = [0] * streams  # packets

    def add_audio(self, rate: int) -> None:
        """Add a stereo AAC track. Call before the first frame is written."""
        self._audio = self._container.add_stream("aac", rate=rate, options={"b": "128000"})
        self._audio.codec_context.layout = "stereo"

    def write(
        self,
        rgb: np.ndarray,  # uint8 [H, W, 3]
        pts: int,  # ticks of the time base
        stream: int = 0,
    ) -> None:
        """Encode one frame."""
        video = self._streams[stream]
        frame = VideoFrame.from_ndarray(rgb, format="rgb24")
        frame = frame.reformat(format="bgr0") if _is_rgb(video) else self._to_yuv(frame, video.pix_fmt or "")
        frame.pts, frame.time_base = pts, self.time_base
        if self._sets_times:
            self._given[stream].append(pts)
        self._mux(stream, video.encode(frame))

    def _mux(self, stream: int, packets: Iterable[Packet]) -> None:
        """Write packets; those of x265 are decoded at the times of earlier frames, which increase."""
        for packet in packets:
            if self._sets_times:
                number, given = self._encoded[stream], self._given[stream]
                behind = number - _MAX_REORDERED
                packet.dts = given[behind] if behind >= 0 else given[0] + behind
                self._encoded[stream] += 1
            self._container.mux(packet)

    def _to_yuv(self, frame: VideoFrame, pixel_format: str) -> VideoFrame:
        deep = "10" in pixel_format
        frame = frame.reformat(
            format="yuv444p10le" if deep else "yuv444p",
            src_color_range=2,
            dst_colorspace=self._colour.scaler_matrix,
            dst_color_range=self._colour.scaler_range,
            interpolation=EXACT_SCALING,
        )
        if "444" not in pixel_format:
            frame = _subsample(frame, self._colour)
        _fill_padding(frame)
        # p010, of hardware encoders, is the same in another order.
        return frame if frame.format.name == pixel_format else frame.reformat(format=pixel_format)

    def write_audio(
        self,
        samples: np.ndarray,  # float32 [2, N] in [-1, 1]
        rate: int,  # samples per second
    ) -> None:
        """Encode the whole audio track."""
        whole = AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout="stereo")
        whole.sample_rate, whole.pts = rate, 0
        resampler = AudioResampler(format="fltp", layout="stereo", rate=rate, frame_size=1024)
        for frame in [*resampler.resample(whole), *resampler.resample(None)]:
            self._container.mux(self._audio.encode(frame))
        self._container.mux(self._audio.encode(None))

    def close(self) -> None:
        """Flush the encoder and close the file."""
        for number, stream in enumerate(self._streams):
            self._mux(number, stream.encode(None))
        self._container.close()

    def __enter__(self) -> "FilmWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._container.close()


def _is_rgb(stream: VideoStream) -> bool:
    return stream.pix_fmt == "bgr0"


def _subsample(frame: VideoFrame, colour: Colour) -> VideoFrame:
    """Convert 4:4:4 to 4:2:0 with chroma on the left of two columns, where decoders expect it.

    FFmpeg's scaler writes it between the columns but reads it on the left, half a pixel apart.
    """
    subsampled = VideoFrame(frame.width, frame.height, frame.format.name.replace("444", "420"))
    (luma, *chroma), (small_luma, *small_chroma) = map(_planes, (frame, subsampled))
    small_luma[:] = luma
    kernel = np.array([[1, 2, 1], [1, 2, 1]], np.float32) / 8
    for plane, small in zip(chroma, small_chroma, strict=True):
        filtered = cv2.filter2D(plane, -1, kernel, anchor=(1, 0), borderType=cv2.BORDER_REPLICATE)
        small[:] = filtered[::2, ::2]
    subsampled.colorspace, subsampled.color_range = colour.matrix, colour.scaler_range
    return subsampled


def _planes(frame: VideoFrame) -> list[np.ndarray]:
    """Return the planes of a planar frame as arrays [h, w] that share its memory."""
    return [rows[:, :width] for rows, width in _rows(frame)]


def _rows(frame: VideoFrame) -> list[tuple[np.ndarray, int]]:
    """Return each plane with the padding of its rows, and its width without."""
    kind = np.uint8 if frame.format.components[0].bits == 8 else np.uint16
    itemsize = np.dtype(kind).itemsize
    return [
        (np.frombuffer(memoryview(plane), kind).reshape(-1, plane.line_size // itemsize), plane.width)
        for plane in frame.planes
    ]


def _fill_padding(frame: VideoFrame) -> None:
    """Repeat each row's last pixel into the padding, since x264 reads some of it."""
    for rows, width in _rows(frame):
        rows[:, width:] = rows[:, width - 1 : width]


def write_film(
    path: Path,
    frames: Iterable[np.ndarray],  # uint8 [H, W, 3] RGB
    fps: Fraction,
    *,
    crf: int = 16,
    preset: str = "veryfast",
    audio: np.ndarray | None = None,  # float32 [2, N] in [-1, 1]
    audio_rate: int = 48000,
) -> None:
    """Write an H.264 mp4, with AAC audio if given. The file is written atomically."""
    images = iter(frames)
    first = next(images)
    height, width = first.shape[:2]
    encoding = Encoding(crf=crf, preset=preset, full_chroma=bool(width % 2 or height % 2))
    with (
        atomic_path(path) as part,
        FilmWriter(part, width, height, fps=fps, time_base=1 / fps, encoding=encoding) as writer,
    ):
        if audio is not None:
            writer.add_audio(audio_rate)
        writer.write(first, 0)
        for index, image in enumerate(images, start=1):
            writer.write(image, index)
        if audio is not None:
            writer.write_audio(audio, audio_rate)


def write_lossless(
    path: Path,
    frames: np.ndarray,  # uint8 [T, H, W, 3] RGB, uint8 [T, H, W] or uint16 [T, H, W]
) -> None:
    """Write arrays as FFV1 in Matroska, atomically; the same arrays give the same bytes on every run."""
    source_format, stored_format = {
        ("uint8", 4): ("rgb24", "bgr0"),
        ("uint8", 3): ("gray", "gray"),
        ("uint16", 3): ("gray16le", "gray16le"),
    }[frames.dtype.name, frames.ndim]
    # Without bitexact, Matroska writes random ids and the library's version.
    with (
        atomic_path(path) as part,
        av.open(
            ffmpeg_url(part), "w", format="matroska", container_options={"fflags": "+bitexact"}
        ) as container,
    ):
        # Each frame by itself ("g"), so that windows with a stride are read without the frames between.
        options = {"level": "3", "slices": "4", "g": "1", "threads": "1", "flags": "+bitexact"}
        stream = container.add_stream("ffv1", rate=_LOSSLESS_RATE, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = stored_format
        for index, array in enumerate(frames):
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(array), format=source_format)
            frame = frame.reformat(format=stored_format) if stored_format != source_format else frame
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_gray_film(
    path: Path,
    frames: Iterable[np.ndarray],  # uint16 [H, W]
    fps: Fraction,
) -> None:
    """Write FFV1 with 16 bits in Matroska, atomically; the same frames give the same bytes on every run."""
    _write_ffv1(path, frames, fps, ("gray16le", "gray16le"), Fraction(1))


def write_lossless_film(
    path: Path,
    frames: Iterable[np.ndarray],  # uint8 [H, W, 3] RGB
    fps: Fraction,
    pixel_aspect: Fraction,  # width / height of a pixel
) -> None:
    """Write a film of constant rate as FFV1 in Matroska, bit by bit, atomically; about 1.5 bytes a pixel."""
    _write_ffv1(path, frames, fps, ("rgb24", "bgr0"), pixel_aspect)


def _write_ffv1(
    path: Path,
    frames: Iterable[np.ndarray],
    fps: Fraction,
    formats: tuple[str, str],  # of the arrays, of the file
    pixel_aspect: Fraction,
) -> None:
    options = {"level": "3", "slices": "4", "threads": "1", "flags": "+bitexact"}
    with (
        atomic_path(path) as part,
        av.open(
            ffmpeg_url(part), "w", format="matroska", container_options={"fflags": "+bitexact"}
        ) as container,
    ):
        stream = container.add_stream("ffv1", rate=fps, options=options)
        stream.pix_fmt = formats[1]
        stream.codec_context.sample_aspect_ratio = pixel_aspect
        for index, image in enumerate(frames):
            if index == 0:
                stream.height, stream.width = image.shape[:2]
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(image), format=formats[0])
            frame = frame.reformat(format=formats[1]) if formats[0] != formats[1] else frame
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def read_lossless(
    source: Path | BinaryIO,  # a seekable file
    frames: Sequence[int] | None = None,  # indices, ascending; all by default
) -> np.ndarray:  # uint8 [T, H, W, 3] RGB, uint8 [T, H, W] or uint16 [T, H, W]
    """Read a file of `write_lossless`, bit for bit. Raises ValueError if it lacks one of the frames."""
    with av.open(ffmpeg_url(source) if isinstance(source, Path) else source, "r") as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        array_format = "rgb24" if stream.pix_fmt == "bgr0" else stream.pix_fmt
        decoded = container.decode(stream) if frames is None else _decode_only(container, stream, frames)
        arrays = [frame.to_ndarray(format=array_format) for frame in decoded]
    if frames is not None and len(arrays) != len(frames):
        raise ValueError(f"{source}: has {len(arrays)} of the {len(frames)} frames {list(frames)}")
    return np.stack(arrays)


def _decode_only(
    container: InputContainer, stream: VideoStream, frames: Sequence[int]
) -> Iterator[VideoFrame]:
    """Decode these frames, and those since the key frame before each: none in files of this version."""
    wanted, waiting = set(frames), list[Packet]()
    assert stream.time_base is not None
    container.seek(int(frames[0] / _LOSSLESS_RATE / stream.time_base), stream=stream)
    for packet in container.demux(stream):
        if packet.pts is None:  # the end
            return
        waiting = [packet] if packet.is_keyframe else [*waiting, packet]
        index = round(packet.pts * stream.time_base * _LOSSLESS_RATE)
        if index in wanted:
            yield [frame for one in waiting for frame in stream.decode(one)][-1]
            waiting = []
        if index >= frames[-1]:
            return
