"""Output layouts: how both views become the frames of one or two files."""

from dataclasses import dataclass

import cv2
import numpy as np

from secondeye.film.packing import INTERLEAVED, PACKED, RIGHT_FIRST, pack
from secondeye.system.errors import UserError

ANAGLYPH, FILES, RIGHT = "anaglyph", "left-right-files", "right"
LAYOUTS = ("sbs", "half-sbs", "tb", "half-tb", ANAGLYPH, INTERLEAVED, FILES, RIGHT)
FIRST = ("left", "right")

# What players recognise in a file name; packing_from_name reads them, too.
_TAGS = {
    "sbs": "LRF_Full_SBS",
    "half-sbs": "half-sbs",
    "tb": "TB",
    "half-tb": "half-tb",
    INTERLEAVED: "interleaved",
    "sbs" + RIGHT_FIRST: "RL",
    "half-sbs" + RIGHT_FIRST: "half-rl",
    "tb" + RIGHT_FIRST: "BT",
    "half-tb" + RIGHT_FIRST: "half-bt",
    INTERLEAVED + RIGHT_FIRST: "interleaved_RL",
    ANAGLYPH: "anaglyph",
    RIGHT: "right",
}
# E. Dubois, "A projection method to generate anaglyph stereo images", ICASSP 2001: red and cyan glasses.
# Rows: red, green, blue of the anaglyph; columns: red, green, blue of the left view, then of the right one.
_DUBOIS = np.array(
    [
        [0.456100, 0.500484, 0.176381, -0.0434706, -0.0879388, -0.00155529],
        [-0.0400822, -0.0378246, -0.0157589, 0.378476, 0.73364, -0.0184503],
        [-0.0152161, -0.0205971, -0.00546856, -0.0721527, -0.112961, 1.2264],
    ],
    np.float32,
)
_LINEAR_STEPS = 65535  # of the table back from linear light


@dataclass(frozen=True)
class Layout:
    """How both views are stored. Raises UserError for unknown names, and an order that has no meaning."""

    name: str = "sbs"  # one of LAYOUTS
    first: str = "left"  # the view in the left or top half or in the first row; left or right

    def __post_init__(self) -> None:
        for option, given, known in (("--layout", self.name, LAYOUTS), ("--first", self.first, FIRST)):
            if given not in known:
                raise UserError(f"{option} must be one of {', '.join(known)}, got {given!r}")
        if self.first == "right" and self.packing is None:
            raise UserError(f"--first right is for layouts with both views in a frame, not {self.name}")

    @property
    def packing(self) -> str | None:
        """The packing of the frames; None if they do not hold both views."""
        packing = self.name + (RIGHT_FIRST if self.first == "right" else "")
        return packing if packing in PACKED else None

    @property
    def tags(self) -> tuple[str, ...]:
        """The tag in the name of each file."""
        return ("left", "right") if self.name == FILES else (_TAGS[self.packing or self.name],)

    def frames(
        self,
        left: np.ndarray,  # uint8 [H, W, 3]
        right: np.ndarray,  # uint8 [H, W, 3]
    ) -> list[np.ndarray]:  # uint8 [h, w, 3] each
        """Return a frame for each file."""
        if self.packing is not None:
            return [pack(left, right, self.packing)]
        if self.name == ANAGLYPH:
            return [anaglyph(left, right)]
        return [left, right] if self.name == FILES else [right]

    def padding(self, height: int, width: int) -> tuple[int, int]:  # rows, columns
        """Return what to add to views of this size, so that each has even sides where it is stored."""
        multiple = {"half-sbs": (2, 4), "half-tb": (4, 2)}.get(self.name, (2, 2))
        return -height % multiple[0], -width % multiple[1]

    def frame_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the frames made of views of this size."""
        sizes = {
            "sbs": (height, 2 * width),
            "half-sbs": (height, width // 2 * 2),
            "tb": (2 * height, width),
            "half-tb": (height // 2 * 2, width),
        }
        return sizes.get(self.name, (height, width))


def anaglyph(
    left: np.ndarray,  # uint8 [H, W, 3] RGB
    right: np.ndarray,  # uint8 [H, W, 3] RGB
) -> np.ndarray:  # uint8 [H, W, 3] RGB
    """Return the red-cyan anaglyph by Dubois' least-squares matrices, applied to linear light."""
    views = np.concatenate([_TO_LINEAR[left], _TO_LINEAR[right]], axis=2)
    mixed = cv2.transform(views, _DUBOIS).clip(0, 1)
    return _FROM_LINEAR[np.rint(mixed * _LINEAR_STEPS).astype(np.uint16)]


def pad(
    view: np.ndarray,  # [H, W, 3]
    rows: int,
    columns: int,
) -> np.ndarray:  # [H + rows, W + columns, 3]
    """Repeat the last row and column of a view."""
    if not rows and not columns:
        return view
    return cv2.copyMakeBorder(view, 0, rows, 0, columns, cv2.BORDER_REPLICATE)


def _srgb_to_linear(value: np.ndarray) -> np.ndarray:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _linear_to_srgb(value: np.ndarray) -> np.ndarray:
    return np.where(value <= 0.0031308, value * 12.92, 1.055 * value ** (1 / 2.4) - 0.055)


_TO_LINEAR = _srgb_to_linear(np.arange(256) / 255).astype(np.float32)
_FROM_LINEAR = np.rint(255 * _linear_to_srgb(np.arange(_LINEAR_STEPS + 1) / _LINEAR_STEPS)).astype(np.uint8)
