"""Motion tracks to neighbouring frames, along the optical flow where forward and backward flow agree."""

from typing import NamedTuple

import numba
import numpy as np

from secondeye.imaging.optical_flow import MIN_FLOW_SIZE_PX, backward_warp, dense_flow, forward_backward_error

_MAX_ERROR_PX = 1.5  # forward-backward error
_MAX_COLOUR_DIFFERENCE = 20.0  # levels, mean over channels


class Track(NamedTuple):
    """Positions of a frame's pixels in another frame."""

    flow: np.ndarray  # float32 [H, W, 2] px
    visible: np.ndarray  # bool [H, W]: the pixel is visible there


class Tracks(NamedTuple):
    """Tracks of a clip from each frame to the next and the previous one, and its images."""

    adjacent_tracks: dict[tuple[int, int], Track]  # (frame, neighbour) -> track
    images: np.ndarray  # uint8 [T, H, W, 3]


def find_tracks(
    images: np.ndarray,  # uint8 [T, H, W, 3]
    grays: np.ndarray,  # uint8 [T, H, W]
) -> Tracks:
    """Track all pixels between adjacent frames; no tracks in frames too small for optical flow."""
    if min(grays.shape[1:]) < MIN_FLOW_SIZE_PX:
        return Tracks({}, images)
    adjacent_tracks = {}
    for frame in range(len(grays) - 1):
        forward = dense_flow(grays[frame], grays[frame + 1])
        backward = dense_flow(grays[frame + 1], grays[frame])
        adjacent_tracks[frame, frame + 1] = Track(
            forward, forward_backward_error(forward, backward) < _MAX_ERROR_PX
        )
        adjacent_tracks[frame + 1, frame] = Track(
            backward, forward_backward_error(backward, forward) < _MAX_ERROR_PX
        )
    return Tracks(adjacent_tracks, images)


def tracks_to_neighbours(
    tracks: Tracks,
    frame: int,
    reach: int,  # frames to both sides
) -> list[tuple[int, Track]]:
    """Return the frames within reach with the track to each: chained flows, checked by colour."""
    found = []
    for direction in (-1, 1):
        track = Track(*tracks.adjacent_tracks.get((frame, frame + direction), (None, None)))
        for other in range(frame + direction, frame + direction * (reach + 1), direction):
            if (next_track := tracks.adjacent_tracks.get((other - direction, other))) is None:
                break
            track = next_track if other == frame + direction else _concatenate(track, next_track)
            found.append((other, _check_colour(track, tracks.images[frame], tracks.images[other])))
    return found


def _concatenate(track: Track, next_track: Track) -> Track:
    visible = track.visible & (backward_warp(next_track.visible.astype(np.float32), track.flow) > 0.99)
    return Track(track.flow + backward_warp(next_track.flow, track.flow), visible)


def _check_colour(track: Track, image: np.ndarray, other_image: np.ndarray) -> Track:
    visible = _same_colour(image, backward_warp(other_image, track.flow), track.flow, track.visible)
    return Track(track.flow, visible)


@numba.njit(cache=True)
def _same_colour(
    image: np.ndarray, other_image: np.ndarray, flow: np.ndarray, visible: np.ndarray
) -> np.ndarray:
    """Mark visible pixels that land inside the other frame on a similar colour."""
    height, width = visible.shape
    same = np.zeros((height, width), np.bool_)
    for y in range(height):
        for x in range(width):
            column, row = x + flow[y, x, 0], y + flow[y, x, 1]
            if visible[y, x] and 0 <= column <= width - 1 and 0 <= row <= height - 1:
                levels = np.int32(0)
                for channel in range(3):
                    levels += abs(np.int32(image[y, x, channel]) - np.int32(other_image[y, x, channel]))
                same[y, x] = levels < 3 * _MAX_COLOUR_DIFFERENCE
    return same


@numba.njit(cache=True)
def add_visible(
    sums: np.ndarray, count: np.ndarray, flow: np.ndarray, visible: np.ndarray, other: np.ndarray
) -> None:
    """Add nearest-pixel samples of another frame's values [H, W, D] at visible pixels; increment counts."""
    height, width, depth = sums.shape
    for y in range(height):
        for x in range(width):
            if visible[y, x]:
                row = min(max(round(y + flow[y, x, 1]), 0), height - 1)
                column = min(max(round(x + flow[y, x, 0]), 0), width - 1)
                count[y, x] += 1
                for d in range(depth):
                    sums[y, x, d] += other[row, column, d]


@numba.njit(cache=True)
def average(sums: np.ndarray, count: np.ndarray) -> None:
    """Divide sums [H, W, D] by counts in place, rounding to the nearest integer."""
    height, width, depth = sums.shape
    for y in range(height):
        for x in range(width):
            share = np.float32(1) / np.float32(count[y, x])
            for d in range(depth):
                sums[y, x, d] = np.int16(np.float32(sums[y, x, d]) * share + np.float32(0.5))


@numba.njit(cache=True)
def fit_lines(
    values: np.ndarray,  # float32 [N, H, W]
    valid: np.ndarray,  # bool [N, H, W]; at least one True per pixel
    times: np.ndarray,  # float64 [N], in frames
    tolerance: float,
    stiffness: float,  # ridge term added to the variance of the times
) -> np.ndarray:  # float32 [H, W]
    """Fit a line per pixel, to the values within `tolerance` of their median; return its value at time 0."""
    samples, height, width = values.shape
    fitted = np.empty((height, width), np.float32)
    ordered = np.empty(samples, np.float32)
    for y in range(height):
        for x in range(width):
            count = 0
            for i in range(samples):
                if valid[i, y, x]:
                    position = count
                    while position > 0 and ordered[position - 1] > values[i, y, x]:
                        ordered[position] = ordered[position - 1]
                        position -= 1
                    ordered[position] = values[i, y, x]
                    count += 1
            median = (np.float64(ordered[(count - 1) // 2]) + ordered[count // 2]) / 2
            # Sums of few float32 values and small integer times are exact in float64, in any order.
            agreeing, value, time, times_squared, product = 0, 0.0, 0.0, 0.0, 0.0
            for i in range(samples):
                if valid[i, y, x] and abs(values[i, y, x] - median) <= tolerance:
                    agreeing += 1
                    value += values[i, y, x]
                    time += times[i]
                    times_squared += times[i] * times[i]
                    product += times[i] * values[i, y, x]
            if agreeing == 0:
                fitted[y, x] = median
                continue
            variance = times_squared - time * time / agreeing + stiffness
            covariance = product - time * value / agreeing
            slope = covariance / variance if variance > 0 else 0.0
            fitted[y, x] = (value - time * slope) / agreeing
    return fitted
