"""A preview picture of one converted frame: input, depth, holes, right eye, anaglyph, side by side."""

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from secondeye.film.layouts import anaglyph
from secondeye.report.contact_sheet import HOLE_COLOUR

if TYPE_CHECKING:
    from torch import Tensor

_TILE_WIDTH_PX = 640


def write_preview(
    path: Path,
    source: "Tensor",  # uint8 [H, W, 3]
    left: "Tensor",  # uint8 [H, W, 3]; the source itself, unless it is synthesised
    right: "Tensor",  # uint8 [H, W, 3]
    disparity: "Tensor",  # [1, H, W] px; on any device, like the occlusion
    occlusion: "Tensor",  # bool [1, H, W], of the right view
) -> None:
    """Write the preview as PNG."""
    views = left.numpy(), right.numpy()
    holes = np.where(occlusion[0].cpu().numpy()[..., None], np.array(HOLE_COLOUR, np.uint8), views[1] // 2)
    tiles = {
        "input, the left eye" if np.array_equal(source, views[0]) else "input": source.numpy(),
        "depth": _depth_picture(disparity[0].cpu().numpy()),
        "holes, right eye": holes,
        "right eye": views[1],
        "anaglyph": anaglyph(*views),
        "side by side": _half_side_by_side(*views),
    }
    labelled = [_labelled(tile, label) for label, tile in tiles.items()]
    rows = [cv2.hconcat(labelled[:3]), cv2.hconcat(labelled[3:])]
    _, png = cv2.imencode(".png", cv2.vconcat(rows)[..., ::-1])
    path.write_bytes(png.tobytes())


def _half_side_by_side(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return both views at half size, letterboxed to the size of one."""
    height, width = left.shape[0] // 2, left.shape[1] // 2
    picture = np.zeros_like(left)
    top = (left.shape[0] - height) // 2
    for view, start in ((left, 0), (right, width)):
        small = cv2.resize(view, (width, height), interpolation=cv2.INTER_AREA)
        picture[top : top + height, start : start + width] = small
    return picture


def _depth_picture(disparity: np.ndarray) -> np.ndarray:
    value_range = max(1e-6, float(disparity.max() - disparity.min()))
    gray = ((disparity - disparity.min()) / value_range * 255).astype(np.uint8)
    return cv2.applyColorMap(gray, cv2.COLORMAP_INFERNO)[..., ::-1]


def _labelled(tile: np.ndarray, label: str) -> np.ndarray:
    height = round(tile.shape[0] * _TILE_WIDTH_PX / tile.shape[1])
    resized = cv2.resize(np.ascontiguousarray(tile), (_TILE_WIDTH_PX, height), interpolation=cv2.INTER_AREA)
    # The outline is made of shifted copies, since a larger thickness would also widen the letters.
    places = [(x, y, (0, 0, 0)) for x in (11, 13) for y in (27, 29)] + [(12, 28, (255, 255, 255))]
    for x, y, colour in places:
        cv2.putText(resized, label, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.7, colour, 1, cv2.LINE_AA)
    return resized
