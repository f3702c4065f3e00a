"""Depth without weights: from motion parallax, and from a position prior where nothing moves.

For each frame, optical flow to frames k before and after (k such that the flow is a few pixels) gives a map
of motion. Its residual to a homography tells whether the motion is parallax: there is none if the camera
stands still, rotates or zooms. The map is blended with the prior by this trust. Maps are
warped along the flow from frame to frame, so that an object that stops keeps its depth for a while.

The confidence is high only if the camera travels. If it stands, people and shadows move, but that is no
parallax: people add to the prior and shadows do not. If it travels, prior and motion are two opinions: where
they contradict each other, the confidence is lower.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from secondeye.depth.camera_motion import (
    Detail,
    detail,
    fit_camera_motion,
    moves_against,
    parallax,
    still_share,
    textured_share,
)
from secondeye.depth.guided_filter import guided_filter
from secondeye.depth.interface import DepthEstimate, DepthState
from secondeye.depth.position_prior import position_prior
from secondeye.depth.residual_flow import homography_residual
from secondeye.imaging.optical_flow import (
    MIN_FLOW_SIZE_PX,
    backward_warp,
    dense_flow,
    flow_magnitude,
    forward_backward_error,
)
from secondeye.system.threads import map_ordered

LONG_SIDE_PX = 384  # working size
MAX_THREADS = 4  # frames measured at the same time, at most
MAX_OFFSET_FRAMES = 12  # look-ahead, and the largest k
TARGET_FLOW_PX = 5.0  # of the fast pixels, at working size
MISMATCH_PX = 1.0  # forward-backward error at which a flow vector has half the weight
MIN_TRUST = 0.05  # below, no camera motion is fitted
EXPLAINED_PX = 0.4  # residual up to which a homography explains the flow
PARALLAX_PX = 0.3  # parallax at which trust is 0.5; twice the flow noise
PARALLAX_SHARE = 0.2  # of the fast pixels' flow; rotation and zoom leave 0.13, parallax 0.26 or more
SMOOTH_RADIUS_PX, SMOOTH_CONTRAST = 6, 0.05  # of the guided filters
MOTION_SHARE = 0.7  # weight of motion against the prior at trust 1
DECAY = 0.85  # of the maps from one frame to the next
TRUST_DECAY = 0.96  # of the trust, about a second: the mixture must not flicker
FIRST_FRAME_WEIGHT = 5.0  # the first frame counts as 5 frames, to avoid a jump after it
SIGNED_SHARE = (0.08, 0.2)  # of pixels that move against the rest: from no use of the sign to full use
FORWARD = (0.4, 0.6)  # of the direction of travel, along the optical axis: from sideways to forward
STILL_SHARE = (0.32, 0.42)  # of textured pixels that stay: from a moving to a standing camera
SHADOW_SHARE = (0.5, 0.75)  # the same: from people, who are near, to shadows, which are not
EXPLAINED_SHARE = (0.72, 0.85)  # of textured pixels that one homography explains: from travel to rotation
TEXTURE_SHARE = (0.1, 0.25)  # of pixels: below, what moves may be all that can be seen to move
CONTRADICTION_SHARE = 0.25  # added to MOTION_SHARE if motion and prior are opposed
STILL_CONFIDENCE = 0.25  # of the prior alone
STILL_AGREEMENT = 0.1  # added if what moves before a standing camera is what the prior says is near
MOVING_CONFIDENCE = (0.45, 0.8)  # of a travelling camera at agreement 0 and 1


class WorkingFrame(NamedTuple):
    """One frame at working size."""

    number: int
    rgb: np.ndarray  # [h, w, 3] in [0, 1]
    gray: np.ndarray  # uint8 [h, w]
    guide: np.ndarray  # [h, w] in [0, 1], gray
    detail: Detail


class Neighbourhood(NamedTuple):
    """A frame and those around it, at most MAX_OFFSET_FRAMES on each side."""

    before: list[WorkingFrame]
    now: WorkingFrame
    after: list[WorkingFrame]


class Motion(NamedTuple):
    """The motion of one frame."""

    nearness: np.ndarray  # [h, w] in [0, 1], larger moves more
    trust: float  # [0, 1] that this means depth
    travel: float  # [0, 1] that the camera travels; at most `trust`


class Measured(NamedTuple):
    """What one frame shows, whatever was shown before."""

    frame: WorkingFrame
    prior: np.ndarray  # [h, w] in [0, 1]
    motion: Motion
    step: np.ndarray  # [h, w, 2] px: flow to the frame before


class MotionState(NamedTuple):
    """Exponentially decaying sums over the frames of a shot."""

    sums: np.ndarray  # [h, w, 3]: prior, nearness * trust, trust
    prior_weight: float  # weight of the prior's sum
    trust: float  # sum of trust
    travel: float  # sum of travel
    trust_weight: float  # weight of these sums

    def depth_state(self, next_frame: int) -> DepthState:
        """Return the state after the frame before `next_frame`."""
        weights = torch.tensor(self[1:], dtype=torch.float64)
        tensors = {"motion_sums": torch.from_numpy(self.sums), "motion_weights": weights}
        return DepthState(next_frame, max(0, next_frame - MAX_OFFSET_FRAMES), tensors)


def _motion_state(state: DepthState) -> MotionState:
    return MotionState(
        state.tensors["motion_sums"].numpy(), *map(float, state.tensors["motion_weights"].tolist())
    )


class MotionEstimator:
    """`motion_depth` as an estimator that asks for small frames."""

    def __call__(self, windows: Iterable[Tensor], state: DepthState | None = None) -> Iterator[DepthEstimate]:
        """Run `motion_depth`."""
        return motion_depth(windows, state)

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width at which frames of this size are measured."""
        return working_size(height, width)


