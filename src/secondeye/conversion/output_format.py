"""How a film is written: the layout of its views, the size of its frames, their encoding and stereo tag."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from secondeye.conversion.settings import ConversionSettings
from secondeye.film.layouts import Layout, pad
from secondeye.film.packing import INTERLEAVED, packing_axis
from secondeye.system.errors import UserError
from secondeye.video.encoders import ENCODERS, LEVELS, Encoding, why_unusable
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
    def frame_bytes(self) -> float:
        """What a frame of all files takes on disk, at most."""
        each = _LOSSLESS_BYTES_PER_PIXEL if self.encoding.codec == "ffv1" else _BYTES_PER_PIXEL
        return self.layout.files * self.height * self.width * each

    def frames(
        self,
        left: np.ndarray,  # uint8 [H, W, 3]
        right: np.ndarray,  # uint8 [H, W, 3]
    ) -> list[np.ndarray]:  # uint8 [height, width, 3], one for each file
        """Return the frames that hold both views."""
        return self.layout.frames(pad(left, self.rows, self.columns), pad(right, self.rows, self.columns))


def choose_format(info: FilmInfo, settings: ConversionSettings) -> OutputFormat:
    """Return the format for a film. Raises UserError if the encoder is missing or cannot take its frames."""
    layout, encoding = settings.output_layout, settings.encoding
    exact = settings.exact_size or encoding.codec == "ffv1"
    rows, columns = layout.padding(info.height, info.width, exact=exact)
    padded = info.height + rows, info.width + columns
    height, width = layout.frame_size(*padded)
    is_even = not any(layout.padding(*padded, exact=False))
    if layout.name == INTERLEAVED or not is_even:
        encoding = replace(encoding, full_chroma=True)
    if not replace(encoding, full_chroma=False).pixel_format:
        raise UserError(f"--codec {encoding.codec} has no --bit-depth {encoding.bit_depth}")
    if not encoding.pixel_format:
        why = "the exact size" if layout.name != INTERLEAVED else f"--layout {INTERLEAVED}"
        raise UserError(
            f"{info.path}: {why} of {info.width}x{info.height} needs 4:4:4 chroma, which --codec "
            f"{encoding.codec} has not; choose --codec hevc"
        )
    if reason := why_unusable(encoding.codec):
        raise UserError(f"--codec {encoding.codec}: {reason}; `secondeye doctor` lists what works")
    if reason := why_unusable(encoding.codec, height, width, info.fps, encoding.pixel_format):
        raise UserError(
            f"{info.path}: {encoding.codec} cannot encode frames of {width}x{height} at "
            f"{float(info.fps):g} fps: {reason}; choose another --codec or --layout"
        )
    half = layout.name.startswith("half-")
    tag = stereo_tag(packing_axis(layout.packing or layout.name), layout.first == "right", half=half)
    stereo = NO_TAG if settings.no_stereo_tag else tag
    if encoding.encoder.name != "libx264":
        stereo = stereo._replace(frame_packing=None)
    return OutputFormat(layout, rows, columns, height, width, encoding, stereo)


def describe_format(
    info: FilmInfo,
    output: OutputFormat,
    suffix: str,  # of the output
) -> Iterator[str]:
    """Yield what a user should know of the files: padding, no tag, and frames that few devices decode."""
    if output.rows or output.columns:
        size = f"{info.width + output.columns}x{info.height + output.rows}"
        yield (
            f"{info.path}: views of {info.width}x{info.height} are padded to {size}, so that each is stored "
            "with even sides; --exact-size pads less"
        )
    if output.layout.packing and not _says_packing(info, output, suffix):
        packing, codec = output.layout.packing, output.encoding.codec
        yield f"{suffix} has no tag for {packing} in {codec}: the name and the film's comment say it"
    level = LEVELS.get(output.encoding.encoder.codec)
    if level is None or level.fits(output.height, output.width):
        return
    yield (
        f"warning: frames of {output.width}x{output.height} exceed level {level.name} of "
        f"{output.encoding.encoder.codec.upper()}, which few devices decode; {_smaller(info, output)}"
    )


def _says_packing(info: FilmInfo, output: OutputFormat, suffix: str) -> bool:
    stereo = output.stereo
    if suffix == ".mkv":
        return stereo.frame_packing is not None or (stereo.matroska is not None and info.pixel_aspect == 1)
    return stereo.frame_packing is not None or stereo.st3d is not None


def _smaller(info: FilmInfo, output: OutputFormat) -> str:
    """Return the options with which the frames fit a level that is common."""
    height, width = info.height + output.rows, info.width + output.columns
    axis = "tb" if output.layout.name.endswith("tb") else "sbs"
    half = Layout(f"half-{axis}", output.layout.first if output.layout.packing else "left")
    sizes = {"": (output.height, output.width), f" --layout {half.name}": half.frame_size(height, width)}
    for codec in (output.encoding.codec, "hevc"):
        for layout, size in sizes.items():
            if LEVELS[ENCODERS[codec].codec].fits(*size):
                chosen = "" if codec == output.encoding.codec else f" --codec {codec}"
                return f"{(chosen + layout).strip()} fits ({size[1]}x{size[0]})"
    return "convert a smaller version of the film"
