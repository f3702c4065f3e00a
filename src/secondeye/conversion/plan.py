"""What a conversion will do, found in one pass over the film: its time stamps and its shots."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np

from secondeye.shots import find_cuts
from secondeye.video.probe import BadFilm, FilmBroke, FilmInfo
from secondeye.video.read import read_pictures

_CUT_WIDTH = 256  # px of the pictures in which cuts are looked for
_CUT_THRESHOLD = 2.0  # a cut too many costs little; a missed one mixes two scenes' depths
_MIN_SHOT_SECONDS = 0.25


@dataclass(frozen=True)
class Plan:
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


def make_plan(
    info: FilmInfo,
    seen: Callable[[], None],  # called once a frame
) -> Plan:
    """Decode the film once. Raises BadFilm when no frame of it decodes."""
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

    shortest = max(2, round(_MIN_SHOT_SECONDS * info.fps))
    cuts, frames = find_cuts(pictures(), info.fps, threshold=_CUT_THRESHOLD, min_shot_frames=shortest)
    if not frames:
        raise BadFilm(f"{info.path}: not one of its frames decodes")
    bounds = [0, *cuts, frames]
    return Plan(info, stamps, list(pairwise(bounds)), "".join(broken))
