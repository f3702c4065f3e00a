"""Pictures for the eye: what methods made of a frame, how far that is from the truth, what a matcher finds.

One clip is three rows: the right eyes; below each its error; below that the disparity found between the left
eye and it, in colours that all methods of the clip share.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from secondeye.clips import pictures_from_frames
from secondeye.evaluation.regions import BORDER, DISOCCLUDED, UNKNOWN, VISIBLE
from secondeye.files import arriving
from secondeye.rows import Held

Tile = tuple[str, np.ndarray]  # label, picture uint8 [H, W, 3]

CLIPS = 4
AMPLIFIED = 4  # times, in maps of errors
_SHEET_WIDTH, _LEAST_WIDTH, _MOST_WIDTH = 2400, 160, 320  # px of the whole, and of one tile
_BAR_HEIGHT = 20  # px, of a label
_FONT, _FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.42
_WHITE, _GREY = (255, 255, 255), 45
_REGIONS = {  # by number: name, colour
    UNKNOWN: ("unknown", (90, 90, 90)),
    VISIBLE: ("visible", (20, 20, 20)),
    DISOCCLUDED: ("disoccluded", (255, 0, 170)),
    BORDER: ("border", (0, 170, 255)),
}


def most_to_paint(held: Sequence[Held]) -> list[Held]:
    """Of each of the first films the clip that is disoccluded most."""
    most: dict[str, Held] = {}
    for row in sorted(held, key=lambda row: (row.film, row.disoccluded_share, row.id)):
        most[row.film] = row
    return list(most.values())[:CLIPS]


def clip_rows(
    film: str,  # its name
    left: np.ndarray,  # uint8 [H, W, 3]
    truth: np.ndarray,  # uint8 [H, W, 3]
    regions: np.ndarray,  # uint8 [H, W]: evaluation.regions
    truth_disparity: np.ndarray,  # float [H, W] px, found between left and truth; NaN for none
    made: Mapping[str, tuple[np.ndarray, np.ndarray]],  # method -> right eye, disparity found with it
) -> list[list[Tile]]:
    """The three rows of one clip."""
    size = left.shape[:2]
    finite = np.concatenate([d[np.isfinite(d)] for d in (truth_disparity, *(d for _, d in made.values()))])
    low, high = (float(end) for end in np.percentile(finite, [1, 99])) if finite.size else (0.0, 1.0)
    colours = np.array([colour for _, colour in _REGIONS.values()], np.uint8)
    return [
        [(f"left eye of {film}", left), ("true right eye", truth), ("regions", colours[regions])]
        + [(name, right) for name, (right, _) in made.items()],
        [(f"error x{AMPLIFIED}, levels", scale(size, "0", f"{255 // AMPLIFIED}+")), ("", blank(size))]
        + [("", region_key(size))]
        + [(f"{name}: error", error_map(right, truth)) for name, (right, _) in made.items()],
        [("disparity, px", scale(size, f"{low:z.1f}", f"{high:z.1f}"))]
        + [("truth: disparity", disparity_map(truth_disparity, low, high)), ("", blank(size))]
        + [(f"{name}: disparity", disparity_map(found, low, high)) for name, (_, found) in made.items()],
    ]


def error_map(
    right: np.ndarray,  # uint8 [H, W, 3]
    truth: np.ndarray,  # uint8 [H, W, 3]
) -> np.ndarray:  # uint8 [H, W, 3]
    """How far luma is from the truth's, amplified; black is equal."""
    lumas = [cv2.cvtColor(np.ascontiguousarray(p), cv2.COLOR_RGB2GRAY).astype(int) for p in (right, truth)]
    return _coloured((AMPLIFIED * abs(lumas[0] - lumas[1])).clip(0, 255))


def disparity_map(
    disparity: np.ndarray,  # float [H, W] px, NaN for none
    low: float,  # px that is black
    high: float,  # px that is brightest
) -> np.ndarray:  # uint8 [H, W, 3]
    """Nearer is brighter; grey where there is no match."""
    share = (disparity - low) / max(high - low, 1e-6)
    coloured = _coloured((255 * np.nan_to_num(share, nan=0.0)).clip(0, 255))
    return np.where(np.isnan(disparity)[..., None], np.uint8(128), coloured)


