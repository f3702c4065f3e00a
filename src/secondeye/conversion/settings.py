"""The settings of a conversion."""

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from secondeye.conversion.depth_record import ORIENTATIONS, record_of
from secondeye.conversion.views import BOTH, RIGHT, VIEWS, views_to_make
from secondeye.depth import DepthOptions
from secondeye.depth.estimators import Weights, find_weights, locate, require_known_estimator, split_source
from secondeye.film.layouts import FILES, Layout
from secondeye.film.layouts import RIGHT as RIGHT_ONLY
from secondeye.film.packing import PACKED
from secondeye.inpaint import InpaintOptions, hash_program, require_known_inpainter
from secondeye.system.errors import UserError
from secondeye.system.files import hash_folder
from secondeye.video.encoders import BIT_DEPTHS, ENCODERS, PRESETS, Encoding

# Their weights come with a bundle. The last two are also given with a source, which makes another name.
FROM_MODEL = ("student", "light", "diffusion", "hf", "exported")
AUTO = "auto"
DEINTERLACE = (AUTO, "off")
MAX_TILES, MAX_STEPS, MAX_WORKERS = 16, 100, 256
RESOLUTION_MULTIPLE_PX, MAX_RESOLUTION_PX = 64, 4096  # of the depth network
RESOLVED = "depthcrafter"  # the estimator that works at --depth-resolution, and may be offloaded
GIB = 2**30  # bytes
# Change neither the plan of an unfinished conversion nor its pixels: resuming may change them.
_RESOURCES = ("max_memory_gb", "offload", "workers")
# Recorded for each shot: other values convert only the shots that they change.
_BY_SHOT = ("strength_percent", "convergence")


