"""What a piece of a film looks like: blank, black, static, or a title."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

# All levels of 255. Bounds are ours, measured on small pictures (256 px wide) of ten films.
_BLANK = 6  # between the darkest and the brightest of a blank picture; other pictures had over 12
_SAME = 8  # pixels of a title's ground differ from it by no more
_SHARP = 40  # a letter's edge is a larger step between neighbours
_CALM = 1.0  # a title's pixels change by no more from frame to frame
_GROUND = 0.85  # share of a title that is ground
_LETTERS = 0.001  # share of a title that is letters, at least
_OUTLINED = 0.9  # share of what is not ground that lies at sharp edges


class FrameCheck(NamedTuple):
    """One frame."""

    brightness: float  # mean luma, [0, 1]
    motion: float  # mean change of luma since the frame before, levels; 0 for the first
    blank: bool  # all of one colour: black between two shots, say
    title: bool  # few sharp letters on one colour


def check_frame(
    picture: np.ndarray,  # uint8 [h, w, 3] RGB, small
    before: np.ndarray | None,  # the frame before, None for the first
) -> FrameCheck:
    """Numbers of one frame."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    motion = 0.0
    if before is not None:
        motion = float(cv2.absdiff(grey, cv2.cvtColor(before, cv2.COLOR_RGB2GRAY)).mean(dtype=np.float64))
    return FrameCheck(
        float(grey.mean(dtype=np.float64)) / 255, motion, _is_blank(grey), _is_title(picture, grey)
    )


def _is_blank(grey: np.ndarray) -> bool:
    """Judged in the middle, so that black borders do not count."""
    height, width = grey.shape
    middle = grey[height // 5 : height - height // 5, width // 5 : width - width // 5].ravel()
    places = [len(middle) // 200, len(middle) - 1 - len(middle) // 200]
    darkest, brightest = np.partition(middle, places)[places].astype(int)
    return bool(brightest - darkest <= _BLANK)


def _is_title(picture: np.ndarray, grey: np.ndarray) -> bool:
    """Nearly all is ground, and the rest lies at sharp edges: letters have no inside."""
    ground = np.median(picture.reshape(-1, 3), axis=0)
    ink = np.abs(picture - ground).max(axis=2) > _SAME
    if not _LETTERS <= ink.mean() <= 1 - _GROUND:
        return False
    cross = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) >= _SHARP
    near = cv2.dilate(cross.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return bool(near[ink].mean() >= _OUTLINED)


def rejection_reason(
    looks: Sequence[FrameCheck],  # of all frames of a piece
    *,
    min_brightness: float,
    min_motion: float,  # not asked of a single frame
) -> tuple[str, str] | None:
    """Why a piece teaches nothing, as (reason, detail); None where it may."""
    brightness = float(np.mean([look.brightness for look in looks]))
    moves = [look.motion for look in looks[1:]]
    motion = float(np.mean(moves)) if moves else 0.0
    titles = sum(look.title for look in looks)
    if 2 * titles > len(looks) and motion <= _CALM:
        return "title", f"{titles} of {len(looks)} frames are letters on one colour"
    if brightness < min_brightness:
        return "black", f"mean brightness {brightness:.4f}, {min_brightness:g} needed"
    if (blank := sum(look.blank for look in looks)) > len(looks) // 2:
        return "blank", f"{blank} of {len(looks)} frames are of one colour"
    if moves and motion < min_motion:
        return "static", f"pixels change by {motion:.3f} levels a frame, {min_motion:g} needed"
    return None
