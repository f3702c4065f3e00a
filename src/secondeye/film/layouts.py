"""Output layouts: how both views become the frames of one or two files."""

from dataclasses import dataclass

import cv2
import numpy as np

from secondeye.film.packing import INTERLEAVED, PACKED, RIGHT_FIRST, pack, packing_from_name
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
# Where a tag would be read together with the word before it, as in `second_half_TB`.
_LONG_TAGS = {"tb": "Full_TB", "sbs" + RIGHT_FIRST: "Full_SBS_RL", "tb" + RIGHT_FIRST: "Full_TB_RL"}
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
_STRIP_ROWS = 64


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
    def files(self) -> int:
        """How many files the views are written to."""
        return 2 if self.name == FILES else 1

    def names(self, stem: str) -> list[str]:
        """Return the name of each file, without suffix: that of the film and a tag."""
        if self.name == FILES:
            return [f"{stem}_left", f"{stem}_right"]
        name = f"{stem}_{_TAGS[self.packing or self.name]}"
        if self.packing in _LONG_TAGS and packing_from_name(name) != self.packing:
            return [f"{stem}_{_LONG_TAGS[self.packing]}"]
        return [name]

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

    def padding(self, height: int, width: int, *, exact: bool) -> tuple[int, int]:  # rows, columns
        """Return what to add to views of this size: so that each has even sides where it is stored.

        If the exact size is to be kept, only half layouts get an even side to halve.
        """
        rows, columns = {"half-sbs": (1, 2), "half-tb": (2, 1)}.get(self.name, (1, 1))
        factor = 1 if exact else 2
        return -height % (factor * rows), -width % (factor * columns)

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
    made = np.empty_like(left)
    for top in range(0, len(left), _STRIP_ROWS):  # arrays of floats of a whole frame would take much memory
        strip = slice(top, top + _STRIP_ROWS)
        views = np.concatenate([_TO_LINEAR[left[strip]], _TO_LINEAR[right[strip]]], axis=2)
        mixed = cv2.transform(views, _DUBOIS).clip(0, 1)
        made[strip] = _FROM_LINEAR[np.rint(mixed * _LINEAR_STEPS).astype(np.uint16)]
    return made


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
