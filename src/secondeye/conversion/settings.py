"""The settings of a conversion."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from secondeye.depth import DEPTH_ESTIMATORS
from secondeye.inpaint import INPAINTERS
from secondeye.system.errors import UserError
from secondeye.system.files import hash_folder

FROM_MODEL = ("student", "light", "diffusion")  # trained by this project: their weights come with a bundle
CRF, PRESET = 16, "veryfast"  # visually lossless, and fast
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


@dataclass(frozen=True)
class ConversionSettings:
    """How a film is converted. Raises UserError for a value out of range."""

    strength_percent: float  # disparity between nearest and farthest point, % of the width, [0, 10]
    convergence: float  # the depth at screen distance, [0, 1]
    depth: str  # one of DEPTH_ESTIMATORS, or auto
    inpainter: str  # one of INPAINTERS
    crf: int  # x264's constant rate factor, [0, 51]; smaller is better
    preset: str  # x264's preset
    model: Path | None  # bundle with the weights of learned parts

    def __post_init__(self) -> None:
        if not 0 <= self.strength_percent <= 10:
            raise UserError(
                f"--strength-percent must be 0 to 10 (% of the width), got {self.strength_percent:g}"
            )
        if not 0 <= self.convergence <= 1:
            raise UserError(f"--convergence must be 0 (farthest) to 1 (nearest), got {self.convergence:g}")
        if not 0 <= self.crf <= 51:
            raise UserError(f"--crf must be 0 (lossless) to 51, got {self.crf}")
        parts = {"depth": ("auto", *DEPTH_ESTIMATORS), "inpainter": INPAINTERS}
        for name, choices in {**parts, "preset": PRESETS}.items():
            if getattr(self, name) not in choices:
                raise UserError(f"--{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        for name, part in (("depth", "depth"), ("inpainter", "inpaint")):
            chosen = getattr(self, name)
            if chosen in FROM_MODEL and not (self.model and (self.model / part).is_dir()):
                raise UserError(f"--{name} {chosen} needs a --model that holds its weights")

    def describe(self) -> dict[str, Any]:
        """Return the settings for a checkpoint's key: weights by content, independent of their path."""
        return asdict(self) | {"model": hash_folder(self.model) if self.model else ""}
