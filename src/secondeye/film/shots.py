"""Shots of a film: planning them in one pass, separating fades, trimming ends, splitting into pieces."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import ceil

import numpy as np

from secondeye.film.cuts import cut_detection_size, find_cuts
from secondeye.film.still_parts import StillParts, StillPartsMeter
from secondeye.film.view import frame_decoder
from secondeye.system.threads import prefetch
from secondeye.video.probe import FilmInfo, TruncatedFilm, UnreadableFilm

_PLACES = 5  # of skipped frames that a warning names
_FRAMES_AHEAD = 16  # small frames, decoded while earlier ones are searched for cuts


@dataclass(frozen=True)
class ShotPlan:
    """The shots of the part of a film that decodes."""

    info: FilmInfo
    timestamps: list[int]  # of every frame that decodes, in ticks of info.time_base
    shots: list[tuple[int, int]]  # first frame, one past the last
    error: str  # why the film ends early; "" if it does not
    lost: list[int]  # for each picture that did not decode and was skipped, the frame after it
    concealed: list[int]  # frames with errors in which the decoder repeated other parts of the film
    still: list[StillParts]  # of each shot

    @property
    def damage(self) -> str:
        """What of the film could not be decoded, and where; "" for a whole film."""
        found = []
        if self.lost:
            skipped = f"frames that do not decode: {len(self.lost)}, skipped before {self._places(self.lost)}"
            found.append(f"{self.info.path}: {skipped}")
        if self.concealed:
            filled = f"frames that decode in part: {len(self.concealed)}, at {self._places(self.concealed)}"
            found.append(f"{self.info.path}: {filled}")
        return "; ".join(filter(None, [*found, self.error]))

    def _places(self, frames: Sequence[int]) -> str:
        """Return the times of the first of these frames, as players count them: from the first frame."""
        different = list(dict.fromkeys(frames))
        first = 0 if 0 in self.lost else self.timestamps[0]  # of a film whose first frame is known
        ticks = [self.timestamps[frame] - first for frame in different[:_PLACES]]
        seconds = [float(each * self.info.time_base) for each in ticks]
        more = ", ..." if len(different) > _PLACES else ""
        return f"{', '.join(f'{each:.2f}' for each in seconds)}{more} s"

    @property
    def end_seconds(self) -> Fraction:
        """Time at which the last frame that decodes ends, in seconds."""
        return self.timestamps[-1] * self.info.time_base + 1 / self.info.fps


def plan_shots(
    info: FilmInfo,
    *,
    cut_threshold: float,  # PySceneDetect's adaptive_threshold
    min_shot_frames: int,
    on_frame: Callable[[], object] = lambda: None,  # called once per frame
) -> ShotPlan:
    """Find the shots of a film, and what stands still in each, by decoding it once.

    Cuts are searched at a small size; still parts at full size, in one of `min_shot_frames` frames: a shot
    has at least one. Raises UnreadableFilm when none of the frames decodes, or fewer than do not.
    """
    timestamps: list[int] = []
    lost: list[int] = []
    concealed: list[int] = []
    errors: list[str] = []
    still = StillPartsMeter()

    def images() -> Iterator[np.ndarray]:
        try:
            size = cut_detection_size(info.height, info.width)
            frames = frame_decoder(info)(info.path, size=size, whole_every=min_shot_frames)
            for frame in prefetch(frames, _FRAMES_AHEAD):
                lost.extend([len(timestamps)] * frame.lost_before)
                concealed.extend([len(timestamps)] * frame.damaged)
                if frame.whole is not None:
                    still.add(len(timestamps), frame.whole)
                timestamps.append(frame.pts)
                on_frame()
                yield frame.rgb
        except TruncatedFilm as error:
            errors.append(str(error))

    cuts, frames = find_cuts(
        images(), info.fps, threshold=cut_threshold, min_shot_frames=min_shot_frames, on_cut=still.cut
    )
    if not frames:
        raise UnreadableFilm(f"{info.path}: none of its frames decodes")
    shots = list(pairwise([0, *cuts, frames]))
    return ShotPlan(info, timestamps, shots, "".join(errors), lost, concealed, still.still_parts(shots))


def find_shots(
    cuts: Sequence[int],  # first frames of shots
    blank: Sequence[bool],  # per frame; blank frames separate shots and belong to none
    min_shot_frames: int,  # a shorter run next to blank frames is part of a fade
) -> list[tuple[int, int]]:  # first frame, one past the last
    """Return the shots between cuts and blank frames."""
    frames = len(blank)
    edges = {0, frames, *cuts} | {k for k in range(1, frames) if blank[k] != blank[k - 1]}

    def is_shot(start: int, stop: int) -> bool:
        fading = (start > 0 and blank[start - 1]) or (stop < frames and blank[stop])
        return not blank[start] and (stop - start >= min_shot_frames or not fading)

    return [span for span in pairwise(sorted(edges)) if is_shot(*span)]


def trim_shot(
    seconds: Sequence[Fraction],  # start of every frame of the film, and the end of the last one
    start: int,
    stop: int,
    trim_seconds: Fraction,
) -> tuple[int, int]:  # start == stop when nothing is left
    """Drop frames within `trim_seconds` of a cut; the film's own start and end are not trimmed."""
    first = bisect_left(seconds, seconds[start] + trim_seconds) if start else 0
    last = stop
    if stop < len(seconds) - 1:
        last = bisect_right(seconds, seconds[stop] - trim_seconds) - 1
    return (first, last) if first < last else (start, start)


def split_shot(
    seconds: Sequence[Fraction],  # as in `trim_shot`
    start: int,
    stop: int,
    max_seconds: Fraction,
    min_frames: int,
) -> list[tuple[int, int]]:
    """Split a shot into as few equal pieces as `max_seconds` allows, none shorter than `min_frames`.

    Half a frame over the maximum is accepted, since timestamps are rounded.
    """
    frames, duration = stop - start, seconds[stop] - seconds[start]
    most = frames // max(1, min_frames)
    allowed = max_seconds + duration / frames / 2
    fewest = min(most, ceil(duration / allowed))
    pieces: list[tuple[int, int]] = []
    for count in range(fewest, min(most, 2 * fewest) + 1):  # a film with gaps may need more than the fewest
        pieces = list(pairwise(start + frames * k // count for k in range(count + 1))) if count else []
        if all(seconds[b] - seconds[a] <= allowed for a, b in pieces):
            break
    return pieces
