"""The encoders of films: their options, pixel formats and limits, and which of them start on this machine."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import cast

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

PRESETS = (
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
)
PRESET = "veryfast"
BIT_DEPTHS = (8, 10)
APPLE_HEVC = "hvc1"  # tag of HEVC in mp4; Apple's players read no other
# With several threads, x264's output depends on timing: of 860 runs on a busy machine, 10 gave other bytes.
# Its macroblock tree reads memory that nobody wrote: of 400 runs, 135 gave other bytes, and none with the
# code that is the same for all CPUs. Encoding runs beside decoding and rendering anyway.
_X264_REPRODUCIBLE = "threads=1:cpu-independent=1"
# Of frames larger than two 4K views x264 looks only a few ahead: it would hold about 4.5 GiB of 8K film.
_LARGE_PIXELS = 2 * 4096 * 2304
_LARGE_OPTIONS = ":rc-lookahead=4:sync-lookahead=0:bframes=0"
_SVT_PRESETS = dict(zip(PRESETS, (12, 11, 10, 9, 8, 7, 5, 4, 2), strict=True))
_NVENC_PRESETS = dict(zip(PRESETS, ("p1", "p1", "p2", "p3", "p3", "p4", "p5", "p6", "p7"), strict=True))
_TRIAL_PX, _TRIAL_RATE = 256, Fraction(24)  # of the frame that shows whether an encoder starts


@dataclass(frozen=True)
class Encoder:
    """An encoder of FFmpeg and what it is called with."""

    name: str  # FFmpeg's
    codec: str  # h264, hevc, av1 or ffv1
    crf: int  # default quality, visually lossless: smaller is better
    max_crf: int
    formats: tuple[str, ...]  # pixel formats: 8-bit 4:2:0, 10-bit 4:2:0, 8-bit 4:4:4, 10-bit 4:4:4; "": none
    options: Callable[[int, str], dict[str, str]]  # of quality and preset

    def pixel_format(self, bit_depth: int, full_chroma: bool) -> str:
        """Return the format of the frames; "" if the encoder has none."""
        return self.formats[2 * full_chroma + (bit_depth == 10)]


def _x264(crf: int, preset: str) -> dict[str, str]:
    return {"crf": str(crf), "preset": preset}


def _x265(crf: int, preset: str) -> dict[str, str]:
    # With frames in parallel, the output would depend on the number of cores.
    return {"crf": str(crf), "preset": preset, "x265-params": "log-level=none:frame-threads=1"}


def _svt_av1(crf: int, preset: str) -> dict[str, str]:
    # Unlike H.264, AV1 does not imply where chroma lies.
    params = "lp=2:chroma-sample-position=left"
    return {"crf": str(crf), "preset": str(_SVT_PRESETS[preset]), "svtav1-params": params}


def _nvenc(crf: int, preset: str) -> dict[str, str]:
    return {"rc": "vbr", "cq": str(crf), "b": "0", "preset": _NVENC_PRESETS[preset]}


def _videotoolbox(crf: int, preset: str) -> dict[str, str]:
    # Its quality runs from 1 to 100, and it has no presets. 51 is the worst crf.
    return {"flags": "+qscale", "global_quality": str(round(118 * (100 - 99 * crf / 51)))}


def _ffv1(crf: int, preset: str) -> dict[str, str]:
    return {"level": "3", "slices": "16", "g": "1", "threads": "1", "flags": "+bitexact"}


_YUV = ("yuv420p", "yuv420p10le", "yuv444p", "yuv444p10le")
ENCODERS = {
    "h264": Encoder("libx264", "h264", 16, 51, _YUV, _x264),
    "hevc": Encoder("libx265", "hevc", 18, 51, _YUV, _x265),
    "av1": Encoder("libsvtav1", "av1", 24, 63, (*_YUV[:2], "", ""), _svt_av1),
    "ffv1": Encoder("ffv1", "ffv1", 0, 0, ("bgr0", "", "bgr0", ""), _ffv1),
    "h264_nvenc": Encoder("h264_nvenc", "h264", 19, 51, ("yuv420p", "", "yuv444p", ""), _nvenc),
    "hevc_nvenc": Encoder("hevc_nvenc", "hevc", 21, 51, ("yuv420p", "p010le", "yuv444p", ""), _nvenc),
    "av1_nvenc": Encoder("av1_nvenc", "av1", 26, 51, ("yuv420p", "p010le", "", ""), _nvenc),
    "h264_videotoolbox": Encoder("h264_videotoolbox", "h264", 16, 51, ("yuv420p", "", "", ""), _videotoolbox),
    "hevc_videotoolbox": Encoder(
        "hevc_videotoolbox", "hevc", 16, 51, ("yuv420p", "p010le", "", ""), _videotoolbox
    ),
}
"""By the name of a codec, or of a hardware encoder."""


@dataclass(frozen=True)
class Encoding:
    """How a film is encoded."""

    codec: str = "h264"  # one of ENCODERS
    crf: int = 16  # quality, smaller is better
    preset: str = PRESET  # one of PRESETS
    bit_depth: int = 8  # 8 or 10
    full_chroma: bool = False  # 4:4:4 instead of 4:2:0

    @property
    def encoder(self) -> Encoder:
        """The encoder of the codec."""
        return ENCODERS[self.codec]

    @property
    def pixel_format(self) -> str:
        """FFmpeg's name of the format; "" if the encoder has none."""
        return self.encoder.pixel_format(self.bit_depth, self.full_chroma)

    def options(self, pixels: int, frame_packing: int | None) -> dict[str, str]:
        """Return the encoder's options: for so many pixels in all streams, and for a frame-packing SEI."""
        options = self.encoder.options(self.crf, self.preset)
        if self.encoder.name == "libx264":
            large = _LARGE_OPTIONS if pixels > _LARGE_PIXELS else ""
            packing = "" if frame_packing is None else f":frame-packing={frame_packing}"
            options["x264-params"] = f"{_X264_REPRODUCIBLE}{large}{packing}"
        return options


