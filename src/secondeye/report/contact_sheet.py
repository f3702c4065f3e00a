"""Contact sheets: rows of labelled tiles, and colour maps of errors and disparities."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from secondeye.system.files import atomic_path

if TYPE_CHECKING:
    from torch import Tensor

Tile = tuple[str, np.ndarray]  # label, image uint8 [H, W, 3]

HOLE_COLOUR = (255, 0, 170)  # RGB of occluded pixels in every image
ERROR_GAIN = 4  # of error maps
MAX_TILE_WIDTH = 320  # px
_SHEET_WIDTH, _MIN_TILE_WIDTH = 2400, 160  # px
_BAR_HEIGHT = 20  # px, of a tile's label
_FONT, _FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.42
_WHITE, _GREY = (255, 255, 255), 45


def write_contact_sheet(
    path: Path,
    rows: Sequence[Sequence[Tile]],
    max_tile_width: int = MAX_TILE_WIDTH,  # px
) -> None:
    """Write rows of labelled images as a PNG."""
    columns = max(len(row) for row in rows)
    width = min(max_tile_width, max(_MIN_TILE_WIDTH, _SHEET_WIDTH // columns))
    lines = [cv2.hconcat([_tile(image, label, width) for label, image in row]) for row in rows]
    padded = [
        cv2.copyMakeBorder(line, 0, 3, 0, columns * width - line.shape[1], cv2.BORDER_CONSTANT)
        for line in lines
    ]
    write_image(path, cv2.vconcat(padded))


def error_map(
    right: np.ndarray,  # uint8 [H, W, 3]
    truth: np.ndarray,  # uint8 [H, W, 3]
) -> np.ndarray:  # uint8 [H, W, 3]
    """Return the absolute luma error, multiplied by `ERROR_GAIN`, as colours; black is no error."""
    lumas = [cv2.cvtColor(np.ascontiguousarray(p), cv2.COLOR_RGB2GRAY).astype(int) for p in (right, truth)]
    return _colour_map((ERROR_GAIN * abs(lumas[0] - lumas[1])).clip(0, 255))


def disparity_map(
    disparity: np.ndarray,  # float [H, W] px, NaN for none
    low: float,  # px, drawn black
    high: float,  # px, drawn brightest
) -> np.ndarray:  # uint8 [H, W, 3]
    """Return disparity as colours: nearer is brighter, gray has no match."""
    share = (disparity - low) / max(high - low, 1e-6)
    coloured = _colour_map((255 * np.nan_to_num(share, nan=0.0)).clip(0, 255))
    return np.where(np.isnan(disparity)[..., None], np.uint8(128), coloured)


def colour_bar(size: tuple[int, int], low: str, high: str) -> np.ndarray:  # uint8 [H, W, 3]
    """Return a legend for a colour map, with labels at both ends."""
    height, width = size
    image, band = blank(size), slice(height // 3, height // 2)
    image[band] = _colour_map(np.tile(np.linspace(0, 255, width), (height // 2 - height // 3, 1)))
    text_scale = width / MAX_TILE_WIDTH  # the sheet resizes the image to one tile
    draw_text(image, low, 0.03, 0.68, text_scale)
    draw_text(image, high, 0.82, 0.68, text_scale)
    return image


def blank(size: tuple[int, int]) -> np.ndarray:  # uint8 [H, W, 3]
    """Return a black image."""
    return np.zeros((*size, 3), np.uint8)


def draw_text(image: np.ndarray, text: str, x: float, y: float, size: float) -> None:
    """Draw white text at (x, y), given as fractions of the image's width and height."""
    place = round(x * image.shape[1]), round(y * image.shape[0])
    cv2.putText(image, text, place, _FONT, _FONT_SCALE * size, _WHITE, max(1, round(size)), cv2.LINE_AA)


def frame_to_image(
    frames: "Tensor",  # [1, 3, H, W] in [0, 1]
) -> np.ndarray:  # uint8 [H, W, 3]
    """Convert one frame to 8-bit pixels."""
    from secondeye.imaging.arrays import frames_to_uint8

    return frames_to_uint8(frames[:1])[0].numpy()


def write_image(path: Path, image: np.ndarray) -> None:
    """Write a PNG from uint8 RGB [H, W, 3]."""
    with atomic_path(path) as part:
        cv2.imwrite(str(part), image[..., ::-1])


def read_image(path: Path) -> np.ndarray:  # uint8 [H, W, 3]
    """Read a PNG as RGB."""
    image = cv2.imread(str(path))
    assert image is not None, path
    return image[..., ::-1]


def _colour_map(levels: np.ndarray) -> np.ndarray:
    return cv2.applyColorMap(levels.astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]


def _tile(image: np.ndarray, label: str, width: int) -> np.ndarray:
    height = round(image.shape[0] * width / image.shape[1])
    tile = cv2.resize(np.ascontiguousarray(image), (width - 2, height), interpolation=cv2.INTER_AREA)
    bar = np.full((_BAR_HEIGHT, width - 2, 3), _GREY, np.uint8)
    cv2.putText(bar, label, (4, 14), _FONT, _FONT_SCALE, _WHITE, 1, cv2.LINE_AA)
    return cv2.copyMakeBorder(cv2.vconcat([bar, tile]), 0, 0, 0, 2, cv2.BORDER_CONSTANT)
