"""How two eyes share one picture, and what a file name tells about it."""

import re
from fractions import Fraction

import cv2
import numpy as np

MONO = "mono"
PACKINGS = ("sbs", "half-sbs", "tb", "half-tb")  # left eye first: left half or top half

# Tags as the players of VR headsets read them.
_TAGS = {
    "half-sbs": r"h(alf)?[-_]?(sbs|lr)|lrq",
    "half-tb": r"h(alf)?[-_]?(tb|ou|ab)|abq",
    "sbs": r"sbs|lr|side[-_]?by[-_]?side",
    "tb": r"tb|ou|ab|top[-_]?bottom|over[-_]?under",
}


def packing_from_name(stem: str) -> str | None:
    """The packing a file name is tagged with (`_sbs`, `_half-sbs`, `_tb` ...), None where it has no tag."""
    for packing, pattern in _TAGS.items():
        if re.search(rf"(^|[-_. ])({pattern})($|[-_. ])", stem.lower()):
            return packing
    return None


def unpack(
    picture: np.ndarray,  # [H, W, 3]
    packing: str,
) -> tuple[np.ndarray, np.ndarray]:  # left, right: halves of the picture, not resized
    """Cut a picture into its two eyes."""
    height, width = picture.shape[:2]
    if packing in ("sbs", "half-sbs"):
        return picture[:, : width // 2], picture[:, width // 2 : width // 2 * 2]
    if packing in ("tb", "half-tb"):
        return picture[: height // 2], picture[height // 2 : height // 2 * 2]
    raise ValueError(f"packing must be one of {', '.join(PACKINGS)}, got {packing!r}")


def eye_pixel_aspect(packing: str, pixel_aspect: Fraction) -> Fraction:
    """Width over height of one pixel of an unpacked eye: the halves are squeezed."""
    return pixel_aspect * {"half-sbs": Fraction(2), "half-tb": Fraction(1, 2)}.get(packing, Fraction(1))


def fit(
    eye: np.ndarray,  # uint8 [H, W, 3]
    height: int,
    width: int,
    pixel_aspect: Fraction,  # of the eye
) -> np.ndarray:  # uint8 [height, width, 3] with square pixels
    """Crop the centre to the wanted shape and resize it. Cropped alike, both eyes' disparity only scales."""
    rows, columns = eye.shape[:2]
    wanted = Fraction(width, height) / pixel_aspect  # columns per row of the eye
    crop_columns = min(columns, round(rows * wanted))
    crop_rows = min(rows, round(columns / wanted))
    top, side = (rows - crop_rows) // 2, (columns - crop_columns) // 2
    cropped = eye[top : top + crop_rows, side : side + crop_columns]
    shrinks = crop_columns >= width
    return cv2.resize(cropped, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def side_by_side(
    left: np.ndarray,  # [H, W, 3]
    right: np.ndarray,  # [H, W, 3]
) -> np.ndarray:  # [H, 2 W, 3]
    """Both eyes in one picture, left eye first."""
    return np.concatenate([left, right], axis=1)
