"""Where a film cuts from one shot to the next."""

from collections.abc import Iterable
from fractions import Fraction

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
