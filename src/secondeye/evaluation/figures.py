"""The sheet of the evaluation: what methods made of a frame, how far that is from the truth.

One clip is three rows: the right eyes; below each its error; below that the disparity found between the left
eye and it, in colours that all methods of the clip share.
"""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from secondeye.dataset.schema import EvalClip
from secondeye.evaluation.regions import BORDER, DISOCCLUDED, UNKNOWN, VISIBLE
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

CLIPS = 4
_WHITE = (255, 255, 255)
_REGIONS = {  # by number: name, colour
    UNKNOWN: ("unknown", (90, 90, 90)),
    VISIBLE: ("visible", (20, 20, 20)),
    DISOCCLUDED: ("disoccluded", HOLE_COLOUR),
    BORDER: ("border", (0, 170, 255)),
}


def most_to_paint(held: Sequence[EvalClip]) -> list[EvalClip]:
    """Of each of the first films the clip that is disoccluded most."""
    most: dict[str, EvalClip] = {}
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
        [(f"error x{ERROR_GAIN}, levels", colour_bar(size, "0", f"{255 // ERROR_GAIN}+")), ("", blank(size))]
        + [("", region_key(size))]
        + [(f"{name}: error", error_map(right, truth)) for name, (right, _) in made.items()],
        [("disparity, px", colour_bar(size, f"{low:z.1f}", f"{high:z.1f}"))]
        + [("truth: disparity", disparity_map(truth_disparity, low, high)), ("", blank(size))]
        + [(f"{name}: disparity", disparity_map(found, low, high)) for name, (_, found) in made.items()],
    ]


def region_key(size: tuple[int, int]) -> np.ndarray:  # uint8 [H, W, 3]
    """What the colours of regions mean."""
    height, width = size
    picture = blank(size)
    for place, (name, colour) in enumerate(_REGIONS.values()):
        top, bottom = (round(height * (0.15 + 0.18 * place + extra)) for extra in (0, 0.13))
        picture[top:bottom, round(0.06 * width) : round(0.16 * width)] = colour
        cv2.rectangle(picture, (round(0.06 * width), top), (round(0.16 * width), bottom), _WHITE, 1)
        draw_text(picture, name, 0.22, bottom / height - 0.02, width / MAX_TILE_WIDTH)
    return picture
