"""A converter model as one folder: the names of its depth estimator and inpainter, weights and settings.

bundle.json   {"depth": "student", "inpainter": "diffusion", "strength_percent": 3.0, "convergence": 0.5,
               "tiles": 2, "steps": 8, "views": "right"}; all but the first two are optional
depth/        weights of the depth estimator, if it has any
inpaint/      weights of the inpainter, if it has any
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from secondeye.conversion.bundle_parts import SHIPPED
from secondeye.conversion.settings import (
    AUTO,
    FROM_MODEL,
    MAX_STEPS,
    MAX_TILES,
    ConversionSettings,
    parse_count,
)
from secondeye.conversion.views import RIGHT, VIEWS
from secondeye.depth.estimators import DEPTH_ESTIMATORS, split_source
from secondeye.inpaint import COMMAND, INPAINTERS, split_command
from secondeye.system.errors import UserError
from secondeye.system.files import write_atomic
from secondeye.video.encoders import PRESET


@dataclass(frozen=True)
class Bundle:
    """The contents of bundle.json.

    Raises TypeError for a value of the wrong type, and ValueError for tiles or steps out of range, unknown
    views, and a command: a model must not choose a program that is run.
    """

    depth: str  # one of DEPTH_ESTIMATORS, with `:SOURCE` for some
    inpainter: str  # one of INPAINTERS
    strength_percent: float | None = None  # default for conversions; None: chosen for each shot
    convergence: float | None = None  # default for conversions; None: chosen for each shot
    tiles: int | None = None  # per side, default for conversions; None: chosen by frame size and memory
    steps: int | None = None  # default for conversions; None: as the network was trained
    views: str | None = None  # one of VIEWS, default for conversions; None: right

    def __post_init__(self) -> None:
        names, numbers = (self.depth, self.inpainter), (self.strength_percent, self.convergence)
        if not all(isinstance(name, str) for name in names):
            raise TypeError(f"depth and inpainter must be names, got {names}")
        if split_command(self.inpainter)[0] == COMMAND:
            raise ValueError(
                "a model may not name a command to run; give --inpainter command:... on the command line"
            )
        if not all(number is None or type(number) in (int, float) for number in numbers):
            raise TypeError(f"strength_percent and convergence must be numbers, got {numbers}")
        for name, count, most in (("tiles", self.tiles, MAX_TILES), ("steps", self.steps, MAX_STEPS)):
            if count is not None and (type(count) is not int or not 1 <= count <= most):
                raise ValueError(f"{name} must be a whole number, 1 to {most}, got {count!r}")
        if self.views not in (None, *VIEWS):
            raise ValueError(f"views must be one of {', '.join(VIEWS)}, got {self.views!r}")


DEFAULT_BUNDLE = Bundle("motion", "fill")


def write_bundle(
    folder: Path,  # is created; must not exist
    bundle: Bundle,
    depth: Path | None,  # folder with the depth estimator's weights; None if it has none
    inpaint: Path | None,  # folder with the inpainter's weights; None if it has none
) -> Path:
    """Write a bundle and return its folder. The weights' run records are not copied.

    Raises ValueError when a learned part has no weights.
    """
    folder.mkdir(parents=True)
    for name, part, weights in (("depth", bundle.depth, depth), ("inpaint", bundle.inpainter, inpaint)):
        if part not in FROM_MODEL:
            continue
        if weights is None:
            raise ValueError(f"{part} needs its weights")
        shutil.copytree(weights, folder / name, ignore=shutil.ignore_patterns("run"))
    record = {name: value for name, value in asdict(bundle).items() if value is not None}
    write_atomic(folder / "bundle.json", json.dumps(record, indent=1, sort_keys=True) + "\n")
    return folder


def read_bundle(folder: Path) -> Bundle:
    """Read bundle.json. Raises UserError if `folder` is not a bundle or names an unknown part."""
    path = folder / "bundle.json"
    if not path.is_file():
        raise UserError(
            f"{folder}: not a model bundle: bundle.json is missing; "
            "give a bundle's folder or models:/secondeye@champion"
        )
    try:
        bundle = Bundle(**json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    for name, known in ((split_source(bundle.depth)[0], DEPTH_ESTIMATORS), (bundle.inpainter, INPAINTERS)):
        if name not in known:
            raise UserError(f"{path}: unknown part {name!r}; this version has {', '.join(known)}")
    return bundle


def settings_from_bundle(
    folder: Path | None,  # None: `fill` and the best depth estimator installed
    strength_percent: float | None = None,  # None: the bundle's, else chosen for each shot
    convergence: float | None = None,  # None: the bundle's, else chosen for each shot
    *,
    views: str | None = None,  # None: the bundle's, else right
    depth: str = "auto",
    inpainter: str = "auto",
    crf: int | None = None,  # None: the default of the codec
    deinterlace: str = AUTO,
    input_layout: str | None = None,
    mono: bool = False,
    layout: str = "sbs",
    first: str = "left",
    codec: str = "h264",
    bit_depth: int = 8,
    exact_size: bool = False,
    no_stereo_tag: bool = False,
    preset: str = PRESET,
    tiles: int | str | None = None,  # None: the bundle's, else auto
    steps: int | None = None,  # None: the bundle's, else as the network was trained
    compile: bool = False,
    offload: bool = False,
    max_memory_gb: float | None = None,
    workers: int | str | None = None,
    depth_resolution: int | None = None,
) -> ConversionSettings:
    """Return conversion settings, with the bundle's values if none is given.

    Without a folder the inpainter is `fill`; the shipped `light` only runs if it is named, because `fill` is
    about as good in a fraction of the time (docs/benchmarks.md).

    Tiles and steps of a bundle apply to its own inpainter. Raises UserError as `read_bundle` and
    `ConversionSettings` do.
    """
    bundle = read_bundle(folder or SHIPPED)
    if folder is not None:
        depth = bundle.depth if depth == "auto" else depth
        inpainter = bundle.inpainter if inpainter == "auto" else inpainter
    else:
        inpainter = DEFAULT_BUNDLE.inpainter if inpainter == "auto" else inpainter
        folder = SHIPPED if inpainter == bundle.inpainter else None
    own = inpainter == bundle.inpainter
    return ConversionSettings(
        strength_percent=bundle.strength_percent if strength_percent is None else strength_percent,
        convergence=bundle.convergence if convergence is None else convergence,
        views=views or bundle.views or RIGHT,
        depth=depth,
        inpainter=inpainter,
        crf=crf,
        deinterlace=deinterlace,
        input_layout=input_layout,
        mono=mono,
        layout=layout,
        first=first,
        codec=codec,
        bit_depth=bit_depth,
        exact_size=exact_size,
        no_stereo_tag=no_stereo_tag,
        preset=preset,
        model=folder,
        tiles=bundle.tiles if tiles is None and own else parse_count("--tiles", tiles),
        steps=bundle.steps if steps is None and own else steps,
        compile=compile,
        offload=offload,
        max_memory_gb=max_memory_gb,
        workers=parse_count("--workers", workers),
        depth_resolution=depth_resolution,
    )