@dataclass(frozen=True)
class ConversionSettings:
    """How a film is converted. Raises UserError for a value out of range."""

    strength_percent: (
        float | None
    )  # between nearest and farthest point, % of the width, [0, 10]; None: by shot
    convergence: float | None  # the depth at screen distance, [0, 1]; None: chosen for each shot
    depth: str  # one of DEPTH_ESTIMATORS, with `:SOURCE` for some, or auto
    inpainter: str  # one of INPAINTERS, or command:PROGRAM ARGUMENTS
    crf: int | None  # quality of the encoder, smaller is better; None: its default
    preset: str  # speed of the encoder, one of PRESETS
    model: Path | None  # bundle with the weights of learned parts
    tiles: int | None = None  # per side of the frame, 1 to 16; None: chosen by frame size and memory
    steps: int | None = None  # of the diffusion sampler, 1 to 100; None: as the network was trained
    compile: bool = False  # run the diffusion network through torch.compile
    offload: bool = False  # keep only the part of a diffusion pipeline that runs on the GPU
    workers: int | None = None  # processes that convert shots; None: one per GPU
    max_memory_gb: float | None = None  # GiB of the device; None: a share of what is free
    depth_resolution: int | None = None  # px of the longest side for depthcrafter; None: its own
    depth_maps: Path | None = None  # folder or file with the depth of the film; None: it is estimated
    deinterlace: str = AUTO  # an interlaced film; or off
    input_layout: str | None = None  # packing of a stereo film whose left view is converted
    mono: bool = False  # convert what looks like a stereo film as it is
    layout: str = "sbs"  # one of LAYOUTS
    first: str = "left"  # the view that comes first in a frame
    codec: str = "h264"  # one of ENCODERS
    bit_depth: int = 8  # of the encoded film
    exact_size: bool = False  # keep odd sizes, with 4:4:4 chroma
    no_stereo_tag: bool = False  # do not say in the film how its views are packed
    depth_orientation: str | None = None  # what larger values of the maps are, near or far; None: as they say
    views: str = RIGHT  # that are synthesised, one of VIEWS

    def __post_init__(self) -> None:
        if self.strength_percent is not None and not 0 <= self.strength_percent <= 10:
            raise UserError(
                f"--strength-percent must be 0 to 10 (% of the width), got {self.strength_percent:g}"
            )
        if self.convergence is not None and not 0 <= self.convergence <= 1:
            raise UserError(f"--convergence must be 0 (farthest) to 1 (nearest), got {self.convergence:g}")
        if self.input_layout not in (None, *PACKED):
            raise UserError(f"--input-layout must be one of {', '.join(PACKED)}, got {self.input_layout!r}")
        self._check_resources()
        self._check_depth()
        for name, choices in {
            "preset": PRESETS,
            "deinterlace": DEINTERLACE,
            "codec": tuple(ENCODERS),
            "views": VIEWS,
        }.items():
            if getattr(self, name) not in choices:
                raise UserError(f"--{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        try:
            require_known_inpainter(self.inpainter)
        except ValueError as error:
            raise UserError(f"--{error}") from error
        for name, part in (("depth", "depth"), ("inpainter", "inpaint")):
            chosen = getattr(self, name)
            if chosen in FROM_MODEL and not (self.model and (self.model / part).is_dir()):
                given = f", or --depth {chosen}:SOURCE" if chosen in ("hf", "exported") else ""
                raise UserError(f"--{name} {chosen} needs a --model that holds its weights{given}")

        self._check_output()

    def _check_output(self) -> None:
        Layout(self.layout, self.first)
        if self.views == BOTH and self.layout == RIGHT_ONLY:
            raise UserError(
                f"--layout {RIGHT_ONLY} is for films whose left view is the source, not for --views {BOTH}; "
                f"choose --layout {FILES}"
            )
        most = ENCODERS[self.codec].max_crf
        if self.crf is not None and not most:
            raise UserError(f"--crf is not for {self.codec}, which is lossless")
        if self.crf is not None and not 0 <= self.crf <= most:
            raise UserError(f"--crf of {self.codec} must be 0 (best) to {most}, got {self.crf}")
        if self.bit_depth not in BIT_DEPTHS:
            raise UserError(f"--bit-depth must be 8 or 10, got {self.bit_depth}")

    def _check_depth(self) -> None:
        if self.depth_orientation not in (None, *ORIENTATIONS):
            raise UserError(f"--depth-orientation must be near or far, got {self.depth_orientation!r}")
        if self.depth_maps is None and self.depth_orientation is not None:
            raise UserError("--depth-orientation is for --depth-maps; estimators know theirs")
        if self.depth_maps is not None and self.depth != AUTO:
            raise UserError(f"--depth-maps replace the depth estimator; leave out --depth {self.depth}")
        if self.depth != AUTO:
            try:
                require_known_estimator(self.depth)
            except ValueError as error:
                raise UserError(f"--depth: {error}, or leave the option out") from error
        side = self.depth_resolution
        if side is None:
            return
        if side % RESOLUTION_MULTIPLE_PX or not RESOLUTION_MULTIPLE_PX <= side <= MAX_RESOLUTION_PX:
            raise UserError(
                f"--depth-resolution must be a multiple of {RESOLUTION_MULTIPLE_PX} px, "
                f"{RESOLUTION_MULTIPLE_PX} to {MAX_RESOLUTION_PX}, got {side}"
            )

    def _check_resources(self) -> None:
        for option, count, most in (
            ("--tiles", self.tiles, MAX_TILES),
            ("--workers", self.workers, MAX_WORKERS),
            ("--steps", self.steps, MAX_STEPS),
        ):
            if count is not None and not 1 <= count <= most:
                also = "" if option == "--steps" else f" or {AUTO}"
                raise UserError(f"{option} must be 1 to {most}{also}, got {count}")
        if self.max_memory_gb is not None and not 0 < self.max_memory_gb < math.inf:
            raise UserError(f"--max-memory-gb must be a number above 0, got {self.max_memory_gb:g}")

    @property
    def holds_borders(self) -> bool:
        """Whether nothing may be in front of the screen at the left and right border of the picture.

        A strength and a convergence that are both given hold everywhere. A plan may say otherwise of a shot.
        """
        return self.strength_percent is None or self.convergence is None

    @property
    def max_memory_bytes(self) -> int | None:
        """The memory budget in bytes; None: a share of what is free."""
        return None if self.max_memory_gb is None else int(self.max_memory_gb * GIB)

    @property
    def output_layout(self) -> Layout:
        """How both views are stored. Raises UserError."""
        return Layout(self.layout, self.first)

    @property
    def encoding(self) -> Encoding:
        """How the film is encoded, with 4:2:0 chroma."""
        crf = ENCODERS[self.codec].crf if self.crf is None else self.crf
        return Encoding(self.codec, crf, self.preset, self.bit_depth)

    @property
    def inpaint_options(self) -> InpaintOptions:
        """The options of the inpainter."""
        return InpaintOptions(
            self.steps,
            self.tiles,
            self.max_memory_bytes,
            self.compile,
            self.offload,
            shots=len(views_to_make(self.views)),
        )

    @property
    def depth_name(self) -> str:
        """The name of the depth estimator, without the source of its weights."""
        return split_source(self.depth)[0]

    @property
    def located_depth(self) -> str:
        """The depth estimator with the place of its weights, if these are files: maybe in the model."""
        return locate(self.depth, None if self.model is None else self.model / "depth")

    @cached_property
    def depth_weights(self) -> Weights | None:
        """Hash and licence of the weights of a depth network of others; looked up once: hashing takes time.

        Weights that are missing are downloaded. Raises UserError if they cannot be had.
        """
        return find_weights(self.located_depth)

    @property
    def depth_options(self) -> DepthOptions:
        """The options of the depth estimator."""
        return DepthOptions(self.depth_resolution, self.offload, self.max_memory_bytes)

    def unused_options(self) -> list[str]:
        """Return the given options that the chosen inpainter and depth estimator do not use."""
        inpaints = self.inpainter == "diffusion"
        unused = {
            "--tiles": self.tiles is not None and not inpaints,
            "--steps": self.steps is not None and not inpaints,
            "--compile": self.compile and not inpaints,
            "--offload": self.offload and not inpaints and self.depth_name != RESOLVED,
            "--depth-resolution": self.depth_resolution is not None and self.depth_name != RESOLVED,
        }
        return [option for option, is_unused in unused.items() if is_unused]

    def describe(self) -> dict[str, Any]:
        """Return the settings for a checkpoint's key: what all shots depend on, and files by content."""
        chosen = {name: value for name, value in asdict(self).items() if name not in (*_RESOURCES, *_BY_SHOT)}
        return chosen | {
            "crf": self.encoding.crf,
            "program": hash_program(self.inpainter),
            "model": hash_folder(self.model) if self.model else "",
            "depth_weights": self.depth_weights.hash if self.depth_weights else "",
            "depth_maps": _describe_files(self.depth_maps) if self.depth_maps else "",
        }


def _describe_files(path: Path) -> str:
    """Return number, size and newest time of the files: to hash those of a long film would take minutes."""
    paths = sorted(path.iterdir()) if path.is_dir() else [path, record_of(path)]
    files = [each.stat() for each in paths if each.exists()]
    newest = max((status.st_mtime_ns for status in files), default=0)
    return f"{path.name} {len(files)} {sum(status.st_size for status in files)} {newest}"


def parse_count(option: str, given: str | int | None) -> int | None:
    """Return the number that was given for an option; None for `auto` and for nothing.

    Raises UserError if it is neither. The range is checked by `ConversionSettings`.
    """
    if given is None or given == AUTO:
        return None
    if not str(given).isdecimal():
        raise UserError(f"{option} must be {AUTO} or a whole number, got {given!r}")
    return int(given)
