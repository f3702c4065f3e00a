"""Neighbouring frames seen from a frame: along the optical flow, and only where the way back agrees."""

from typing import NamedTuple

import numba
import numpy as np

from secondeye.imaging.optical_flow import MIN_FLOW_SIZE_PX, backward_warp, dense_flow, forward_backward_error

_LARGEST_MISS_PX = 1.5  # going to the neighbour and back
_LARGEST_COLOUR_DIFFERENCE = 20.0  # levels, mean over channels


class Track(NamedTuple):
    """Where a frame's pixels are found in another frame."""

    flow: np.ndarray  # float32 [H, W, 2] px
    seen: np.ndarray  # bool [H, W]: they are found there


class Tracks(NamedTuple):
    """The tracks of a clip from each frame to the next and to the one before, and its pictures."""

    steps: dict[tuple[int, int], Track]
    pictures: np.ndarray  # uint8 [T, H, W, 3]


def find_tracks(
    pictures: np.ndarray,  # uint8 [T, H, W, 3]
    greys: np.ndarray,  # uint8 [T, H, W]
) -> Tracks:
    """No tracks in pictures smaller than flow can see."""
    if min(greys.shape[1:]) < MIN_FLOW_SIZE_PX:
        return Tracks({}, pictures)
    steps = {}
    for here in range(len(greys) - 1):
        there = dense_flow(greys[here], greys[here + 1])
        back = dense_flow(greys[here + 1], greys[here])
        steps[here, here + 1] = Track(there, forward_backward_error(there, back) < _LARGEST_MISS_PX)
        steps[here + 1, here] = Track(back, forward_backward_error(back, there) < _LARGEST_MISS_PX)
    return Tracks(steps, pictures)


def neighbours(
    tracks: Tracks,
    frame: int,
    reach: int,  # frames to either side
) -> list[tuple[int, Track]]:
    """The other frames within reach, each with the track to it: steps joined, colours compared."""
    found = []
    for way in (-1, 1):
        track = Track(*tracks.steps.get((frame, frame + way), (None, None)))
        for other in range(frame + way, frame + way * (reach + 1), way):
            if (step := tracks.steps.get((other - way, other))) is None:
                break
            track = step if other == frame + way else _join(track, step)
            found.append((other, _compare(track, tracks.pictures[frame], tracks.pictures[other])))
    return found


def _join(track: Track, step: Track) -> Track:
    seen = track.seen & (backward_warp(step.seen.astype(np.float32), track.flow) > 0.99)
    return Track(track.flow + backward_warp(step.flow, track.flow), seen)


def _compare(track: Track, here: np.ndarray, there: np.ndarray) -> Track:
    seen = _same_colour(here, backward_warp(there, track.flow), track.flow, track.seen)
    return Track(track.flow, seen)


@numba.njit(cache=True)
def _same_colour(here: np.ndarray, there: np.ndarray, flow: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Where a pixel that is seen also lies inside the other picture and has its colour there."""
    height, width = seen.shape
    same = np.zeros((height, width), np.bool_)
    for y in range(height):
        for x in range(width):
            column, row = x + flow[y, x, 0], y + flow[y, x, 1]
            if seen[y, x] and 0 <= column <= width - 1 and 0 <= row <= height - 1:
                levels = np.int32(0)
                for channel in range(3):
                    levels += abs(np.int32(here[y, x, channel]) - np.int32(there[y, x, channel]))
                same[y, x] = levels < 3 * _LARGEST_COLOUR_DIFFERENCE
    return same


@numba.njit(cache=True)
def add_seen(
    total: np.ndarray, count: np.ndarray, flow: np.ndarray, seen: np.ndarray, other: np.ndarray
) -> None:
    """Add another frame's values [H, W, D], at the nearest pixel, to those that see it, and count them."""
    height, width, depth = total.shape
    for y in range(height):
        for x in range(width):
            if seen[y, x]:
                row = min(max(round(y + flow[y, x, 1]), 0), height - 1)
                column = min(max(round(x + flow[y, x, 0]), 0), width - 1)
                count[y, x] += 1
                for d in range(depth):
                    total[y, x, d] += other[row, column, d]


@numba.njit(cache=True)
def divide(total: np.ndarray, count: np.ndarray) -> None:
    """Sums [H, W, D] become means, to the nearest whole number."""
    height, width, depth = total.shape
    for y in range(height):
        for x in range(width):
            share = np.float32(1) / np.float32(count[y, x])
            for d in range(depth):
                total[y, x, d] = np.int16(np.float32(total[y, x, d]) * share + np.float32(0.5))


@numba.njit(cache=True)
def fit_lines(
    values: np.ndarray,  # float32 [N, H, W]
    valid: np.ndarray,  # bool [N, H, W]; one of them at least everywhere
    times: np.ndarray,  # float64 [N], whole frames
    near: float,
    stiffness: float,  # against slope: as much as that many frames at distance 1
) -> np.ndarray:  # float32 [H, W]
    """Each pixel's value at time 0, of a line through all values no further than `near` from their median."""
    many, height, width = values.shape
    fitted = np.empty((height, width), np.float32)
    ordered = np.empty(many, np.float32)
    for y in range(height):
        for x in range(width):
            count = 0
            for i in range(many):
                if valid[i, y, x]:
                    place = count
                    while place > 0 and ordered[place - 1] > values[i, y, x]:
                        ordered[place] = ordered[place - 1]
                        place -= 1
                    ordered[place] = values[i, y, x]
                    count += 1
            median = (np.float64(ordered[(count - 1) // 2]) + ordered[count // 2]) / 2
            # Sums of few float32 values and small whole times are exact in float64: no order matters.
            agreeing, value, time, times_squared, product = 0, 0.0, 0.0, 0.0, 0.0
            for i in range(many):
                if valid[i, y, x] and abs(values[i, y, x] - median) <= near:
                    agreeing += 1
                    value += values[i, y, x]
                    time += times[i]
                    times_squared += times[i] * times[i]
                    product += times[i] * values[i, y, x]
            if agreeing == 0:
                fitted[y, x] = median
                continue
            spread = times_squared - time * time / agreeing + stiffness
            rise = product - time * value / agreeing
            slope = rise / spread if spread > 0 else 0.0
            fitted[y, x] = (value - time * slope) / agreeing
    return fitted
