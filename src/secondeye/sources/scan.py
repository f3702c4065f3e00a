"""What one pass over a stereo film finds: shots, time timestamps, borders, and how its frames look."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from statistics import median

import numpy as np

from secondeye.film.cuts import cut_detection_size, find_cuts
from secondeye.film.frame_checks import FrameCheck, check_frame
from secondeye.film.letterbox import (
    Letterbox,
    LevelProfile,
    find_letterbox,
    max_over_time,
    measure_profile,
    refine,
    union,
)
from secondeye.film.shots import find_shots
from secondeye.sources import Source, strip_paths
from secondeye.sources.clip_reader import ClipReader
from secondeye.sources.views import StereoFrame, ViewInfo, read_stereo_frames, view_info
from secondeye.video.probe import TruncatedFilm, UnreadableFilm

_BORDERS_A_SECOND = 4  # small pictures whose borders are looked at
_FULL_FRAMES = 9  # pictures at full size that give the borders their last pixel
_UNEVEN = Fraction(1, 10)  # of the usual step between two time timestamps
_GAP_STEPS, _GAP_SECONDS = 4, Fraction(1, 2)  # a step that is longer than both is no step of this film


@dataclass(frozen=True)
class Scan:
    """The part of a film that decodes."""

    info: ViewInfo
    timestamps: list[int]  # time stamp of every frame, ticks
    seconds: list[Fraction]  # at which every frame begins, and the last one ends, were there no gaps in time
    shots: list[tuple[int, int]]  # first frame, one past the last; a fade belongs to none
    looks: list[FrameCheck]  # of every frame of the left eye
    borders: Letterbox  # px of one eye at full size
    remark: str  # an uneven frame rate, frames left out or damaged, why the film ends early; "" for none

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """What lies between shots: first frame, one past the last."""
        starts, stops = [start for start, _ in self.shots], [stop for _, stop in self.shots]
        edges = zip([0, *stops], [*starts, len(self.timestamps)], strict=True)
        return [(start, stop) for start, stop in edges if start < stop]


def scan(source: Source, *, cut_threshold: float, min_shot_frames: int) -> Scan:
    """Decode the film once, small, and a few frames at full size.

    Raises UnreadableFilm when no frame decodes.
    """
    info = view_info(source)
    small = cut_detection_size(info.height, info.width)
    every = max(1, round(info.fps / _BORDERS_A_SECOND))
    timestamps: list[int] = []
    looks: list[FrameCheck] = []
    lines: list[tuple[LevelProfile, LevelProfile]] = []  # of both eyes, up to now
    told: list[str] = []
    damaged: list[int] = []  # frames
    jumps: list[int] = []  # frames that do not follow on the one before

    def lefts() -> Iterator[np.ndarray]:
        before = None
        try:
            for count, eyes in enumerate(read_stereo_frames(source, size=small, note=told.append)):
                timestamps.append(eyes.pts)
                damaged.extend([count] * eyes.damaged)
                jumps.extend([count] * eyes.jumps)
                looks.append(check_frame(eyes.left, before))
                before = eyes.left
                if count % every == 0:
                    lines[:] = [_brightest([*lines, _lines(eyes)])]
                yield eyes.left
        except TruncatedFilm as error:
            told.append(strip_paths(source, str(error)))

    cuts, frames = find_cuts(lefts(), info.fps, threshold=cut_threshold, min_shot_frames=min_shot_frames)
    if not frames:
        raise UnreadableFilm("not one of its frames decodes")
    if damaged:
        told.append(f"damaged pictures: {len(damaged)}, first frame {damaged[0]}")
    gaps = _gaps(timestamps, info.time_base)
    return Scan(
        info=info,
        timestamps=timestamps,
        seconds=_seconds(timestamps, info, gaps),
        shots=find_shots([*cuts, *jumps, *gaps], [look.blank for look in looks], min_shot_frames),
        looks=looks,
        borders=_borders(source, info, small, lines[0], [timestamps[k] for k in _bright_frames(looks)]),
        remark="; ".join(filter(None, [_uneven(timestamps, info.time_base), *told])),
    )


def _lines(eyes: StereoFrame) -> tuple[LevelProfile, LevelProfile]:
    return measure_profile(eyes.left), measure_profile(eyes.right)


def _brightest(found: Sequence[tuple[LevelProfile, LevelProfile]]) -> tuple[LevelProfile, LevelProfile]:
    lefts, rights = zip(*found, strict=True)
    return max_over_time(lefts), max_over_time(rights)


def _bright_frames(looks: Sequence[FrameCheck]) -> list[int]:
    """The max_over_time frame of each of a few equal parts of the film."""
    parts = min(_FULL_FRAMES, len(looks))
    bounds = pairwise(len(looks) * k // parts for k in range(parts + 1))
    return [max(range(*part), key=lambda frame: looks[frame].brightness) for part in bounds]


def _borders(
    source: Source,
    info: ViewInfo,
    small: tuple[int, int],
    coarse: tuple[LevelProfile, LevelProfile],
    timestamps: Sequence[int],
) -> Letterbox:
    """The borders of both eyes, at full size."""
    reader = ClipReader(source)
    fine = _brightest([_lines(eyes) for stamp in timestamps for eyes in reader.read(stamp, 1)])
    size = info.height, info.width
    both = zip(coarse, fine, strict=True)
    return union(*(refine(find_letterbox(many), small, find_letterbox(few), size) for many, few in both))


def _gaps(timestamps: Sequence[int], time_base: Fraction) -> list[int]:
    """Frames that come so long after the one before that time has jumped: no clip holds both."""
    steps = [after - before for before, after in pairwise(timestamps)]
    usual = median(steps) if steps else 0
    longest = max(_GAP_STEPS * usual, _GAP_SECONDS / time_base)
    return [k for k, step in enumerate(steps, start=1) if step > longest]


def _seconds(timestamps: Sequence[int], info: ViewInfo, gaps: Sequence[int]) -> list[Fraction]:
    """When frames begin; the one before a gap, and the last, are shown as long as most are."""
    steps = [Fraction(after - before) for before, after in pairwise(timestamps)]
    usual = median(steps) if gaps else 1 / (info.fps * info.time_base)  # gaps spoil the average rate
    for frame in gaps:
        steps[frame - 1] = usual
    return [stamp * info.time_base for stamp in accumulate([*steps, usual], initial=Fraction(timestamps[0]))]


def _uneven(timestamps: Sequence[int], time_base: Fraction) -> str:
    """Says so where the frame rate varies; one tick is rounding."""
    steps = [after - before for before, after in pairwise(timestamps)]
    if not steps or max(steps) - min(steps) <= max(Fraction(1), _UNEVEN * int(median(steps))):
        return ""
    low, high = (float(step * time_base * 1000) for step in (min(steps), max(steps)))
    return f"uneven frame rate, {low:.0f} to {high:.0f} ms between frames"
