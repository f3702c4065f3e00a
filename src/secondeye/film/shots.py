"""What one pass over a film finds: its time stamps, its shots, and where it breaks off."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np

from secondeye.film.cuts import find_cuts
from secondeye.video.probe import BadFilm, FilmBroke, FilmInfo
from secondeye.video.read import read_pictures

_CUT_WIDTH = 256  # px of the pictures in which cuts are looked for


@dataclass(frozen=True)
class ShotPlan:
    """The part of a film that decodes, shot by shot."""

    info: FilmInfo
    stamps: list[int]  # time stamp of every good frame, ticks of info.time_base
    shots: list[tuple[int, int]]  # first frame, one past the last
    broken: str  # why the film ends early; "" when it does not

    @property
    def until(self) -> Fraction:
        """The second at which the last good frame ends."""
        last = self.stamps[-1] * self.info.time_base
        return last + 1 / self.info.fps


def plan_shots(
    info: FilmInfo,
    *,
    cut_threshold: float,  # PySceneDetect's adaptive_threshold
    min_shot_frames: int,
    seen: Callable[[], object],  # called once a frame
) -> ShotPlan:
    """Decode the film once, small. Raises BadFilm when no frame of it decodes."""
    stamps: list[int] = []
    broken: list[str] = []

    def pictures() -> Iterator[np.ndarray]:
        size = (max(2, round(info.height * _CUT_WIDTH / info.width)), _CUT_WIDTH)
        try:
            for picture in read_pictures(info.path, size=size):
                stamps.append(picture.pts)
                seen()
                yield picture.rgb
        except FilmBroke as error:
            broken.append(str(error))

    cuts, frames = find_cuts(pictures(), info.fps, threshold=cut_threshold, min_shot_frames=min_shot_frames)
    if not frames:
        raise BadFilm(f"{info.path}: not one of its frames decodes")
    bounds = [0, *cuts, frames]
    return ShotPlan(info, stamps, list(pairwise(bounds)), "".join(broken))
