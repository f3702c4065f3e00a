"""Depth that needs no weights: what moves more is nearer, and where nothing moves, habits of cameras count.

For each frame the flow to frames k before and after, k such that the flow is a few pixels, gives a map of
motion. What a homography leaves over of it says whether that motion can mean depth at all: nothing is left
over when the camera stands, turns or zooms. With that trust the map is mixed with the position prior.
Maps are carried along the flow from frame to frame, so that an object which stops keeps its depth for a
while. All of it is ours; the parts cite their papers.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from secondeye.depth import DepthEstimate
from secondeye.depth.guided_filter import guided_filter
from secondeye.depth.position_prior import position_prior
from secondeye.depth.residual_flow import homography_residual
from secondeye.imaging.optical_flow import (
    MIN_FLOW_SIZE_PX,
    backward_warp,
    dense_flow,
    flow_magnitude,
    forward_backward_error,
)

LONG_SIDE_PX = 384  # working size
REACH_FRAMES = 12  # look-ahead, and the largest k
WANTED_FLOW_PX = 5.0  # of the fast pixels, at working size
MISMATCH_PX = 1.0  # there-and-back error at which a flow vector counts half
LEAST_PARALLAX_PX = 0.3  # with these two motion is trusted by half; the flow's own noise is half of both
LEAST_PARALLAX_SHARE = 0.2  # of the fast pixels' flow; turning and zooming leave 0.13, parallax 0.26 up
SMOOTH_RADIUS_PX, SMOOTH_CONTRAST = 6, 0.05  # of the guided filters
MOTION_SHARE = 0.7  # of motion in the depth when its trust is 1
MEMORY = 0.85  # of a map from one frame to the next
TRUST_MEMORY = 0.96  # of the trust, about a second: the mixture may not flicker
OPENING_FRAMES = 5.0  # that the first frame counts for: with little remembered the next ones would jump
STILL_CONFIDENCE = 0.3  # of the prior alone
MOVING_CONFIDENCE = 0.7  # of motion at trust 1: about its rank correlation with stereo


class Small(NamedTuple):
    """One frame at working size."""

    rgb: np.ndarray  # [h, w, 3] in [0, 1]
    grey: np.ndarray  # [h, w]


class Motion(NamedTuple):
    """How a frame moves."""

    nearness: np.ndarray  # [h, w] in [0, 1], larger moves more
    trust: float  # [0, 1] that this means depth


class MotionState(NamedTuple):
    """What is carried from frame to frame within a shot; sums that fade."""

    maps: np.ndarray  # [h, w, 3]: prior, trusted nearness, trust
    frames: float  # how many frames the prior's sum holds
    trust: float  # sum of trust
    trust_frames: float  # how many frames that sum holds


def motion_depth(
    windows: Iterable[Tensor],  # [t, 3, H, W] of one shot, in order
) -> Iterator[DepthEstimate]:
    """Yield one estimate per frame, at working size; the same for any windowing of the shot.

    Reads REACH_FRAMES frames and the rest of a window ahead.
    """
    state = None
    for before, now, after in _neighbourhoods(_shrink(frame) for window in windows for frame in window):
        state = _remember(state, before, now, after)
        depth, trust = _mix(state, now)
        confidence = STILL_CONFIDENCE + (MOVING_CONFIDENCE - STILL_CONFIDENCE) * trust
        yield DepthEstimate(torch.from_numpy(depth)[None, None], confidence)


def _shrink(frame: Tensor) -> Small:
    """Bring a frame [3, H, W] to working size; small frames stay as they are."""
    height, width = frame.shape[1:]
    scale = min(1.0, LONG_SIDE_PX / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    planes = [cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in frame.cpu().numpy()]
    rgb = np.stack(planes, axis=-1)
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return Small(rgb, np.round(grey * 255).clip(0, 255).astype(np.uint8))


def _neighbourhoods(frames: Iterator[Small]) -> Iterator[tuple[list[Small], Small, list[Small]]]:
    """Yield (frames before, frame, frames after) for every frame, at most REACH_FRAMES on each side."""
    before: deque[Small] = deque(maxlen=REACH_FRAMES)
    waiting: deque[Small] = deque()
    for frame in frames:
        waiting.append(frame)
        if len(waiting) > REACH_FRAMES:
            now = waiting.popleft()
            yield list(before), now, list(waiting)
            before.append(now)
    while waiting:
        now = waiting.popleft()
        yield list(before), now, list(waiting)
        before.append(now)


def _remember(state: MotionState | None, before: list[Small], now: Small, after: list[Small]) -> MotionState:
    """Carry the memory to this frame and add what this frame says."""
    prior = position_prior(now.rgb)
    neighbour = (before[-1:] or after[:1] or [now])[0]
    if min(prior.shape) < MIN_FLOW_SIZE_PX or neighbour is now:
        motion, step = Motion(np.zeros_like(prior), 0.0), np.zeros((*prior.shape, 2), np.float32)
    else:
        step = dense_flow(now.grey, neighbour.grey)
        motion = _motion(now, _partners(step, before, after))
    maps = np.stack([prior, motion.trust * motion.nearness, np.full_like(prior, motion.trust)], axis=-1)
    if state is None:
        first = OPENING_FRAMES
        return MotionState(maps * np.float32(first), first, motion.trust * first, first)
    return MotionState(
        maps + np.float32(MEMORY) * backward_warp(state.maps, step),
        1 + MEMORY * state.frames,
        motion.trust + TRUST_MEMORY * state.trust,
        1 + TRUST_MEMORY * state.trust_frames,
    )


def _partners(step: np.ndarray, before: list[Small], after: list[Small]) -> list[tuple[Small, int]]:
    """Choose the frames k before and after, and say k: far enough for a flow of a few pixels."""
    speed_px = float(np.percentile(flow_magnitude(step), 95))
    k = int(np.clip(round(WANTED_FLOW_PX / max(speed_px, 1e-3)), 1, REACH_FRAMES))
    sides = [before[::-1], after]
    return [(side[min(k, len(side)) - 1], min(k, len(side))) for side in sides if side]


def _motion(now: Small, partners: list[tuple[Small, int]]) -> Motion:
    """Measure how much each pixel moves against the frames chosen, and whether that can mean depth."""
    speed, weight = np.zeros(now.grey.shape, np.float32), np.zeros(now.grey.shape, np.float32)
    trusts = []
    for partner, k in partners:
        flow = dense_flow(now.grey, partner.grey)
        error = forward_backward_error(flow, dense_flow(partner.grey, now.grey))
        reliability = 1 / (1 + (error / np.float32(MISMATCH_PX)) ** 2)
        left_over = homography_residual(flow, error < MISMATCH_PX)
        speed += reliability * _near_speed(flow_magnitude(flow), left_over) / np.float32(k)
        weight += reliability
        trusts.append(_trust(flow_magnitude(flow), left_over * reliability))
    speed = _smooth(speed, now) / np.maximum(_smooth(weight, now), np.float32(1e-3))
    low, high = np.percentile(speed, [2, 98])
    # The root keeps what runs (a waving hand) from pressing all the rest into a narrow range.
    nearness = np.sqrt(np.clip((speed - low) / max(high - low, 1e-6), 0, 1)).astype(np.float32)
    return Motion(nearness, max(trusts))


def _trust(moved: np.ndarray, left_over: np.ndarray) -> float:  # both [h, w] px
    """Trust in [0, 1] that motion means depth: what is left over must exceed the flow's own noise."""
    parallax_px, moved_px = (float(np.percentile(plane, 95)) for plane in (left_over, moved))
    evidence = (parallax_px / np.hypot(LEAST_PARALLAX_PX, LEAST_PARALLAX_SHARE * moved_px)) ** 4
    return float(evidence / (1 + evidence))


