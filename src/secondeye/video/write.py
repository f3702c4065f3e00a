"""Write films: H.264 for viewing, FFV1 for lossless arrays."""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

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
from secondeye.video.probe import BT709, EXACT_SCALING, Colour, ffmpeg_url

# With several, x264's output depends on timing: of 860 runs on a busy machine, 10 gave other bytes; with one
# thread, none of 849 did. Encoding runs beside decoding and rendering anyway.
_X264_THREADS = 1
# Of frames larger than two 4K views x264 looks only a few ahead: it would hold about 4.5 GiB of 8K film.
_LARGE_PIXELS = 2 * 4096 * 2304
_LARGE_OPTIONS = ":rc-lookahead=4:sync-lookahead=0:bframes=0"
_MAX_STEP_TICKS = 2**31 - 1  # from one frame to the next: mp4 stores it in 32 bits
_TIME_BASES = [Fraction(1, 10**6), Fraction(1, 90000), Fraction(1, 1000)]  # coarser than that of some films
_LOSSLESS_RATE = 24  # FFV1 files hold arrays; their frame rate has no meaning


def has_encoder(name: str) -> bool:
    """Whether FFmpeg was built with this encoder."""
    return name in av.codecs_available


def container_time_base(time_base: Fraction, timestamps: Sequence[int]) -> Fraction:
    """Return the time base of a film's timestamps, or a coarser one if mp4 cannot hold their longest step."""
    longest = max((after - before for before, after in pairwise(timestamps)), default=0) * time_base
    return next((base for base in (time_base, *_TIME_BASES) if longest / base <= _MAX_STEP_TICKS), time_base)


class FilmWriter:
    """Write one H.264 stream to an mp4 file, frame by frame. The caller renames and cleans up.

    The format is 8-bit 4:2:0, or 4:4:4 for odd sizes, which 4:2:0 does not support.
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
        crf: int = 16,
        preset: str = "veryfast",
        side_by_side: bool = False,  # add the frame-packing SEI
    ) -> None:
        self._container: OutputContainer = av.open(ffmpeg_url(path), "w", format="mp4")
        packing = ":frame-packing=3" if side_by_side else ""
        large = _LARGE_OPTIONS if width * height > _LARGE_PIXELS else ""
        x264 = f"threads={_X264_THREADS}{large}{packing}"
        options = {"crf": str(crf), "preset": preset, "x264-params": x264}
        stream = self._container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
        stream.time_base = stream.codec_context.time_base = time_base
        stream.codec_context.sample_aspect_ratio = pixel_aspect
        stream.codec_context.colorspace = colour.matrix
        stream.codec_context.color_range = colour.scaler_range
        stream.codec_context.color_primaries = colour.primaries
        stream.codec_context.color_trc = colour.transfer
        self._stream, self._colour, self.time_base = stream, colour, time_base

    def add_audio(self, rate: int) -> None:
        """Add a stereo AAC track. Call before the first frame is written."""
        self._audio = self._container.add_stream("aac", rate=rate, options={"b": "128000"})
        self._audio.codec_context.layout = "stereo"

    def write(
        self,
        rgb: np.ndarray,  # uint8 [H, W, 3]
        pts: int,  # ticks of the time base
    ) -> None:
        """Encode one frame."""
        frame = VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
            format="yuv444p",
            src_color_range=2,
            dst_colorspace=self._colour.scaler_matrix,
            dst_color_range=self._colour.scaler_range,
            interpolation=EXACT_SCALING,
        )
        if self._stream.pix_fmt == "yuv420p":
            frame = _subsample(frame, self._colour)
        _fill_padding(frame)
        frame.pts, frame.time_base = pts, self.time_base
        self._container.mux(self._stream.encode(frame))

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
        self._container.mux(self._stream.encode(None))
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


def _subsample(frame: VideoFrame, colour: Colour) -> VideoFrame:
    """Convert 4:4:4 to 4:2:0 with chroma on the left of two columns, where H.264 decoders expect it.

    FFmpeg's scaler writes it between the columns but reads it on the left, half a pixel apart.
    """
    luma, *chroma = frame.to_ndarray()
    height, width = luma.shape
    kernel = np.array([[1, 2, 1], [1, 2, 1]], np.float32) / 8
    small = [
        cv2.filter2D(plane, -1, kernel, anchor=(1, 0), borderType=cv2.BORDER_REPLICATE)[::2, ::2].ravel()
        for plane in chroma
    ]
    packed = np.concatenate([luma.ravel(), *small]).reshape(height * 3 // 2, width)
    subsampled = VideoFrame.from_ndarray(packed, format="yuv420p")
    subsampled.colorspace, subsampled.color_range = colour.matrix, colour.scaler_range
    return subsampled


def _fill_padding(frame: VideoFrame) -> None:
    """Repeat each row's last pixel into the padding, since x264 reads some of it."""
    for plane in frame.planes:
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        rows[:, plane.width :] = rows[:, plane.width - 1 : plane.width]


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
    with (
        atomic_path(path) as part,
        FilmWriter(part, width, height, fps=fps, time_base=1 / fps, crf=crf, preset=preset) as writer,
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
    options = {"level": "3", "slices": "4", "threads": "1", "flags": "+bitexact"}
    with (
        atomic_path(path) as part,
        av.open(
            ffmpeg_url(part), "w", format="matroska", container_options={"fflags": "+bitexact"}
        ) as container,
    ):
        stream = container.add_stream("ffv1", rate=fps, options=options)
        stream.pix_fmt = "gray16le"
        for index, image in enumerate(frames):
            if index == 0:
                stream.height, stream.width = image.shape
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="gray16le")
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
