"""Occlusion strips: which view is the left one, from the regions that only one view sees (ours).

A strip is a run of pixels in a row that only one view sees, between a near and a far surface. In a correctly
ordered pair a strip has the colour of the farther neighbour, since it shows the surface behind; in a swapped
pair it has the colour of the nearer one.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from torch import Tensor

from secondeye.imaging.arrays import resize
from secondeye.imaging.optical_flow import to_gray

_WIDTH = 480  # px, approximate working width: small enough to be fast, large enough for narrow strips
_BLOCK = 3  # px
_MIN_STEP_PX = 2.0  # disparity step between the two neighbours
_NEIGHBOUR_PX = 8  # px compared on each side; all must be matched and smooth
_GUARD_PX = 2  # px skipped beside the strip, because matching displaces edges
_MARGIN_PX = _GUARD_PX + _NEIGHBOUR_PX
_SMOOTH_PX = 0.5  # largest disparity step within a surface
_MIN_TEXTURE = 0.5  # levels per px: less textured neighbours may be mismatched
_MIN_CONTRAST = 8.0  # levels between the neighbours; below, colour is no evidence
_MAX_CONTRAST = 20.0  # levels; the weight saturates here
_RANGE_MARGIN_PX = 4  # px added to the search range on both sides
_FULL_CONFIDENCE_STRIPS = 200.0  # strips (one row each) for full confidence


def resize_to_work(left: Tensor, right: Tensor) -> tuple[int, list[Tensor]]:  # factor, [T, 3, h, w] each
    """Reduce views [T, 3, H, W] by a whole number to about the working width."""
    factor = max(1, round(left.shape[-1] / _WIDTH))
    height, width = (side // factor for side in left.shape[-2:])
    return factor, [resize(view, height, width) if len(view) else view for view in (left, right)]


def match_both_ways(
    left: Tensor,  # [T, 3, h, w], rectified, colours matched
    right: Tensor,  # [T, 3, h, w]
    far_px: float,  # disparity range of the pair
    near_px: float,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return each frame's disparity [h, w] px of left and mirrored right view; NaN where they disagree."""
    low, high = int(np.floor(far_px)) - _RANGE_MARGIN_PX, int(np.ceil(near_px)) + _RANGE_MARGIN_PX
    return [_match_both_ways(*pair, low, high) for pair in zip(to_gray(left), to_gray(right), strict=True)]


def strip_score(
    left: Tensor,  # [T, 3, h, w]
    right: Tensor,  # [T, 3, h, w]
    matched: Sequence[tuple[np.ndarray, np.ndarray]],  # by `match_both_ways`
) -> float:
    """Return how much more the strips resemble the farther neighbour, [-1, 1], assuming this order.

    The matcher is biased: score both orders, and subtract.
    """
    evidence = [np.zeros((3, 0))]
    colours = [(view.permute(0, 2, 3, 1) * 255).numpy().astype(np.float64) for view in (left, right)]
    for left_image, right_image, (disparity, mirrored) in zip(*colours, matched, strict=True):
        evidence += [_strip_evidence(left_image, disparity), _strip_evidence(right_image[:, ::-1], mirrored)]
    score, weight, texture = np.concatenate(evidence, axis=1)
    textured_weight = np.where(texture >= _MIN_TEXTURE, weight, 0)
    # Untextured neighbours count only if there are few others.
    if (textured_weight > 0).sum() >= _FULL_CONFIDENCE_STRIPS:
        weight = textured_weight
    strips = int((weight > 0).sum())
    confidence = min(1.0, strips / _FULL_CONFIDENCE_STRIPS)
    return float((score * weight).sum() / weight.sum()) * confidence if strips else 0.0