def scale(size: tuple[int, int], low: str, high: str) -> np.ndarray:  # uint8 [H, W, 3]
    """What the colours of a map mean, from one end to the other."""
    height, width = size
    picture, band = blank(size), slice(height // 3, height // 2)
    picture[band] = _coloured(np.tile(np.linspace(0, 255, width), (height // 2 - height // 3, 1)))
    size_of = width / _MOST_WIDTH  # the tile is drawn smaller or larger than the picture
    _write(picture, low, 0.03, 0.68, size_of)
    _write(picture, high, 0.82, 0.68, size_of)
    return picture


def region_key(size: tuple[int, int]) -> np.ndarray:  # uint8 [H, W, 3]
    """What the colours of regions mean."""
    height, width = size
    picture = blank(size)
    for place, (name, colour) in enumerate(_REGIONS.values()):
        top, bottom = (round(height * (0.15 + 0.18 * place + extra)) for extra in (0, 0.13))
        picture[top:bottom, round(0.06 * width) : round(0.16 * width)] = colour
        cv2.rectangle(picture, (round(0.06 * width), top), (round(0.16 * width), bottom), _WHITE, 1)
        _write(picture, name, 0.22, bottom / height - 0.02, width / _MOST_WIDTH)
    return picture


def blank(size: tuple[int, int]) -> np.ndarray:  # uint8 [H, W, 3]
    """Nothing to see."""
    return np.zeros((*size, 3), np.uint8)


def write_sheet(path: Path, rows: Sequence[Sequence[Tile]]) -> None:
    """Write rows of labelled pictures as PNG."""
    columns = max(len(row) for row in rows)
    width = min(_MOST_WIDTH, max(_LEAST_WIDTH, _SHEET_WIDTH // columns))
    lines = [cv2.hconcat([_tile(picture, label, width) for label, picture in row]) for row in rows]
    whole = columns * width
    padded = [cv2.copyMakeBorder(line, 0, 3, 0, whole - line.shape[1], cv2.BORDER_CONSTANT) for line in lines]
    write_picture(path, cv2.vconcat(padded))


def picture_of(
    frames: Tensor,  # [1, 3, H, W] in [0, 1]
) -> np.ndarray:  # uint8 [H, W, 3]
    """One frame as pixels."""
    return pictures_from_frames(frames[:1])[0].numpy()


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write uint8 RGB [H, W, 3] as PNG."""
    with arriving(path) as part:
        cv2.imwrite(str(part), picture[..., ::-1])


def read_picture(path: Path) -> np.ndarray:  # uint8 [H, W, 3]
    """Read it back."""
    picture = cv2.imread(str(path))
    assert picture is not None, path
    return picture[..., ::-1]


def _coloured(levels: np.ndarray) -> np.ndarray:
    return cv2.applyColorMap(levels.astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]


def _write(picture: np.ndarray, text: str, x: float, y: float, size: float) -> None:
    """`x` and `y` are shares of the picture's sides."""
    place = round(x * picture.shape[1]), round(y * picture.shape[0])
    cv2.putText(picture, text, place, _FONT, _FONT_SCALE * size, _WHITE, max(1, round(size)), cv2.LINE_AA)


def _tile(picture: np.ndarray, label: str, width: int) -> np.ndarray:
    height = round(picture.shape[0] * width / picture.shape[1])
    tile = cv2.resize(np.ascontiguousarray(picture), (width - 2, height), interpolation=cv2.INTER_AREA)
    bar = np.full((_BAR_HEIGHT, width - 2, 3), _GREY, np.uint8)
    cv2.putText(bar, label, (4, 14), _FONT, _FONT_SCALE, _WHITE, 1, cv2.LINE_AA)
    return cv2.copyMakeBorder(cv2.vconcat([bar, tile]), 0, 0, 0, 2, cv2.BORDER_CONSTANT)
