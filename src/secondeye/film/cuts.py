"""Where a film cuts from one shot to the next, and the pieces its shots are cut into."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise
from math import ceil

import numpy as np
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector


def find_cuts(
    pictures: Iterable[np.ndarray],  # uint8 [h, w, 3] RGB, all of a film in order; small ones will do
    fps: Fraction,
    *,
    threshold: float,  # PySceneDetect's adaptive_threshold: how much a cut stands out from its neighbours
    min_shot_frames: int,
) -> tuple[list[int], int]:  # first frames of all shots but the first, number of frames
    """Find hard cuts with PySceneDetect's adaptive detector.

    A shot shorter than `min_shot_frames` is not told apart from its neighbour.
    """
    detector = AdaptiveDetector(adaptive_threshold=threshold, min_scene_len=min_shot_frames)
    cuts: set[int] = set()
    count = 0
    last = FrameTimecode(0, fps=fps)
    for count, picture in enumerate(pictures, start=1):
        last = FrameTimecode(count - 1, fps=fps)
        bgr = np.ascontiguousarray(picture[..., ::-1])
        cuts.update(cut.frame_num for cut in detector.process_frame(last, bgr))
    cuts.update(cut.frame_num for cut in detector.post_process(last))
    return sorted(cut for cut in cuts if min_shot_frames <= cut <= count - min_shot_frames), count


def find_shots(
    cuts: Sequence[int],  # first frames of shots
    blank: Sequence[bool],  # of every frame; blank ones lie between shots and belong to none
    min_shot_frames: int,  # what is shorter and next to blank frames is part of the fade
) -> list[tuple[int, int]]:  # first frame, one past the last
    """The shots of a film, where cuts and blank pictures part them."""
    frames = len(blank)
    edges = {0, frames, *cuts} | {k for k in range(1, frames) if blank[k] != blank[k - 1]}

    def is_shot(start: int, stop: int) -> bool:
        fading = (start > 0 and blank[start - 1]) or (stop < frames and blank[stop])
        return not blank[start] and (stop - start >= min_shot_frames or not fading)

    return [piece for piece in pairwise(sorted(edges)) if is_shot(*piece)]


def trim_shot(
    seconds: Sequence[Fraction],  # at which each frame of the film begins, and the last one ends
    start: int,
    stop: int,
    trim_seconds: Fraction,
) -> tuple[int, int]:  # start == stop where nothing is left
    """Leave out what lies that close to a shot's ends; not at the film's own beginning and end."""
    first = bisect_left(seconds, seconds[start] + trim_seconds) if start else 0
    last = stop
    if stop < len(seconds) - 1:
        last = bisect_right(seconds, seconds[stop] - trim_seconds) - 1
    return (first, last) if first < last else (start, start)


def cut_pieces(
    seconds: Sequence[Fraction],  # as in `trim_shot`
    start: int,
    stop: int,
    longest_seconds: Fraction,
    shortest: int,  # frames
) -> list[tuple[int, int]]:
    """As few pieces of equally many frames as keep to the longest, none shorter than `shortest`.

    Half a frame more than the longest is let pass: time stamps are rounded.
    """
    frames, lasts = stop - start, seconds[stop] - seconds[start]
    most = frames // max(1, shortest)
    allowed = longest_seconds + lasts / frames / 2
    fewest = min(most, ceil(lasts / allowed))
    pieces: list[tuple[int, int]] = []
    for count in range(fewest, min(most, 2 * fewest) + 1):  # a film with gaps may need more than the fewest
        pieces = list(pairwise(start + frames * k // count for k in range(count + 1))) if count else []
        if all(seconds[b] - seconds[a] <= allowed for a, b in pieces):
            break
    return pieces
