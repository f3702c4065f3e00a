"""One picture that shows what was done to a frame: input, depth, holes, right eye, anaglyph, both eyes."""

from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from secondeye.report.contact_sheet import HOLE_COLOUR

_TILE_WIDTH = 640  # px


def write_preview(
    path: Path,
    left: Tensor,  # uint8 [H, W, 3]
    right: Tensor,  # uint8 [H, W, 3]
    disparity: Tensor,  # [1, H, W] px
    occlusion: Tensor,  # bool [1, H, W]
) -> None:
    """Write the sheet as PNG."""
    eyes = left.numpy(), right.numpy()
    holes = np.where(occlusion[0].numpy()[..., None], np.array(HOLE_COLOUR, np.uint8), eyes[1] // 2)
    tiles = {
        "input, the left eye": eyes[0],
        "depth": _depth_picture(disparity[0].numpy()),
        "holes": holes,
        "right eye": eyes[1],
        "anaglyph": anaglyph(*eyes),
        "side by side": _both(*eyes),
    }
    fitted = [_labelled(tile, label) for label, tile in tiles.items()]
    rows = [cv2.hconcat(fitted[:3]), cv2.hconcat(fitted[3:])]
    cv2.imwrite(str(path), cv2.vconcat(rows)[..., ::-1])


def anaglyph(
    left: np.ndarray,  # uint8 [H, W, 3]
    right: np.ndarray,  # uint8 [H, W, 3]
) -> np.ndarray:  # uint8 [H, W, 3]
    """Red from the left eye, green and blue from the right."""
    return np.concatenate([left[..., :1], right[..., 1:]], axis=-1)


def _both(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Both eyes at half size on a black picture of the size of one."""
    height, width = left.shape[0] // 2, left.shape[1] // 2
    picture = np.zeros_like(left)
    top = (left.shape[0] - height) // 2
    for eye, start in ((left, 0), (right, width)):
        small = cv2.resize(eye, (width, height), interpolation=cv2.INTER_AREA)
        picture[top : top + height, start : start + width] = small
    return picture


def _depth_picture(disparity: np.ndarray) -> np.ndarray:
    reach = max(1e-6, float(disparity.max() - disparity.min()))
    grey = ((disparity - disparity.min()) / reach * 255).astype(np.uint8)
    return cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO)[..., ::-1]


def _labelled(tile: np.ndarray, label: str) -> np.ndarray:
    height = round(tile.shape[0] * _TILE_WIDTH / tile.shape[1])
    fitted = cv2.resize(np.ascontiguousarray(tile), (_TILE_WIDTH, height), interpolation=cv2.INTER_AREA)
    # An outline of shifted copies: thicker letters are wider, too.
    places = [(x, y, (0, 0, 0)) for x in (11, 13) for y in (27, 29)] + [(12, 28, (255, 255, 255))]
    for x, y, colour in places:
        cv2.putText(fitted, label, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.7, colour, 1, cv2.LINE_AA)
    return fitted
