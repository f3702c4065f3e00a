"""The contact sheet of the evaluation.

Each clip has three rows: the right views that methods made; below each its error; below that the disparity
that a matcher finds between the left view and it, on one colour scale per clip.
"""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from secondeye.dataset.schema import EvalClip
from secondeye.evaluation.regions import BORDER, DISOCCLUDED, UNKNOWN, VISIBLE
from secondeye.imaging.arrays import disparity_ends
from secondeye.report.contact_sheet import (
    ERROR_GAIN,
    HOLE_COLOUR,
    MAX_TILE_WIDTH,
    Tile,
    blank,
    colour_bar,
    disparity_map,
    draw_text,
    error_map,
)

MAX_CLIPS = 4
_WHITE = (255, 255, 255)
_REGIONS = {  # region -> name, colour
    UNKNOWN: ("unknown", (90, 90, 90)),
    VISIBLE: ("visible", (20, 20, 20)),
    DISOCCLUDED: ("disoccluded", HOLE_COLOUR),
    BORDER: ("border", (0, 170, 255)),
}


def select_clips(clips: Sequence[EvalClip]) -> list[EvalClip]:
    """Return the clip with the largest disoccluded share of each of the first films."""
    by_film: dict[str, EvalClip] = {}
    for clip in sorted(clips, key=lambda clip: (clip.film, clip.disoccluded_share, clip.id)):
        by_film[clip.film] = clip
    return list(by_film.values())[:MAX_CLIPS]


def clip_rows(
    film: str,  # its name
    left: np.ndarray,  # uint8 [H, W, 3]
    truth: np.ndarray,  # uint8 [H, W, 3]
    regions: np.ndarray,  # uint8 [H, W]: evaluation.regions
    true_disparity: np.ndarray,  # float [H, W] px, found between left and truth; NaN for none
    outputs: Mapping[str, tuple[np.ndarray, np.ndarray]],  # method -> right view, disparity found with it
) -> list[list[Tile]]:
    """Return the three rows of one clip."""
    size = left.shape[:2]
    maps = (true_disparity, *(disparity for _, disparity in outputs.values()))
    finite = np.concatenate([disparity[np.isfinite(disparity)] for disparity in maps])
    low, high = disparity_ends(finite) if finite.size else (0.0, 1.0)
    colours = np.array([colour for _, colour in _REGIONS.values()], np.uint8)
    return [
        [(f"left eye of {film}", left), ("true right eye", truth), ("regions", colours[regions])]
        + [(name, right) for name, (right, _) in outputs.items()],
        [(f"error x{ERROR_GAIN}, levels", colour_bar(size, "0", f"{255 // ERROR_GAIN}+")), ("", blank(size))]
        + [("", region_legend(size))]
        + [(f"{name}: error", error_map(right, truth)) for name, (right, _) in outputs.items()],
        [("disparity, px", colour_bar(size, f"{low:z.1f}", f"{high:z.1f}"))]
        + [("truth: disparity", disparity_map(true_disparity, low, high)), ("", blank(size))]
        + [(f"{name}: disparity", disparity_map(found, low, high)) for name, (_, found) in outputs.items()],
    ]


def region_legend(size: tuple[int, int]) -> np.ndarray:  # uint8 [H, W, 3]
    """Draw the legend of the region colours."""
    height, width = size
    image = blank(size)
    for index, (name, colour) in enumerate(_REGIONS.values()):
        top, bottom = (round(height * (0.15 + 0.18 * index + offset)) for offset in (0, 0.13))
        image[top:bottom, round(0.06 * width) : round(0.16 * width)] = colour
        cv2.rectangle(image, (round(0.06 * width), top), (round(0.16 * width), bottom), _WHITE, 1)
        draw_text(image, name, 0.22, bottom / height - 0.02, width / MAX_TILE_WIDTH)
    return image
