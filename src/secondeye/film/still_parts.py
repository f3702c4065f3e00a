"""Find what stands still on the screen, shot by shot: the bands of a letterbox, burnt-in text and logos.

Whole frames are measured while cuts are still being searched, so that a film is decoded once and memory does
not grow with the length of its shots.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from secondeye.film.cuts import CUT_DELAY_FRAMES
from secondeye.film.letterbox import (
    NO_LETTERBOX,
    Letterbox,
    LevelProfile,
    ShotLetterbox,
    agree,
    dark_edges,
    find_letterbox,
    intersection,
    is_black,
    max_over_time,
    measure_profile,
)
from secondeye.film.overlays import MAX_KNOWN, KnownOverlay, OverlayMeter, TitleMeter


class StillParts(NamedTuple):
    """What stands still on the screen during a shot; it is the same in both views."""

    letterbox: Letterbox  # px of the view
    overlay: bytes  # pixels of text and logos of the view, from `pack_mask`; empty without any


NOTHING_STILL = StillParts(NO_LETTERBOX, b"")


class _ShotParts(NamedTuple):
    """What one shot shows, before the shots of a film are compared."""

    letterbox: ShotLetterbox
    overlay: bytes
    is_black: bool


class _ShotMeter:
    """Measures the frames of one shot, one by one."""

    def __init__(self) -> None:
        self._profile: LevelProfile | None = None
        self._overlays, self._title = OverlayMeter(), TitleMeter()
        self._size = 0, 0

    def add(self, image: np.ndarray) -> None:  # uint8 [H, W, 3]
        profile = measure_profile(image)
        self._profile = profile if self._profile is None else max_over_time([self._profile, profile])
        self._overlays.add(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
        self._title.add(image)
        self._size = image.shape[0], image.shape[1]

    def measured(
        self,
        known: deque[KnownOverlay],  # of earlier shots; what is new is appended
    ) -> _ShotParts | None:  # None without frames
        if self._profile is None:
            return None
        letterbox = ShotLetterbox(find_letterbox(self._profile), dark_edges(self._profile))
        overlay = self._title.find() or self._overlays.find(letterbox.found.inside(*self._size), known)
        return _ShotParts(letterbox, overlay, is_black(self._profile))


class StillPartsMeter:
    """Measures some frames of a film while its cuts are being searched."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, np.ndarray]] = deque()  # frames that a cut may still come before
        self._meter = _ShotMeter()
        self._known: deque[KnownOverlay] = deque(maxlen=MAX_KNOWN)
        self._starts = [0]  # of the shots so far
        self._shots: list[_ShotParts | None] = []  # all but the last

    def add(
        self,
        number: int,  # of the frame, in order
        image: np.ndarray,  # uint8 [H, W, 3]
    ) -> None:
        """Measure a frame of the film, before cuts are searched in it."""
        self._measure_before(number - CUT_DELAY_FRAMES)
        self._waiting.append((number, image))

    def cut(self, number: int) -> None:
        """Begin a shot with this frame; at most CUT_DELAY_FRAMES frames after it have been added."""
        self._measure_before(number)
        self._end_shot()
        self._starts.append(number)

    def still_parts(self, shots: Sequence[tuple[int, int]]) -> list[StillParts]:
        """Return the still parts of these shots of the film: those of `cut`, or several of them together."""
        self._measure_before(shots[-1][1])
        self._end_shot()
        joined = [self._join(start, stop) for start, stop in shots]
        letterboxes = agree([shot.letterbox for shot in joined], [stop - start for start, stop in shots])
        return [StillParts(box, shot.overlay) for box, shot in zip(letterboxes, joined, strict=True)]

    def _measure_before(self, number: int) -> None:
        while self._waiting and self._waiting[0][0] < number:
            self._meter.add(self._waiting.popleft()[1])

    def _end_shot(self) -> None:
        self._shots.append(self._meter.measured(self._known))
        self._meter = _ShotMeter()

    def _join(self, start: int, stop: int) -> _ShotParts:
        inside = slice(bisect_left(self._starts, start), bisect_left(self._starts, stop))
        measured = [shot for shot in self._shots[inside] if shot is not None]
        # A black tail says nothing of the shot that it is joined to.
        shots = [shot for shot in measured if not shot.is_black] or measured
        found, dark = (
            intersection(*sides) for sides in zip(*(shot.letterbox for shot in shots), strict=True)
        )
        overlays = {shot.overlay for shot in shots}
        overlay = overlays.pop() if len(overlays) == 1 else b""
        return _ShotParts(ShotLetterbox(found, dark), overlay, shots[0].is_black)
