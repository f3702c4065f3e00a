"""Detect the hard cuts of a film."""

from collections.abc import Callable, Iterable
from fractions import Fraction

import numpy as np
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

CUT_WIDTH_PX = 256  # width of the frames that cuts are detected in
# A false cut costs little; a missed one mixes the depth of two scenes.
CUT_THRESHOLD = 2.0  # PySceneDetect's adaptive_threshold; its own default is 3
MIN_SHOT_SECONDS = 0.25
CUT_DELAY_FRAMES = 2  # the detector sees so many frames beyond a cut before it reports it


def cut_detection_size(height: int, width: int) -> tuple[int, int]:
    """Return the height and width of the small frames that cuts are detected in."""
    return max(2, round(height * CUT_WIDTH_PX / width)), CUT_WIDTH_PX


def shortest_shot_frames(fps: Fraction) -> int:
    """Return the number of frames in a shot of `MIN_SHOT_SECONDS`, at least 2."""
    return max(2, round(MIN_SHOT_SECONDS * fps))


def find_cuts(
    images: Iterable[np.ndarray],  # uint8 [h, w, 3] RGB, every frame of a film in order, may be small
    fps: Fraction,
    *,
    threshold: float,  # PySceneDetect's adaptive_threshold: how far a cut stands out from its neighbours
    min_shot_frames: int,
    on_cut: Callable[[int], object] = lambda frame: None,  # called CUT_DELAY_FRAMES later
) -> tuple[list[int], int]:  # first frame of every shot but the first, number of frames
    """Detect hard cuts with PySceneDetect's adaptive detector.

    A shot shorter than `min_shot_frames` is merged with its neighbour: the last of a film after `on_cut`.
    """
    detector = AdaptiveDetector(
        adaptive_threshold=threshold, min_scene_len=min_shot_frames, window_width=CUT_DELAY_FRAMES
    )
    cuts: set[int] = set()
    count = 0
    last = FrameTimecode(0, fps=fps)
    for count, image in enumerate(images, start=1):
        last = FrameTimecode(count - 1, fps=fps)
        bgr = np.ascontiguousarray(image[..., ::-1])
        for cut in detector.process_frame(last, bgr):
            cuts.add(cut.frame_num)
            on_cut(cut.frame_num)
    cuts.update(cut.frame_num for cut in detector.post_process(last))
    return sorted(cut for cut in cuts if min_shot_frames <= cut <= count - min_shot_frames), count