def _near_speed(moved: np.ndarray, left_over: np.ndarray) -> np.ndarray:  # all [h, w] px
    """Choose the length that grows with nearness: the flow, or in a pursuit what the homography leaves over.

    A camera that follows somebody keeps them still in the middle while the background rushes past.
    """
    middle = 1 - np.linspace(-1, 1, moved.shape[1], dtype=np.float32) ** 2
    still_middle = -_correlation(moved, np.broadcast_to(middle, moved.shape))
    contradiction = -_correlation(moved, left_over)
    pursuit = np.clip((still_middle - 0.2) / 0.2, 0, 1) * np.clip(contradiction / 0.2, 0, 1)
    return moved + np.float32(pursuit) * (left_over - moved)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of two maps; 0 when one is flat."""
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).mean() / max(float(a.std() * b.std()), 1e-6))


def _mix(state: MotionState, now: Small) -> tuple[np.ndarray, float]:
    """Mix prior and motion by the shot's trust in motion, along the picture's edges."""
    prior, nearness, weight = np.moveaxis(state.maps, -1, 0)
    trust = state.trust / state.trust_frames
    share = np.float32(MOTION_SHARE * trust)
    nearness = nearness / np.maximum(weight, np.float32(1e-6))
    depth = (1 - share) * prior / np.float32(state.frames) + share * nearness
    return _smooth(depth, now), trust


def _smooth(plane: np.ndarray, now: Small) -> np.ndarray:
    guide = cv2.cvtColor(now.rgb, cv2.COLOR_RGB2GRAY)
    return guided_filter(plane, guide, radius_px=SMOOTH_RADIUS_PX, contrast=SMOOTH_CONTRAST)