def _match_both_ways(
    left: np.ndarray,  # uint8 [h, w]
    right: np.ndarray,  # uint8 [h, w]
    low: int,  # px, search range
    high: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return disparity [h, w] px of the left and of the mirrored right view; NaN where they disagree."""
    forward = _match(left, right, low, high)
    backward = _match(np.ascontiguousarray(right[:, ::-1]), np.ascontiguousarray(left[:, ::-1]), low, high)
    return _check_consistency(forward, backward), _check_consistency(backward, forward)


def _check_consistency(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    width = forward.shape[1]
    target = np.arange(width) - np.nan_to_num(forward, nan=1e6).round().astype(int)
    inside = (target >= 0) & (target < width)
    returned = np.take_along_axis(backward[:, ::-1], np.where(inside, target, 0), axis=1)
    return np.where(inside & (np.abs(forward - returned) <= 1), forward, np.nan)  # False for NaN


def _match(left: np.ndarray, right: np.ndarray, low: int, high: int) -> np.ndarray:
    # OpenCV skips columns whose search range leaves the frame, hence the padding.
    count = 16 * -(-(high - low + 1) // 16)
    padding = max(abs(low), abs(low + count)) + _BLOCK
    matcher = cv2.StereoSGBM.create(
        minDisparity=low,
        numDisparities=count,
        blockSize=_BLOCK,
        P1=8 * _BLOCK**2,
        P2=32 * _BLOCK**2,
        uniquenessRatio=5,
        speckleWindowSize=30,
        speckleRange=1,
        preFilterCap=31,
    )
    pad = ((0, 0), (padding, padding))
    sixteenths = matcher.compute(np.pad(left, pad, "edge"), np.pad(right, pad, "edge"))[:, padding:-padding]
    return np.where(sixteenths < low * 16, np.nan, sixteenths / 16)


def _strip_evidence(image: np.ndarray, disparity: np.ndarray) -> np.ndarray:  # [3, N]
    """Return score in [-1, 1], weight, and texture of the less textured neighbour, per one-row strip."""
    row, start, stop = _occlusion_strips(disparity)
    span_mean = _span_mean(image, row)
    strip = span_mean(start, stop)
    before_strip = span_mean(start - _MARGIN_PX, start - _GUARD_PX)
    after_strip = span_mean(stop + _GUARD_PX, stop + _MARGIN_PX)
    distance_before, distance_after = (np.abs(strip - side).sum(1) for side in (before_strip, after_strip))
    score = (distance_after - distance_before) / np.maximum(distance_after + distance_before, 1e-9)
    contrast = np.abs(before_strip - after_strip).sum(1) / 3
    weight = np.where(contrast >= _MIN_CONTRAST, np.minimum(contrast, _MAX_CONTRAST), 0)
    slope = np.abs(cv2.Sobel(image.mean(2), cv2.CV_64F, 1, 0, scale=1 / 8))
    texture = cv2.blur(slope, (7, 5))
    centre = _GUARD_PX + _NEIGHBOUR_PX // 2
    weaker_texture = np.minimum(texture[row, start - centre - 1], texture[row, stop + centre])
    return np.stack([score, weight, weaker_texture])


def _occlusion_strips(disparity: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row, start, stop of unmatched gaps between smooth surfaces, as wide as the disparity step."""
    missing = np.pad(np.isnan(disparity), ((0, 0), (1, 1))).astype(np.int8)
    edges = np.diff(missing, axis=1)
    (row, start), (_, stop) = np.nonzero(edges == 1), np.nonzero(edges == -1)
    inside = (start > _MARGIN_PX) & (stop < disparity.shape[1] - _MARGIN_PX)
    row, start, stop = row[inside], start[inside], stop[inside]
    step, width = disparity[row, stop] - disparity[row, start - 1], stop - start
    valid = (step >= _MIN_STEP_PX) & (width >= 0.5 * step) & (width <= 2 * step + 2)
    for first in (start - _MARGIN_PX, stop):
        side = disparity[row[:, None], first[:, None] + np.arange(_MARGIN_PX)]
        valid &= (np.abs(np.diff(side, axis=1)) <= _SMOOTH_PX).all(1)  # False for NaN
    return row[valid], start[valid], stop[valid]


def _span_mean(image: np.ndarray, row: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return a function for the mean colour [N, 3] of each row's columns in [first, last)."""
    sums = np.pad(image.cumsum(1), ((0, 0), (1, 0), (0, 0)))
    return lambda first, last: (sums[row, last] - sums[row, first]) / (last - first)[:, None]
