"""How a film is written: the layout of its views, the size of its frames, their encoding and stereo tag."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from secondeye.conversion.settings import ConversionSettings
from secondeye.film.layouts import Layout, pad
from secondeye.film.packing import INTERLEAVED, packing_axis
from secondeye.system.errors import UserError
from secondeye.video.encoders import LEVELS, Encoding, why_unusable
from secondeye.video.probe import FilmInfo
from secondeye.video.stereo_tag import NO_TAG, StereoTag, stereo_tag

# Bytes per pixel of a frame, an upper bound: H.264 at crf 16 took 0.02 (real) to 0.055 (synthetic film), FFV1
# at most what it stores.
_BYTES_PER_PIXEL, _LOSSLESS_BYTES_PER_PIXEL = 0.06, 3.0


@dataclass(frozen=True)
class OutputFormat:
    """What the files of one conversion have in common."""

    layout: Layout
    rows: int  # added to each view
    columns: int
    height: int  # px of a frame
    width: int
    encoding: Encoding
    stereo: StereoTag

    @property
    def files(self) -> int:
        """How many files the views are written to."""
        return len(self.layout.tags)

    @property
    def frame_bytes(self) -> float:
        """What a frame of all files takes on disk, at most."""
        each = _LOSSLESS_BYTES_PER_PIXEL if self.encoding.codec == "ffv1" else _BYTES_PER_PIXEL
        return self.files * self.height * self.width * each

    def frames(
        self,
        left: np.ndarray,  # uint8 [H, W, 3]
        right: np.ndarray,  # uint8 [H, W, 3]
    ) -> list[np.ndarray]:  # uint8 [height, width, 3], one for each file
        """Return the frames that hold both views."""
        return self.layout.frames(pad(left, self.rows, self.columns), pad(right, self.rows, self.columns))


def choose_format(info: FilmInfo, settings: ConversionSettings) -> OutputFormat:
    """Return the format for a film. Raises UserError if the encoder is missing or lacks the pixel format."""
    layout, encoding = settings.output_layout, settings.encoding
    exact = settings.exact_size or encoding.codec == "ffv1"
    rows, columns = (0, 0) if exact else layout.padding(info.height, info.width)
    height, width = layout.frame_size(info.height + rows, info.width + columns)
    if reason := why_unusable(encoding.codec):
        raise UserError(f"--codec {encoding.codec}: {reason}; `secondeye doctor` lists what does")
    whole = not any(layout.padding(info.height + rows, info.width + columns))
    if layout.name == INTERLEAVED or not whole:
        encoding = replace(encoding, full_chroma=True)
    if not encoding.pixel_format:
        why = f"--layout {INTERLEAVED}" if whole else f"--exact-size of {info.width}x{info.height}"
        needs = f"4:4:4 chroma for {why}" if encoding.full_chroma else f"--bit-depth {encoding.bit_depth}"
        raise UserError(f"--codec {encoding.codec} has no {needs}; choose --codec hevc")
    tag = stereo_tag(packing_axis(layout.packing or layout.name), layout.first == "right")
    return OutputFormat(
        layout, rows, columns, height, width, encoding, NO_TAG if settings.no_stereo_tag else tag
    )


def describe_format(info: FilmInfo, output: OutputFormat) -> Iterator[str]:
    """Yield what a user should know of the files: padding, and frames that few devices decode."""
    if output.rows or output.columns:
        size = f"{info.width + output.columns}x{info.height + output.rows}"
        yield (
            f"{info.path}: {info.width}x{info.height}, views are padded to {size}, as decoders need even "
            "sizes; --exact-size keeps it"
        )
    level = LEVELS.get(output.encoding.encoder.codec)
    if level is None or level.fits(output.height, output.width):
        return
    yield (
        f"warning: frames of {output.width}x{output.height} exceed level {level.name} of "
        f"{output.encoding.encoder.codec.upper()}, which few devices decode; {_smaller(info, output)}"
    )


def _smaller(info: FilmInfo, output: OutputFormat) -> str:
    """Return the options with which the frames fit a level that is common."""
    height, width = info.height + output.rows, info.width + output.columns
    half = Layout("half-sbs", output.layout.first)
    sizes = {"": (output.height, output.width), " --layout half-sbs": half.frame_size(height, width)}
    for codec in (output.encoding.codec, "hevc"):
        for layout, size in sizes.items():
            if LEVELS[codec.split("_")[0]].fits(*size):
                chosen = "" if codec == output.encoding.codec else f" --codec {codec}"
                return f"{(chosen + layout).strip()} fits ({size[1]}x{size[0]})"
    return "convert a smaller version of the film"