def motion_depth(
    windows: Iterable[Tensor],  # [t, 3, H, W] in [0, 1] or uint8 [t, H, W, 3], of one shot, in order
    state: DepthState | None = None,  # after the frames before; None at the start of the shot
) -> Iterator[DepthEstimate]:
    """Yield one estimate per frame, at working size; independent of window size.

    Looks MAX_OFFSET_FRAMES ahead, plus a few frames that are measured in parallel and the rest of a window,
    and MAX_OFFSET_FRAMES back.
    """
    carried = None if state is None else _motion_state(state)
    first, start = (0, 0) if state is None else (state.first_frame, state.next_frame)
    frames = (frame for window in windows for frame in window)
    small = (_downscale(frame, number) for number, frame in enumerate(frames))
    threads = min(torch.get_num_threads(), MAX_THREADS)
    measured = map_ordered(partial(_measure, FlowCache()), _neighbourhoods(small, start - first), threads)
    for number, frame in enumerate(measured, start + 1):
        carried = _update_state(carried, frame)
        depth, confidence = _mix(carried, frame.frame)
        yield DepthEstimate(torch.from_numpy(depth)[None, None], confidence, carried.depth_state(number))


def working_size(height: int, width: int) -> tuple[int, int]:
    """Return the working size: at most LONG_SIDE_PX long; smaller frames keep their size."""
    scale = min(1.0, LONG_SIDE_PX / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _downscale(frame: Tensor, number: int) -> WorkingFrame:
    """Resize a frame, [3, H, W] or uint8 [H, W, 3], to working size."""
    if frame.dtype == torch.uint8:
        height, width = working_size(*frame.shape[:2])
        small = cv2.resize(frame.cpu().numpy(), (width, height), interpolation=cv2.INTER_AREA)
        rgb = small.astype(np.float32) / np.float32(255)
    else:
        height, width = working_size(*frame.shape[1:])
        planes = frame.cpu().numpy()
        rgb = np.dstack([cv2.resize(p, (width, height), interpolation=cv2.INTER_AREA) for p in planes])
    guide = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    gray = np.round(guide * 255).clip(0, 255).astype(np.uint8)
    return WorkingFrame(number, rgb, gray, guide, detail(gray))


def _neighbourhoods(
    frames: Iterator[WorkingFrame],
    skip: int,  # frames at the start that only serve as frames before
) -> Iterator[Neighbourhood]:
    """Yield every frame with its neighbours."""
    before: deque[WorkingFrame] = deque(islice(frames, skip), maxlen=MAX_OFFSET_FRAMES)
    waiting: deque[WorkingFrame] = deque()
    for frame in frames:
        waiting.append(frame)
        if len(waiting) > MAX_OFFSET_FRAMES:
            now = waiting.popleft()
            yield Neighbourhood(list(before), now, list(waiting))
            before.append(now)
    while waiting:
        now = waiting.popleft()
        yield Neighbourhood(list(before), now, list(waiting))
        before.append(now)


class FlowCache:
    """Flows between pairs of frames: a frame and its reference need the same two, one after the other."""

    def __init__(self) -> None:
        self._flows: dict[tuple[int, int], np.ndarray] = {}

    def flow(self, source: WorkingFrame, target: WorkingFrame) -> np.ndarray:  # [h, w, 2] px
        """Return the flow; threads that ask for the same one at the same time may all compute it."""
        pair = source.number, target.number
        flow = self._flows.get(pair)
        if flow is None:
            flow = self._flows[pair] = dense_flow(source.gray, target.gray)
        return flow

    def forget_before(self, number: int) -> None:
        """Drop the flows of all pairs with a frame before this one."""
        for pair in [pair for pair in list(self._flows) if min(pair) < number]:
            self._flows.pop(pair, None)


def _measure(flows: FlowCache, around: Neighbourhood) -> Measured:
    """Measure the prior and the motion of one frame."""
    before, now, after = around
    prior = position_prior(now.rgb)
    neighbour = (before[-1:] or after[:1] or [now])[0]
    if min(prior.shape) < MIN_FLOW_SIZE_PX or neighbour is now:
        still = np.zeros((*prior.shape, 2), np.float32)
        return Measured(now, prior, Motion(np.zeros_like(prior), 0.0, 0.0), still)
    step = flows.flow(now, neighbour)
    motion = _measure_motion(flows, now, _choose_reference_frames(step, before, after), prior)
    flows.forget_before(now.number - MAX_THREADS - MAX_OFFSET_FRAMES)
    return Measured(now, prior, motion, step)


def _update_state(state: MotionState | None, measured: Measured) -> MotionState:
    """Warp the sums to this frame, decay them, and add this frame's prior and motion."""
    prior, motion = measured.prior, measured.motion
    trust = np.full_like(prior, motion.trust)
    maps = np.dstack([prior, motion.trust * motion.nearness, trust]).astype(np.float32)
    if state is None:
        weight = FIRST_FRAME_WEIGHT
        return MotionState(
            maps * np.float32(weight), weight, motion.trust * weight, motion.travel * weight, weight
        )
    return MotionState(
        maps + np.float32(DECAY) * backward_warp(state.sums, measured.step),
        1 + DECAY * state.prior_weight,
        motion.trust + TRUST_DECAY * state.trust,
        motion.travel + TRUST_DECAY * state.travel,
        1 + TRUST_DECAY * state.trust_weight,
    )


def _choose_reference_frames(
    step: np.ndarray, before: list[WorkingFrame], after: list[WorkingFrame]
) -> list[tuple[WorkingFrame, int]]:
    """Return the frames k before and after, and k: far enough for a flow of a few pixels."""
    speed_px = float(np.percentile(flow_magnitude(step), 95))
    k = int(np.clip(round(TARGET_FLOW_PX / max(speed_px, 1e-3)), 1, MAX_OFFSET_FRAMES))
    sides = [before[::-1], after]
    return [(side[min(k, len(side)) - 1], min(k, len(side))) for side in sides if side]


def _measure_motion(
    flows: FlowCache,
    now: WorkingFrame,
    reference_frames: list[tuple[WorkingFrame, int]],
    prior: np.ndarray,  # [h, w] in [0, 1]
) -> Motion:
    """Measure how much each pixel moves relative to the reference frames, and whether that is parallax."""
    speed, weight = np.zeros(now.gray.shape, np.float32), np.zeros(now.gray.shape, np.float32)
    trusts, stills, explained = [], [], []
    for partner, k in reference_frames:
        flow = flows.flow(now, partner)
        error = forward_backward_error(flow, flows.flow(partner, now))
        reliability = 1 / (1 + (error / np.float32(MISMATCH_PX)) ** 2)
        residual = homography_residual(flow, error < MISMATCH_PX)
        magnitude = flow_magnitude(flow)
        trusts.append(_trust(magnitude, residual * reliability))
        stills.append(still_share(now.detail, partner.detail))
        explained.append(textured_share(residual < EXPLAINED_PX, now.detail))
        moved = _parallax_speed(magnitude, residual)
        if trusts[-1] > MIN_TRUST:
            moved = _signed(moved, flow, reliability, prior)
        speed += reliability * moved / np.float32(k)
        weight += reliability
    speed = _smooth(speed, now) / np.maximum(_smooth(weight, now), np.float32(1e-3))
    low, high = np.percentile(speed, [2, 98])
    # The root keeps fast movers (a waving hand) from compressing all the rest into a narrow range.
    nearness = np.sqrt(np.clip((speed - low) / max(high - low, 1e-6), 0, 1)).astype(np.float32)
    trust, still = max(trusts), float(np.mean(stills))
    standing = max(
        _ramp(still, *STILL_SHARE),
        _ramp(float(np.mean(explained)), *EXPLAINED_SHARE),
        1 - _ramp(float(now.detail.texture.mean()), *TEXTURE_SHARE),
    )
    return Motion(nearness, trust * (1 - _ramp(still, *SHADOW_SHARE)), trust * (1 - standing))


def _signed(
    moved: np.ndarray,  # [h, w] px, magnitude of the motion
    flow: np.ndarray,  # [h, w, 2] px
    reliability: np.ndarray,  # [h, w] in [0, 1]
    prior: np.ndarray,  # [h, w] in [0, 1]
) -> np.ndarray:  # [h, w] px
    """Return `moved`, or if some of the picture moves against the rest the parallax, which has a sign.

    A camera that travels to one side and turns to the other keeps the middle distance in place: what is
    nearer moves one way and what is farther moves the other way. Flow alone cannot say which is which (the
    scene turned inside out, seen by a camera that moves the other way, gives the same), so the prior decides.
    Forward, all of the picture moves away from one point, and the magnitude serves well.
    """
    use = _ramp(moves_against(flow, reliability > 0.5, MISMATCH_PX / 2), *SIGNED_SHARE)
    if not use:
        return moved
    motion = fit_camera_motion(flow, reliability)
    use *= 1 - _ramp(abs(float(motion.travel[2])), *FORWARD)
    along = parallax(flow, *motion)
    sign = np.float32(1 if _correlation(along, prior) >= 0 else -1)
    return moved + np.float32(use) * (sign * along - moved)


def _ramp(value: float, low: float, high: float) -> float:
    """Return 0 up to `low`, 1 from `high` on, linear in between."""
    return float(np.clip((value - low) / (high - low), 0, 1))


def _trust(magnitude: np.ndarray, residual: np.ndarray) -> float:  # both [h, w] px
    """Return the trust in [0, 1] that motion means depth: the residual must exceed the noise of the flow."""
    parallax_px, moved_px = (float(np.percentile(plane, 95)) for plane in (residual, magnitude))
    evidence = (parallax_px / np.hypot(PARALLAX_PX, PARALLAX_SHARE * moved_px)) ** 4
    return float(evidence / (1 + evidence))


def _parallax_speed(magnitude: np.ndarray, residual: np.ndarray) -> np.ndarray:  # all [h, w] px
    """Return flow magnitude, or in a tracking shot its residual.

    A camera that tracks somebody keeps them still in the centre while the background moves fast.
    """
    centre = 1 - np.linspace(-1, 1, magnitude.shape[1], dtype=np.float32) ** 2
    still_centre = -_correlation(magnitude, np.broadcast_to(centre, magnitude.shape))
    contradiction = -_correlation(magnitude, residual)
    tracking = np.clip((still_centre - 0.2) / 0.2, 0, 1) * np.clip(contradiction / 0.2, 0, 1)
    return magnitude + np.float32(tracking) * (residual - magnitude)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return the Pearson correlation of two maps; 0 if one is flat."""
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).mean() / max(float(a.std() * b.std()), 1e-6))


def _mix(state: MotionState, now: WorkingFrame) -> tuple[np.ndarray, float]:
    """Return depth, mixed by the shot's trust in motion and smoothed along edges, and its confidence."""
    prior, nearness, weight = np.moveaxis(state.sums, -1, 0)
    trust, travel = state.trust / state.trust_weight, state.travel / state.trust_weight
    prior = prior / np.float32(state.prior_weight)
    nearness = nearness / np.maximum(weight, np.float32(1e-6))
    agreement = _correlation(prior, nearness)
    share = np.float32(trust * (MOTION_SHARE + CONTRADICTION_SHARE * travel * max(0.0, -agreement)))
    depth = (1 - share) * prior + share * nearness
    low, high = MOVING_CONFIDENCE
    moving = low + (high - low) * max(0.0, agreement)
    standing = STILL_CONFIDENCE + STILL_AGREEMENT * trust * agreement
    return _smooth(depth, now), standing + (moving - standing) * travel


def _smooth(plane: np.ndarray, now: WorkingFrame) -> np.ndarray:
    return guided_filter(plane, now.guide, radius_px=SMOOTH_RADIUS_PX, contrast=SMOOTH_CONTRAST)
