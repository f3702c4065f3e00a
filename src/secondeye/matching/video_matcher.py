"""Stereo matching for video, without weights: neighbouring frames share evidence along the optical flow.

Per frame: average the matching costs with those of the same pixels in neighbouring frames, which suppresses
grain and codec noise; add a small cost for nearer disparities, because untextured regions are mostly sky or
wall; semi-global matching; left-right check; filling by colour. Finally a line in time is fitted to each
pixel's disparity over the neighbouring frames that agree. Costs are averaged over as many frames before as
after, and a line follows motion in depth, so nothing lags.

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
from secondeye.matching.semi_global import BestDisparities, best_disparities
from secondeye.matching.tracks import (
    Tracks,
    add_visible,
    average,
    find_tracks,
    fit_lines,
    tracks_to_neighbours,
)

_COST_REACH = 2  # frames to both sides whose costs are averaged
_NEARNESS_COST = 20  # additional cost of the nearest disparity
_SMOOTHING_REACH = 3  # frames to both sides in the line fit
_SMOOTHING_ROUNDS = 2
_STIFFNESS = 2.0  # ridge term of the line fit: few or close frames must not tilt the line
_OUTLIER_PX = 1.0  # larger deviations from the temporal median are another surface or a mismatch
_MIN_MARGIN = 75  # smallest margin of a reliable disparity, in cost units of the eight summed paths
_SPECKLE_AREA, _SPECKLE_PX = 100, 1  # smaller segments, separated by larger steps, are speckles
_MEDIAN_SIZE = 5  # px, of the median filter
_SUBPIXELS = 16  # OpenCV filters speckles in integers


def match_video(
    left: Tensor,  # [T, 3, H, W]: one shot
    right: Tensor,  # [T, 3, H, W]
    *,
    max_disparity_px: int,  # search range is [0, this]
    tolerance_px: float,  # of the left-right check
) -> tuple[Tensor, Tensor]:  # disparity [T, 1, H, W] px, finite; consistent bool [T, 1, H, W]
    """Match one shot; a pixel is consistent where both views agree and it is not a speckle."""
    views = [(frames_to_uint8(view).numpy(), to_gray(view)) for view in (left, right)]
    tracks = find_tracks(*views[0])
    matched = _match_frames(views, tracks, max_disparity_px + 1)
    consistent = _check(matched, tolerance_px)
    filled = [_fill(*frame) for frame in zip(matched, consistent, tracks.images, strict=True)]
    for _ in range(_SMOOTHING_ROUNDS):
        filled = [_smooth_in_time(filled, tracks, frame) for frame in range(len(filled))]
    return torch.from_numpy(np.stack(filled))[:, None], torch.from_numpy(consistent)[:, None]


def _match_frames(
    views: list[tuple[np.ndarray, np.ndarray]],  # (images, gray images) of left and right
    tracks: Tracks,
    disparities: int,
) -> list[BestDisparities]:
    """Match every frame; only the costs of frames within reach are kept in memory."""
    (left, left_gray), (right, right_gray) = views
    nearness_cost = (_NEARNESS_COST / disparities * np.arange(disparities)).astype(np.int16)
    costs: dict[int, np.ndarray] = {}
    matched = []
    for frame in range(len(left)):
        for ahead in range(frame, min(frame + _COST_REACH + 1, len(left))):
            if ahead not in costs:
                pair = left[ahead], right[ahead], left_gray[ahead], right_gray[ahead]
                costs[ahead] = matching_cost(*pair, disparities)
        costs.pop(frame - _COST_REACH - 1, None)
        mean, count = costs[frame].astype(np.int16), np.ones(left_gray.shape[1:], np.int16)
        tracks_around = dict(tracks_to_neighbours(tracks, frame, _COST_REACH))
        for other, track in tracks_around.items():
            if opposite := tracks_around.get(2 * frame - other):
                add_visible(mean, count, track.flow, track.visible & opposite.visible, costs[other])
        average(mean, count)
        mean += nearness_cost
        matched.append(_median_filter(best_disparities(mean, left_gray[frame])))
    return matched


def _check(matched: list[BestDisparities], tolerance_px: float) -> np.ndarray:
    """Return where both views' disparities agree, bool [T, H, W]."""
    left, right = (torch.from_numpy(np.stack(view))[:, None] for view in list(zip(*matched, strict=True))[:2])
    consistent = is_consistent(left, right, tolerance_px)[:, 0].numpy()
    return np.stack([_remove_speckles(*frame) for frame in zip(left[:, 0].numpy(), consistent, strict=True)])


def _fill(matched: BestDisparities, consistent: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Return one frame's disparity [H, W], median-filtered, with unreliable values filled by colour."""
    reliable = _remove_speckles(matched.left, consistent & (matched.margin >= _MIN_MARGIN))
    return cv2.medianBlur(fill_by_colour(matched.left, reliable, image), _MEDIAN_SIZE)


def _median_filter(matched: BestDisparities) -> BestDisparities:
    left, right = (cv2.medianBlur(disparity, _MEDIAN_SIZE) for disparity in matched[:2])
    return BestDisparities(left, right, matched.margin)


def _remove_speckles(disparity: np.ndarray, known: np.ndarray) -> np.ndarray:
    steps = np.where(known, np.round(disparity * _SUBPIXELS), -_SUBPIXELS).astype(np.int16)
    cv2.filterSpeckles(steps, -_SUBPIXELS, _SPECKLE_AREA, _SPECKLE_PX * _SUBPIXELS)
    return known & (steps >= 0)


def _smooth_in_time(disparity: list[np.ndarray], tracks: Tracks, frame: int) -> np.ndarray:
    """Return one frame's disparity [H, W] from a line through it and its neighbours in time."""
    values, visible, times = [disparity[frame]], [np.ones(disparity[frame].shape, bool)], [0.0]
    for other, track in tracks_to_neighbours(tracks, frame, _SMOOTHING_REACH):
        values.append(backward_warp(disparity[other], track.flow))
        visible.append(track.visible)
        times.append(float(other - frame))
    return fit_lines(np.stack(values), np.stack(visible), np.array(times), _OUTLIER_PX, _STIFFNESS)
