"""A model that converts films, as one folder: which depth, which inpainter, their weights, their settings.

bundle.json   {"depth": "student", "inpainter": "light", "strength_percent": 3.0, "convergence": 0.5}
depth/        weights of the depth estimator, where it has any
inpaint/      weights of the inpainter, where it has any
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
    """bundle.json."""

    depth: str  # one of DEPTH_ESTIMATORS
    inpainter: str  # one of INPAINTERS
    strength_percent: float  # unless the viewer says otherwise
    convergence: float

    def __post_init__(self) -> None:
        names, numbers = (self.depth, self.inpainter), (self.strength_percent, self.convergence)
        if not all(isinstance(name, str) for name in names):
            raise TypeError(f"depth and inpainter must be names, got {names}")
        if not all(type(number) in (int, float) for number in numbers):
            raise TypeError(f"strength_percent and convergence must be numbers, got {numbers}")


WEIGHT_FREE = Bundle("motion", "fill", strength_percent=3.0, convergence=0.5)  # needs no weights
SHIPPED = Path(__file__).parent.parent / "shipped"  # comes with the program; its MODEL_CARD.md says more


def write_bundle(
    folder: Path,  # made; must not be there
    bundle: Bundle,
    depth: Path | None,  # folder with the weights of the depth estimator; None where it needs none
    inpaint: Path | None,  # the same of the inpainter
) -> Path:
    """Write a bundle; the runs that made the weights stay outside."""
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
    """Read bundle.json; raises Refusal where `folder` is no bundle or names a part that is not known."""
    path = folder / "bundle.json"
    if not path.is_file():
        raise UserError(
            f"{folder}: is no model: it has no bundle.json; give models:/secondeye@champion or a bundle"
        )
    try:
        bundle = Bundle(**json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: can not be read ({error})") from error
    if bundle.depth not in DEPTH_ESTIMATORS or bundle.inpainter not in INPAINTERS:
        raise UserError(f"{path}: names {bundle.depth} and {bundle.inpainter}; this version knows not both")
    return bundle


def weights_folder(folder: Path | None, part: str) -> Path | None:
    """Where a bundle keeps the weights of `depth` or `inpaint`; None where there are none."""
    return folder / part if folder is not None and (folder / part).is_dir() else None


def settings_from_bundle(
    folder: Path | None,  # None: what comes with the program, and the best depth that is on this machine
    strength_percent: float | None = None,  # None: as the bundle says
    convergence: float | None = None,
    *,
    depth: str = "auto",
    inpainter: str = "auto",
    crf: int = CRF,
    preset: str = PRESET,
) -> ConversionSettings:
    """How to convert with this bundle; raises Refusal as `read_bundle` and `Settings` do."""
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
