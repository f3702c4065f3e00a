"""Scan a stereo film in one pass: shots, timestamps, letterbox and frame checks."""

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
from secondeye.system.text import pluralize
from secondeye.video.probe import TruncatedFilm, UnreadableFilm

_LETTERBOX_FPS = 4  # small frames per second that are searched for a letterbox
_FULL_FRAMES = 9  # frames at full size that make the letterbox pixel-exact
_UNEVEN = Fraction(1, 10)  # of the median frame duration
_GAP_FRAMES, _GAP_SECONDS = 4, Fraction(1, 2)  # a timestamp step longer than both is a gap

Profiles = tuple[LevelProfile, LevelProfile]  # of the left and the right view


@dataclass(frozen=True)
class Scan:
    """Measurements of the part of a film that decodes."""

    info: ViewInfo
    timestamps: list[int]  # of every frame, ticks
    seconds: list[Fraction]  # start of every frame and end of the last one, with gaps closed
    shots: list[tuple[int, int]]  # first frame, one past the last; fades belong to none
    checks: list[FrameCheck]  # of every frame of the left view
    letterbox: Letterbox  # px of one view at full size
    remark: str  # uneven frame rate, dropped, skipped or damaged frames, early end; "" if there is none

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """Frames between shots: first frame, one past the last."""
        starts, stops = [start for start, _ in self.shots], [stop for _, stop in self.shots]
        edges = zip([0, *stops], [*starts, len(self.timestamps)], strict=True)
        return [(start, stop) for start, stop in edges if start < stop]


def scan(source: Source, *, cut_threshold: float, min_shot_frames: int) -> Scan:
    """Decode a film once at a small size, and a few frames at full size.

    Raises UnreadableFilm if no frame decodes.
    """
    info = view_info(source)
    small = cut_detection_size(info.height, info.width)
    profile_stride = max(1, round(info.fps / _LETTERBOX_FPS))
    timestamps: list[int] = []
    checks: list[FrameCheck] = []
    profiles: list[Profiles] = []  # the maximum over all frames so far
    remarks: list[str] = []
    damaged: list[int] = []  # frames
    lost: list[int] = []  # for each picture that did not decode, the frame after it
    after_gap: list[int] = []  # frames

    def left_views() -> Iterator[np.ndarray]:
        previous = None
        try:
            for count, frame in enumerate(read_stereo_frames(source, size=small, log=remarks.append)):
                timestamps.append(frame.pts)
                damaged.extend([count] * frame.damaged)
                lost.extend([count] * frame.lost_before)
                after_gap.extend([count] * frame.after_gap)
                checks.append(check_frame(frame.left, previous))
                previous = frame.left
                if count % profile_stride == 0:
                    profiles[:] = [_max_profiles([*profiles, _profiles(frame)])]
                yield frame.left
        except TruncatedFilm as error:
            remarks.append(strip_paths(source, str(error)))

    cuts, frames = find_cuts(left_views(), info.fps, threshold=cut_threshold, min_shot_frames=min_shot_frames)
    if not frames:
        raise UnreadableFilm("none of its frames decodes")
    if info.interlaced:
        remarks.append("deinterlaced")
    if info.hdr:
        remarks.append(f"tone-mapped from {info.hdr}")
    if damaged:
        remarks.append(f"damaged frames: {len(damaged)}, first {damaged[0]}")
    if lost:
        remarks.append(
            f"skipped since they do not decode: {pluralize(len(lost), 'frame')}, first before frame {lost[0]}"
        )
    gaps = _find_gaps(timestamps, info.time_base)
    bright = [timestamps[k] for k in _bright_frames(checks)]
    return Scan(
        info=info,
        timestamps=timestamps,
        seconds=_seconds(timestamps, info, gaps),
        shots=find_shots([*cuts, *after_gap, *gaps], [check.blank for check in checks], min_shot_frames),
        checks=checks,
        letterbox=_letterbox(source, info, small, profiles[0], bright),
        remark="; ".join(filter(None, [_uneven_rate(timestamps, info.time_base), *remarks])),
    )


def _profiles(frame: StereoFrame) -> Profiles:
    return measure_profile(frame.left), measure_profile(frame.right)


def _max_profiles(profiles: Sequence[Profiles]) -> Profiles:
    lefts, rights = zip(*profiles, strict=True)
    return max_over_time(lefts), max_over_time(rights)


def _bright_frames(checks: Sequence[FrameCheck]) -> list[int]:
    """Return the brightest frame of each of a few equal parts of the film."""
    parts = min(_FULL_FRAMES, len(checks))
    bounds = pairwise(len(checks) * k // parts for k in range(parts + 1))
    return [max(range(*part), key=lambda frame: checks[frame].brightness) for part in bounds]


def _letterbox(
    source: Source, info: ViewInfo, small: tuple[int, int], coarse: Profiles, timestamps: Sequence[int]
) -> Letterbox:
    """Return the letterbox of both views at full size."""
    reader = ClipReader(source)
    fine = _max_profiles([_profiles(frame) for pts in timestamps for frame in reader.read(pts, 1)])
    size = info.height, info.width
    views = zip(coarse, fine, strict=True)
    return union(*(refine(find_letterbox(many), small, find_letterbox(few), size) for many, few in views))


def _find_gaps(timestamps: Sequence[int], time_base: Fraction) -> list[int]:
    """Return the frames that start after a gap in time; a clip does not span one."""
    steps = [after - before for before, after in pairwise(timestamps)]
    typical = median(steps) if steps else 0
    longest = max(_GAP_FRAMES * typical, _GAP_SECONDS / time_base)
    return [k for k, step in enumerate(steps, start=1) if step > longest]


def _seconds(timestamps: Sequence[int], info: ViewInfo, gaps: Sequence[int]) -> list[Fraction]:
    """Return frame start times; frames before a gap and the last one get the typical duration."""
    steps = [Fraction(after - before) for before, after in pairwise(timestamps)]
    typical = median(steps) if gaps else 1 / (info.fps * info.time_base)  # gaps distort the average rate
    for frame in gaps:
        steps[frame - 1] = typical
    ticks = accumulate([*steps, typical], initial=Fraction(timestamps[0]))
    return [tick * info.time_base for tick in ticks]


def _uneven_rate(timestamps: Sequence[int], time_base: Fraction) -> str:
    """Return a remark if the frame rate varies by more than rounding (one tick), else ""."""
    steps = [after - before for before, after in pairwise(timestamps)]
    if not steps or max(steps) - min(steps) <= max(Fraction(1), _UNEVEN * int(median(steps))):
        return ""
    low, high = (float(step * time_base * 1000) for step in (min(steps), max(steps)))
    return f"uneven frame rate, {low:.0f} to {high:.0f} ms between frames"
