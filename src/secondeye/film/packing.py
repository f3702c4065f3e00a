"""How the two views of a film are packed in one frame, and the packing tags of file names.

sources/packing_detection.py detects the packing of a file.
"""

import re
from fractions import Fraction
from itertools import combinations_with_replacement
from pathlib import Path

import cv2
import numpy as np

MONO = "mono"
RIGHT_FIRST = "-right-first"  # the right view is in the left or top half
INTERLEAVED = "interleaved"  # rows of both views in turn
_LEFT_FIRST = ("sbs", "half-sbs", "tb", "half-tb", INTERLEAVED)  # left view: left or top half, even rows
PACKED = (*_LEFT_FIRST, *(name + RIGHT_FIRST for name in _LEFT_FIRST))
PAIR = "pair"  # two files or two folders of images, one per view
MULTIVIEW = "multiview"  # one file that stores each view as a full image: MV-HEVC, MPO
PACKINGS = (*PACKED, PAIR, MULTIVIEW)

_SEPARATORS = "-_. "  # between the words of a file's name
# Tags as VR players read them; the first match counts.
_REVERSED = r"[-_. ]?(rl|right[-_]?first)"
_SBS, _TB = (
    r"(f(ull)?[-_]?)?sbs|side[-_]?by[-_]?side",
    r"(f(ull)?[-_]?)?(tab|tb|ou)|top[-_]?bottom|over[-_]?under",
)
_TAGS = {
    "interleaved-right-first": rf"interleaved{_REVERSED}",
    INTERLEAVED: "interleaved",
    "half-sbs-right-first": rf"h(alf)?[-_]?(sbs{_REVERSED}|rl)|rlq",
    "half-tb-right-first": rf"h(alf)?[-_]?((tab|tb|ou){_REVERSED}|bt)|baq",
    "half-sbs": r"h(alf)?[-_]?(sbs|lr)|sbs[-_]half|lrq",
    "half-tb": r"h(alf)?[-_]?(tab|tb|ou|ab)|(tab|tb|ou)[-_]half|abq",
    "sbs-right-first": rf"({_SBS}){_REVERSED}|rl",
    "tb-right-first": rf"({_TB}){_REVERSED}|bt",
    "sbs": rf"{_SBS}|lr",
    "tb": rf"{_TB}|ab",
}


def packing_from_name(stem: str) -> str | None:
    """Return the packing tag of a file name (`_sbs`, `_half-sbs`, `_tb`, `_rl` ...); None if it has none."""
    for packing, pattern in _TAGS.items():
        if re.search(rf"(^|[-_. ])({pattern})($|[-_. ])", stem.lower()):
            return packing
    return None


def strip_packing_tag(file: str) -> str:
    """Return a film's name without suffix and packing tag: `candle` for `candle_half-sbs.mp4`."""
    stem = Path(file).stem
    packing = packing_from_name(stem)
    if packing is None:
        return stem
    words = re.finditer(f"[^{_SEPARATORS}]+", stem)
    runs = [(first.start(), last.end()) for first, last in combinations_with_replacement(words, 2)]
    tags = [run for run in runs if packing_from_name(stem[slice(*run)]) == packing]
    start, stop = min(tags, key=lambda run: run[1] - run[0])  # `half-sbs`, not `candle_half-sbs`
    head = re.sub(rf"(?i)([{_SEPARATORS}]+(lrf|full))+$", "", stem[:start].rstrip(_SEPARATORS))
    return (head + stem[stop:]).strip(_SEPARATORS)


def packing_axis(packing: str) -> str:
    """Return `sbs` for views side by side, `tb` for one above the other, `interleaved`, else the packing."""
    return packing.removesuffix(RIGHT_FIRST).removeprefix("half-")


