"""A converter model as one folder: the names of its depth estimator and inpainter, weights and settings.

bundle.json   {"depth": "student", "inpainter": "light", "strength_percent": 3.0, "convergence": 0.5}
depth/        weights of the depth estimator, if it has any
inpaint/      weights of the inpainter, if it has any
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from secondeye.conversion.settings import CRF, FROM_MODEL, PRESET, ConversionSettings
from secondeye.depth import DEPTH_ESTIMATORS
from secondeye.inpaint import INPAINTERS
from secondeye.system.errors import UserError
from secondeye.system.files import write_atomic


@dataclass(frozen=True)
class Bundle:
    """The contents of bundle.json. Raises TypeError for a value of the wrong type."""

    depth: str  # one of DEPTH_ESTIMATORS
    inpainter: str  # one of INPAINTERS
    strength_percent: float  # default for conversions
    convergence: float  # default for conversions

    def __post_init__(self) -> None:
        names, numbers = (self.depth, self.inpainter), (self.strength_percent, self.convergence)
        if not all(isinstance(name, str) for name in names):
            raise TypeError(f"depth and inpainter must be names, got {names}")
        if not all(type(number) in (int, float) for number in numbers):
            raise TypeError(f"strength_percent and convergence must be numbers, got {numbers}")


WEIGHT_FREE = Bundle("motion", "fill", strength_percent=3.0, convergence=0.5)
SHIPPED = Path(__file__).parent.parent / "shipped"  # part of the package; described in its MODEL_CARD.md


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
    write_atomic(folder / "bundle.json", json.dumps(asdict(bundle), indent=1, sort_keys=True) + "\n")
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
    for name, known in ((bundle.depth, DEPTH_ESTIMATORS), (bundle.inpainter, INPAINTERS)):
        if name not in known:
            raise UserError(f"{path}: unknown part {name!r}; this version has {', '.join(known)}")
    return bundle


def weights_folder(bundle: Path | None, part: str) -> Path | None:
    """Return the weights folder of `depth` or `inpaint` in a bundle; None if there is none."""
    return bundle / part if bundle is not None and (bundle / part).is_dir() else None


def settings_from_bundle(
    folder: Path | None,  # None: the shipped inpainter and the best depth estimator installed
    strength_percent: float | None = None,  # None: the bundle's
    convergence: float | None = None,  # None: the bundle's
    *,
    depth: str = "auto",
    inpainter: str = "auto",
    crf: int = CRF,
    preset: str = PRESET,
) -> ConversionSettings:
    """Return conversion settings, with the bundle's values where none is given.

    Raises UserError as `read_bundle` and `ConversionSettings` do.
    """
    bundle = read_bundle(folder or SHIPPED)
    inpainter = bundle.inpainter if inpainter == "auto" else inpainter
    if folder is not None:
        depth = bundle.depth if depth == "auto" else depth
    elif inpainter == bundle.inpainter:
        folder = SHIPPED
    return ConversionSettings(
        strength_percent=bundle.strength_percent if strength_percent is None else strength_percent,
        convergence=bundle.convergence if convergence is None else convergence,
        depth=depth,
        inpainter=inpainter,
        crf=crf,
        preset=preset,
        model=folder,
    )
