"""Check the frames of a clip: blank, black, static, or a title card."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

# Levels are of 255. The thresholds are ours, measured on small frames (256 px wide) of ten films.
_BLANK_RANGE = 6  # between the darkest and the brightest pixel of a blank frame; other frames had over 12
_BACKGROUND_TOLERANCE = 8  # by which pixels of a title's background differ from it
_EDGE_STEP = 40  # between neighbours at the edge of a letter
_TITLE_MOTION = 1.0  # levels by which a title's pixels change from frame to frame, at most
_BACKGROUND_SHARE = 0.85  # of a title that is background, at least
_LETTER_SHARE = 0.001  # of a title that is letters, at least
_EDGE_SHARE = 0.9  # of the pixels off the background that lie at edges, at least


class FrameCheck(NamedTuple):
    """Measurements of one frame."""

    brightness: float  # mean luma, [0, 1]
    motion: float  # mean absolute change of luma since the previous frame, levels; 0 for the first
    blank: bool  # a single colour, such as black between two shots
    title: bool  # a few sharp letters on a plain background


def check_frame(
    image: np.ndarray,  # uint8 [h, w, 3] RGB, small
    previous: np.ndarray | None,  # the frame before; None for the first
) -> FrameCheck:
    """Measure one frame."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    motion = 0.0
    if previous is not None:
        motion = float(cv2.absdiff(gray, cv2.cvtColor(previous, cv2.COLOR_RGB2GRAY)).mean(dtype=np.float64))
    return FrameCheck(
        float(gray.mean(dtype=np.float64)) / 255, motion, _is_blank(gray), _is_title(image, gray)
    )


def _is_blank(gray: np.ndarray) -> bool:
    """Whether the centre has a single colour; black borders are ignored."""
    height, width = gray.shape
    centre = gray[height // 5 : height - height // 5, width // 5 : width - width // 5].ravel()
    ranks = [len(centre) // 200, len(centre) - 1 - len(centre) // 200]
    darkest, brightest = np.partition(centre, ranks)[ranks].astype(int)
    return bool(brightest - darkest <= _BLANK_RANGE)


def _is_title(image: np.ndarray, gray: np.ndarray) -> bool:
    """Whether nearly all is background and the rest lies at sharp edges: letters have no interior."""
    background = np.median(image.reshape(-1, 3), axis=0)
    letters = np.abs(image - background).max(axis=2) > _BACKGROUND_TOLERANCE
    if not _LETTER_SHARE <= letters.mean() <= 1 - _BACKGROUND_SHARE:
        return False
    edges = cv2.morphologyEx(gray, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) >= _EDGE_STEP
    near_edge = cv2.dilate(edges.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return bool(near_edge[letters].mean() >= _EDGE_SHARE)


def rejection_reason(
    checks: Sequence[FrameCheck],  # of all frames of a clip
    *,
    min_brightness: float,
    min_motion: float,  # ignored for a single frame
) -> tuple[str, str] | None:
    """Return why a clip is unsuitable for training as (reason, detail); None if it is suitable."""
    brightness = float(np.mean([check.brightness for check in checks]))
    motions = [check.motion for check in checks[1:]]
    motion = float(np.mean(motions)) if motions else 0.0
    titles = sum(check.title for check in checks)
    if 2 * titles > len(checks) and motion <= _TITLE_MOTION:
        return "title", f"{titles} of {len(checks)} frames show letters on a plain background"
    if brightness < min_brightness:
        return "black", f"mean brightness is {brightness:.4f}, minimum {min_brightness:g}"
    if (blank := sum(check.blank for check in checks)) > len(checks) // 2:
        return "blank", f"{blank} of {len(checks)} frames have a single colour"
    if motions and motion < min_motion:
        return "static", f"pixels change by {motion:.3f} levels per frame, minimum {min_motion:g}"
    return None
