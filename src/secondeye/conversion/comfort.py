"""Choose strength and convergence of a shot from its depth, within a budget for comfortable viewing.

The budget is that of broadcasters for television sets of 46 to 70 inches (BSkyB, Technical Guidelines for
Plano Stereoscopic (3D) Programme Content, 2010): 1 % of the width in front of the screen, 2 % behind it. From
three picture heights away, the distance for which HDTV is made, these 3 % are one degree of vergence.

Each limit is one of a shot alone: depths of its first and last frame lie near the screen, and so do those on
both sides of every cut. Shots can thus be converted in any order, and editing one changes no other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, floor, inf
from typing import NamedTuple

import numpy as np

from secondeye.conversion.shot_depth import ShotDepth
from secondeye.depth import FAR_QUANTILE, NEAR_QUANTILE

FRONT_PERCENT, BEHIND_PERCENT = 1.0, 2.0  # of the width
# Largest change of a frame's median disparity at a cut, % of the width: half a degree from three picture
# heights, half of what is comfortable to look at for long (ours; no guideline states a number).
JUMP_PERCENT = 1.5
SUBJECT_PERCENT = 0.5  # of the width: distance of the subject from the screen, on either side (ours)
STRENGTH_PERCENT = FRONT_PERCENT + BEHIND_PERCENT  # unless a limit or the confidence reduces it
CONVERGENCE = 0.5  # unless a limit moves it
MIN_CONFIDENCE = 0.35  # share of the strength that a shot of uncertain depth keeps (ours)
# Strengths are multiples of this: shots of a film do not differ by what nobody sees.
_STEP_PERCENT = 0.25
_FRAMES = 64  # of a shot, at most, that its depth is judged by
_BINS = 1024
_CENTRE = 0.2  # standard deviation of the subject's weight, as a share of height and width
_DIGITS = 4  # of the values; they are exact when written to a file and read again


class StereoRequest(NamedTuple):
    """The values that a shot should have; None: to be chosen from its depth."""

    strength_percent: float | None  # % of the width, [0, 10]
    convergence: float | None  # [0, 1]
    is_exact: bool  # the strength is not reduced where depth is uncertain
    holds_borders: bool = True  # nothing is in front of the screen at the left and right border


class ShotStereo(NamedTuple):
    """What a shot is rendered with."""

    strength_percent: float  # disparity between depth 0 and 1, % of the width
    convergence: float  # the depth that lies on the screen, [0, 1]
    holds_borders: bool = True  # nothing is in front of the screen at the left and right border


@dataclass(frozen=True)
class DepthProfile:
    """Depths that matter for comfort, in [0, 1], 1 is nearest."""

    far: float  # FAR_QUANTILE of the shot
    near: float  # NEAR_QUANTILE of the shot
    subject: float  # median around the centre of the picture, over the shot
    first: float  # median of the first frame
    last: float  # median of the last frame


def measure_profile(depth: ShotDepth) -> DepthProfile:
    """Measure up to 65 evenly spaced frames of a shot, the first and the last among them."""
    step = ceil(depth.frames / _FRAMES)
    weights = _centre_weights(depth.height, depth.width).ravel()
    counts, centre, medians = np.zeros(_BINS), np.zeros(_BINS), list[float]()
    for frame in sorted({*range(0, depth.frames, step), depth.frames - 1}):
        plane = depth.read(frame, frame + 1).numpy().ravel()
        bins = np.rint(plane * (_BINS - 1)).astype(np.int64)
        counts += np.bincount(bins, minlength=_BINS)
        centre += np.bincount(bins, weights, _BINS)
        if frame in (0, depth.frames - 1):
            medians.append(float(np.median(plane)))
    far, near = (_quantile(counts, share) for share in (FAR_QUANTILE, NEAR_QUANTILE))
    return DepthProfile(far, near, _quantile(centre, 0.5), medians[0], medians[-1])


def _centre_weights(height: int, width: int) -> np.ndarray:  # [h, w]
    """Return a Gaussian around the centre: what most viewers look at."""
    y, x = ((np.arange(size) + 0.5) / size - 0.5 for size in (height, width))
    return np.exp(-(y[:, None] ** 2 + x**2) / (2 * _CENTRE**2))


def _quantile(counts: np.ndarray, share: float) -> float:
    cumulative = np.cumsum(counts)
    return float(np.searchsorted(cumulative, share * cumulative[-1]) / (_BINS - 1))


class _Limit(NamedTuple):
    """How far a point of this depth may be from the screen."""

    depth: float
    behind: float  # % of the width
    front: float  # % of the width


def choose_stereo(
    profile: DepthProfile,
    confidence: float,  # of the depth, [0, 1]
    request: StereoRequest,
) -> ShotStereo:
    """Return what is requested, and choose the rest within the limits.

    The automatic strength is STRENGTH_PERCENT times the confidence, the automatic convergence CONVERGENCE;
    each differs from that only as far as a limit demands. A requested value may break limits. An automatic
    convergence then still keeps the budget in front of and behind the screen if the strength allows it;
    what exceeds is spread over both sides.
    """
    limits, share = _limits(profile), max(MIN_CONFIDENCE, confidence)
    strength, convergence = request.strength_percent, request.convergence
    if strength is None:
        most = min(STRENGTH_PERCENT * share, _strongest(limits, convergence))
        strength = floor(most / _STEP_PERCENT + 1e-9) * _STEP_PERCENT
    elif not request.is_exact:
        strength *= share
    if convergence is None:
        convergence = _allowed_convergence(limits, strength)
    return ShotStereo(round(strength, _DIGITS), round(convergence, _DIGITS), request.holds_borders)


def _limits(profile: DepthProfile) -> Sequence[_Limit]:
    """Return the limits, first the two of the budget."""
    return (
        _Limit(profile.near, inf, FRONT_PERCENT),
        _Limit(profile.far, BEHIND_PERCENT, inf),
        _Limit(profile.subject, SUBJECT_PERCENT, SUBJECT_PERCENT),
        _Limit(profile.first, JUMP_PERCENT / 2, JUMP_PERCENT / 2),
        _Limit(profile.last, JUMP_PERCENT / 2, JUMP_PERCENT / 2),
    )


def _strongest(limits: Sequence[_Limit], convergence: float | None) -> float:
    """Return the largest strength for which this convergence, or if None any, keeps all limits."""
    if convergence is not None:
        limits = [*limits, _Limit(convergence, 0, 0)]
    return min(
        (
            (near.front + far.behind) / (near.depth - far.depth)
            for near, far in product(limits, repeat=2)
            if near.depth > far.depth
        ),
        default=inf,
    )


def _allowed_convergence(limits: Sequence[_Limit], strength: float) -> float:
    """Return the convergence nearest to CONVERGENCE that keeps all limits.

    If none does, it is the one between them, moved as far as the budget demands.
    """
    if not strength:
        return CONVERGENCE
    chosen = CONVERGENCE
    for kept in (limits, limits[:2]):
        least = max(limit.depth - limit.front / strength for limit in kept)
        most = min(limit.depth + limit.behind / strength for limit in kept)
        chosen = (least + most) / 2 if least > most else min(max(chosen, least), most)
    return min(max(chosen, 0.0), 1.0)
