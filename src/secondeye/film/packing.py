"""How two eyes share one picture, and what a file name tells about it."""

import re
from fractions import Fraction

import cv2
import numpy as np

MONO = "mono"
RIGHT_FIRST = "-right-first"  # the right eye has the left half, or the top one
_HALVES = ("sbs", "half-sbs", "tb", "half-tb")  # left eye first: left half or top half
PACKED = (*_HALVES, *(name + RIGHT_FIRST for name in _HALVES))
PAIR = "pair"  # two files or two folders of pictures, one an eye
MULTIVIEW = "multiview"  # one file that holds both views as pictures of their own: MV-HEVC, MPO
PACKINGS = (*PACKED, PAIR, MULTIVIEW)

# Tags as the players of VR headsets read them; the first that fits counts.
_LAST = r"[-_. ]?(rl|right[-_]?first)"
_SBS, _TB = (
    r"(f(ull)?[-_]?)?sbs|side[-_]?by[-_]?side",
    r"(f(ull)?[-_]?)?(tab|tb|ou)|top[-_]?bottom|over[-_]?under",
)
_TAGS = {
    "half-sbs-right-first": rf"h(alf)?[-_]?(sbs{_LAST}|rl)|rlq",
    "half-tb-right-first": rf"h(alf)?[-_]?((tab|tb|ou){_LAST}|bt)|baq",
    "half-sbs": r"h(alf)?[-_]?(sbs|lr)|sbs[-_]half|lrq",
    "half-tb": r"h(alf)?[-_]?(tab|tb|ou|ab)|(tab|tb|ou)[-_]half|abq",
    "sbs-right-first": rf"({_SBS}){_LAST}|rl",
    "tb-right-first": rf"({_TB}){_LAST}|bt",
    "sbs": rf"{_SBS}|lr",
    "tb": rf"{_TB}|ab",
}


def packing_from_name(stem: str) -> str | None:
    """The packing a file name is tagged with (`_sbs`, `_half-sbs`, `_tb`, `_rl` ...), None without a tag."""
    for packing, pattern in _TAGS.items():
        if re.search(rf"(^|[-_. ])({pattern})($|[-_. ])", stem.lower()):
            return packing
    return None


def packing_axis(packing: str) -> str:
    """Where the second eye lies: `sbs` beside the first, `tb` below it, or the packing itself."""
    return packing.removesuffix(RIGHT_FIRST).removeprefix("half-")


def unpack(
    picture: np.ndarray,  # [H, W, 3]
    packing: str,
) -> tuple[np.ndarray, np.ndarray]:  # left, right: halves of the picture, not resized
    """Cut a picture into its two eyes. Raises ValueError where a packing is none of one picture."""
    if packing not in PACKED:
        raise ValueError(f"packing must be one of {', '.join(PACKED)}, got {packing!r}")
    height, width = picture.shape[:2]
    if packing_axis(packing) == "sbs":
        first, second = picture[:, : width // 2], picture[:, width // 2 : width // 2 * 2]
    else:
        first, second = picture[: height // 2], picture[height // 2 : height // 2 * 2]
    return (second, first) if packing.endswith(RIGHT_FIRST) else (first, second)


def view_pixel_aspect(packing: str, pixel_aspect: Fraction) -> Fraction:
    """Width over height of one pixel of an unpacked eye: the halves are squeezed."""
    squeezed = {"half-sbs": Fraction(2), "half-tb": Fraction(1, 2)}
    return pixel_aspect * squeezed.get(packing.removesuffix(RIGHT_FIRST), Fraction(1))


def crop(
    eye: np.ndarray,  # [H, W, 3]
    top: int,  # px to cut off on each side
    bottom: int,
    left: int,
    right: int,
) -> np.ndarray:  # [H - top - bottom, W - left - right, 3]
    """Cut the borders off an eye. Raises ValueError where nothing would be left."""
    height, width = eye.shape[:2]
    if min(top, bottom, left, right) < 0 or top + bottom >= height or left + right >= width:
        raise ValueError(f"can not cut {top}, {bottom}, {left}, {right} px off {height}x{width}")
    return eye[top : height - bottom, left : width - right]


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