def unpack(
    image: np.ndarray,  # [H, W, 3]
    packing: str,
) -> tuple[np.ndarray, np.ndarray]:  # left, right: parts of the image, not resized
    """Split a frame into its two views. Raises ValueError for a packing that does not share one frame."""
    if packing not in PACKED:
        raise ValueError(f"packing must be one of {', '.join(PACKED)}, got {packing!r}")
    height, width = image.shape[:2]
    axis = packing_axis(packing)
    if axis == "sbs":
        first, second = image[:, : width // 2], image[:, width // 2 : width // 2 * 2]
    elif axis == "tb":
        first, second = image[: height // 2], image[height // 2 : height // 2 * 2]
    else:
        first, second = image[: height // 2 * 2 : 2], image[1::2]
    return (second, first) if packing.endswith(RIGHT_FIRST) else (first, second)


def pack(
    left: np.ndarray,  # uint8 [H, W, 3]
    right: np.ndarray,  # uint8 [H, W, 3]
    packing: str,  # one of PACKED
) -> np.ndarray:  # uint8 [H, 2 W, 3] or [2 H, W, 3]; [H, W, 3] for half packings and interleaved rows
    """Join two views in one frame. `unpack` gives them back, those of half packings at half their size.

    Half packings average two pixels and need an even width or height. Interleaved rows are picked, each where
    it lies: means would stand half a row too high in one view and too low in the other.
    """
    first, second = (right, left) if packing.endswith(RIGHT_FIRST) else (left, right)
    height, width = left.shape[:2]
    axis = packing_axis(packing)
    if axis == INTERLEAVED:
        frame = first.copy()
        frame[1::2] = second[1::2]
        return frame
    if packing.startswith("half-"):
        half = (width // 2, height) if axis == "sbs" else (width, height // 2)
        first, second = (cv2.resize(view, half, interpolation=cv2.INTER_AREA) for view in (first, second))
    return np.concatenate([first, second], axis=1 if axis == "sbs" else 0)


def unpack_scaled(
    image: np.ndarray,  # uint8 [H, W, 3]; rows of interleaved views must not have been scaled
    packing: str,
    size: tuple[int, int] | None,  # height, width of the views; None keeps those of the frame
) -> tuple[np.ndarray, np.ndarray]:  # left, right
    """Split a frame into its views and scale those that do not have the size yet."""
    left, right = unpack(image, packing)
    if size is None or left.shape[:2] == size:
        return left, right
    height, width = size
    left, right = (cv2.resize(view, (width, height), interpolation=cv2.INTER_AREA) for view in (left, right))
    return left, right


def size_to_decode(
    size: tuple[int, int] | None,  # height, width of a view
    packing: str,
) -> tuple[int, int] | None:  # height, width of the frame; None: as stored
    """Return the size to decode a packed film at for views of this size: scaling mixes interleaved rows."""
    return None if size is None or packing_axis(packing) == INTERLEAVED else packed_size(size, packing)


def view_size(
    frame: tuple[int, int],  # height, width of the frame
    packing: str,
) -> tuple[int, int]:  # height, width of a view
    """Return the size of the views that share a frame of this size."""
    height, width = frame
    return (height, width // 2) if packing_axis(packing) == "sbs" else (height // 2, width)


def packed_size(
    view: tuple[int, int],  # height, width of a view
    packing: str,
) -> tuple[int, int]:  # height, width of the frame
    """Return the size of a frame that holds two views of this size."""
    height, width = view
    return (height, 2 * width) if packing_axis(packing) == "sbs" else (2 * height, width)


def view_pixel_aspect(packing: str, pixel_aspect: Fraction) -> Fraction:
    """Return the pixel aspect (width / height) of an unpacked view, given that of the packed frame."""
    squeezed = {"half-sbs": Fraction(2), "half-tb": Fraction(1, 2), INTERLEAVED: Fraction(1, 2)}
    return pixel_aspect * squeezed.get(packing.removesuffix(RIGHT_FIRST), Fraction(1))


def crop(
    view: np.ndarray,  # [H, W, 3]
    top: int,  # px to remove on each side
    bottom: int,
    left: int,
    right: int,
) -> np.ndarray:  # [H - top - bottom, W - left - right, 3]
    """Crop a view. Raises ValueError if nothing would be left."""
    height, width = view.shape[:2]
    if min(top, bottom, left, right) < 0 or top + bottom >= height or left + right >= width:
        raise ValueError(f"cannot crop {top}, {bottom}, {left}, {right} px off {height}x{width}")
    return view[top : height - bottom, left : width - right]


def crop_and_resize(
    view: np.ndarray,  # uint8 [H, W, 3]
    height: int,
    width: int,
    pixel_aspect: Fraction,  # of the view
) -> np.ndarray:  # uint8 [height, width, 3] with square pixels
    """Crop the centre to the target aspect and resize it. Doing so to both views only scales disparity."""
    rows, columns = view.shape[:2]
    aspect = Fraction(width, height) / pixel_aspect  # columns per row of the view
    crop_columns = min(columns, round(rows * aspect))
    crop_rows = min(rows, round(columns / aspect))
    top, side = (rows - crop_rows) // 2, (columns - crop_columns) // 2
    cropped = view[top : top + crop_rows, side : side + crop_columns]
    shrinks = crop_columns >= width
    return cv2.resize(cropped, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def side_by_side(
    left: np.ndarray,  # [H, W, 3]
    right: np.ndarray,  # [H, W, 3]
) -> np.ndarray:  # [H, 2 W, 3]
    """Concatenate both views, left view first."""
    return np.concatenate([left, right], axis=1)
