"""A matcher for film, without weights: frames tell each other, along the optical flow, what they saw.

For every frame: the cost of each disparity is averaged with the same pixels' cost in the neighbouring frames,
so that grain and the codec's noise cancel; nearer answers cost a little more, since what shows nothing to
match is sky or wall more often than not; semi-global matching; left-right check; filling by colour. Last, a
line in time is fitted to each pixel's disparity in the frames around it that agree. Costs are averaged with
as many frames before as after, and a line follows what moves in depth: neither drags it behind.
Ours, from known parts; bidirectional alignment as in BiDAStereo (arXiv 2403.10755).
"""

import cv2
import numpy as np
import torch
from torch import Tensor

from secondeye.imaging.arrays import frames_to_uint8
from secondeye.imaging.optical_flow import backward_warp, to_gray
from secondeye.matching.census import matching_cost
from secondeye.matching.consistency import is_consistent
from secondeye.matching.gap_filling import fill_by_colour
from secondeye.matching.semi_global import Winners, best_disparities
from secondeye.matching.tracks import Tracks, add_seen, divide, find_tracks, fit_lines, neighbours

_COST_REACH = 2  # frames to either side whose costs are averaged
_NEARNESS = 20  # what the nearest answer costs more than the farthest, in levels of cost
_STEADY_REACH = 3  # frames to either side that a line is fitted to
_STEADY_ROUNDS = 2
_STIFFNESS = 2.0
_NEAR_PX = 1.0  # what differs by more from the median over time is another surface, or wrong
_LEAST_MARGIN = 75  # by which the best disparity must win, in the units of the eight summed paths
_SPECKLE_PIXELS, _SPECKLE_PX = 100, 1  # smaller pieces, cut off by steps larger than that, are no surface
_GRAIN = 5  # px: the median of a square that wide is taken
_FINER = 16  # OpenCV finds speckles in whole numbers


def match_video(
    left: Tensor,  # [T, 3, H, W]: one shot
    right: Tensor,  # [T, 3, H, W]
    *,
    max_disparity_px: int,  # searched are [0, this]
    tolerance_px: float,  # of the left-right check
) -> tuple[Tensor, Tensor]:  # disparity [T, 1, H, W] px, finite; consistent bool [T, 1, H, W]
    """Disparity of the left eye; a pixel is consistent where both eyes agree and it is no speckle."""
    eyes = [(frames_to_uint8(eye).numpy(), to_gray(eye)) for eye in (left, right)]
    tracks = find_tracks(*eyes[0])
    found = _match_frames(eyes, tracks, max_disparity_px + 1)
    consistent = _check(found, tolerance_px)
    filled = [_fill(*frame) for frame in zip(found, consistent, tracks.pictures, strict=True)]
    for _ in range(_STEADY_ROUNDS):
        filled = [_steady(filled, tracks, frame) for frame in range(len(filled))]
    return torch.from_numpy(np.stack(filled))[:, None], torch.from_numpy(consistent)[:, None]


def _match_frames(
    eyes: list[tuple[np.ndarray, np.ndarray]],  # pictures and greys of left and right
    tracks: Tracks,
    disparities: int,
) -> list[Winners]:
    """Only the costs of the frames within reach are held."""
    (left, left_grey), (right, right_grey) = eyes
    nearness = (_NEARNESS / disparities * np.arange(disparities)).astype(np.int16)
    costs: dict[int, np.ndarray] = {}
    found = []
    for frame in range(len(left)):
        for ahead in range(frame, min(frame + _COST_REACH + 1, len(left))):
            if ahead not in costs:
                pair = left[ahead], right[ahead], left_grey[ahead], right_grey[ahead]
                costs[ahead] = matching_cost(*pair, disparities)
        costs.pop(frame - _COST_REACH - 1, None)
        mean, count = costs[frame].astype(np.int16), np.ones(left_grey.shape[1:], np.int16)
        around = dict(neighbours(tracks, frame, _COST_REACH))
        for other, track in around.items():
            if opposite := around.get(2 * frame - other):
                add_seen(mean, count, track.flow, track.seen & opposite.seen, costs[other])
        divide(mean, count)
        mean += nearness
        found.append(_without_grain(best_disparities(mean, left_grey[frame])))
    return found


def _check(found: list[Winners], tolerance_px: float) -> np.ndarray:
    """Where both eyes' disparities agree, bool [T, H, W]."""
    left, right = (torch.from_numpy(np.stack(eye))[:, None] for eye in list(zip(*found, strict=True))[:2])
    agreed = is_consistent(left, right, tolerance_px)[:, 0].numpy()
    return np.stack([_without_speckles(*frame) for frame in zip(left[:, 0].numpy(), agreed, strict=True)])


def _fill(found: Winners, consistent: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """One frame's disparity [H, W] without gaps and grain; an answer that hardly won is a gap, too."""
    believed = _without_speckles(found.left, consistent & (found.margin >= _LEAST_MARGIN))
    return cv2.medianBlur(fill_by_colour(found.left, believed, picture), _GRAIN)


def _without_grain(found: Winners) -> Winners:
    left, right = (cv2.medianBlur(disparity, _GRAIN) for disparity in found[:2])
    return Winners(left, right, found.margin)


def _without_speckles(disparity: np.ndarray, known: np.ndarray) -> np.ndarray:
    steps = np.where(known, np.round(disparity * _FINER), -_FINER).astype(np.int16)
    cv2.filterSpeckles(steps, -_FINER, _SPECKLE_PIXELS, _SPECKLE_PX * _FINER)
    return known & (steps >= 0)


def _steady(disparity: list[np.ndarray], tracks: Tracks, frame: int) -> np.ndarray:
    """One frame's disparity [H, W], as a line through it and its neighbours says."""
    values, seen, times = [disparity[frame]], [np.ones(disparity[frame].shape, bool)], [0.0]
    for other, track in neighbours(tracks, frame, _STEADY_REACH):
        values.append(backward_warp(disparity[other], track.flow))
        seen.append(track.seen)
        times.append(float(other - frame))
    return fit_lines(np.stack(values), np.stack(seen), np.array(times), _NEAR_PX, _STIFFNESS)
