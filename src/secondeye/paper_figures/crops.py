"""Places of a picture that figures show enlarged: around the largest holes."""

import cv2
import numpy as np
from torch import Tensor

from secondeye.evaluation.score_crops import find_crops

PLACES = 2
_SHARE = 0.25  # of both sides of the picture


def find_places(
    holes: Tensor,  # bool [T, 1, H, W]
) -> list[tuple[slice, slice]]:  # PLACES pairs of rows and columns
    """Return the places with most holes, as wide and high as a quarter of the picture, apart from each other.

    Where there are fewer, the middle of the picture is shown.
    """
    height, width = holes.shape[-2:]
    size = round(_SHARE * height), round(_SHARE * width)
    crops = find_crops(holes)
    order = crops.weights.argsort(descending=True, stable=True)
    centres = (crops.corners[order, 1:] + crops.side_px // 2).tolist()
    chosen: list[list[int]] = []
    for centre in [*centres, [height // 2, width // 2], [height // 4, width // 4]]:
        apart = all(abs(centre[0] - y) > size[0] / 2 or abs(centre[1] - x) > size[1] / 2 for y, x in chosen)
        if apart and len(chosen) < PLACES:
            chosen.append(centre)
    return [(_span(y, size[0], height), _span(x, size[1], width)) for y, x in chosen]


def cut_out(
    image: np.ndarray,  # uint8 [H, W, 3]
    place: tuple[slice, slice],
) -> np.ndarray:  # uint8 [H, W, 3]
    """Return the part of a picture at a place, enlarged to the size of the picture."""
    return cv2.resize(np.ascontiguousarray(image[place]), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def _span(centre: int, length: int, side: int) -> slice:
    start = min(max(0, centre - length // 2), side - length)
    return slice(start, start + length)