def has_encoder(name: str) -> bool:
    """Return whether FFmpeg was built with this encoder."""
    return name in av.codecs_available


@cache
def why_unusable(
    codec: str,
    height: int = _TRIAL_PX,
    width: int = _TRIAL_PX,
    rate: Fraction = _TRIAL_RATE,  # frames per second
    pixel_format: str = "",  # FFmpeg's name; "": 8-bit 4:2:0
) -> str:
    """Return why an encoder cannot take such frames here, as FFmpeg lacks it; "" if it can.

    With frames of the default size the encoder is started and used, with others only started.
    """
    encoder = ENCODERS[codec]
    try:
        context = cast(VideoCodecContext, VideoCodecContext.create(encoder.name, "w"))
    except (ValueError, av.FFmpegError):
        return "this FFmpeg does not have it"
    quiet_svt()
    context.width, context.height = width, height
    context.pix_fmt = pixel_format or encoder.formats[0]
    context.time_base, context.framerate = 1 / rate, rate
    context.options = encoder.options(encoder.crf, PRESET)
    try:
        context.open()
        if (height, width) == (_TRIAL_PX, _TRIAL_PX):
            black = np.zeros((height, width, 3), np.uint8)
            frame = VideoFrame.from_ndarray(black, format="rgb24").reformat(format=context.pix_fmt)
            frame.pts = 0
            context.encode(frame)
            context.encode(None)
    except av.FFmpegError as error:
        return f"it does not start here: {error.strerror}"
    return ""


def quiet_svt() -> None:
    """Have SVT-AV1 print errors only; it reads the variable when an encoder is opened."""
    os.environ.setdefault("SVT_LOG", "1")


@dataclass(frozen=True)
class Level:
    """The highest level of a codec that hardware commonly decodes, and its largest frame."""

    name: str
    pixels: int
    side_px: int

    def fits(self, height: int, width: int) -> bool:
        """Return whether frames of this size are within the level."""
        return height * width <= self.pixels and max(height, width) <= self.side_px


LEVELS = {
    "h264": Level("5.2", 36864 * 16**2, 8688),  # Table A-1, in macroblocks of 16x16 px; higher ones are rare
    "hevc": Level("6.2", 35651584, 16888),  # Table A.8
    "av1": Level("6.3", 35651584, 16384),  # Annex A.3
}
"""By codec; FFV1 has no levels."""
