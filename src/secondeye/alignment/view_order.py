"""Which eye is which, told by what each of them hides.

In a pair that is in order, what only the left eye sees lies at the left of something near and belongs to
what is behind it. With the eyes changed, near looks far: what only one eye sees then seems to belong to the
nearer of its two neighbours, as no real scene allows. Colour tells to which neighbour it belongs (ours).
"""

from collections.abc import Callable

import cv2
import numpy as np
from torch import Tensor

from secondeye.imaging.arrays import resize
from secondeye.imaging.optical_flow import to_gray

_WIDTH = 480  # px, about: small enough to be quick, large enough for narrow strips
_BLOCK = 3  # px
_MIN_STEP_PX = 2.0  # between the neighbours' disparities
_WINDOW = 8  # px of each neighbour that are looked at; all of them must be matched, on one surface
_GUARD = 2  # px beside the strip that are not: matching draws edges that far off
_SIDE = _GUARD + _WINDOW
_SMOOTH_PX = 0.5  # by which disparity may change from one to the next
_BARE = 0.5  # levels per px: neighbours with less texture may be matched anywhere
_MIN_CONTRAST = 8.0  # levels between the neighbours, else colour tells nothing
_MAX_CONTRAST = 20.0  # levels: more is not more certain
_ROOM = 4  # px beyond what was found, to both sides
_ENOUGH = 200.0  # strips (one row each) after which a lean is no longer chance; fewer weigh less


def view_order_evidence(
    left: Tensor,  # [T, 3, H, W], rectified, colours alike
    right: Tensor,  # [T, 3, H, W]
    *,
    far_px: float,  # disparities that are found in the pair
    near_px: float,
) -> float:
    """1 where everything hidden lies as it does for these eyes, -1 the other way round, 0 for no telling."""
    factor = max(1, round(left.shape[-1] / _WIDTH))
    height, width = (side // factor for side in left.shape[-2:])
    eyes = [resize(eye, height, width) for eye in (left, right)]
    far, near = far_px / factor, near_px / factor
    # Each order is looked at as if it were the right one: what matching prefers to either side cancels out.
    return (_lean(eyes[0], eyes[1], far, near) - _lean(eyes[1], eyes[0], -near, -far)) / 2


def _lean(left: Tensor, right: Tensor, far: float, near: float) -> float:
    """How much more the strips belong to what is farther, [-1, 1], if this is the order."""
    low, high = int(np.floor(far)) - _ROOM, int(np.ceil(near)) + _ROOM
    found = [np.zeros((3, 0))]
    colours = [(eye.permute(0, 2, 3, 1) * 255).numpy().astype(np.float64) for eye in (left, right)]
    greys = [to_gray(eye) for eye in (left, right)]
    for here, there, picture, other in zip(*greys, *colours, strict=True):
        disparity, back = _match_both_ways(here, there, low, high)
        found += [_strips(picture, disparity), _strips(other[:, ::-1], back)]
    lean, weight, texture = np.concatenate(found, axis=1)
    textured = np.where(texture >= _BARE, weight, 0)
    if (textured > 0).sum() >= _ENOUGH:  # bare neighbours count only where there is little else
        weight = textured
    strips = int((weight > 0).sum())
    return float((lean * weight).sum() / weight.sum()) * min(1.0, strips / _ENOUGH) if strips else 0.0


def _match_both_ways(
    left: np.ndarray,  # uint8 [h, w]
    right: np.ndarray,  # uint8 [h, w]
    low: int,  # px, disparities that are searched
    high: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Disparity [h, w] px of the left eye, and of the mirrored right one; NaN where the two do not agree."""
    there = _match(left, right, low, high)
    back = _match(np.ascontiguousarray(right[:, ::-1]), np.ascontiguousarray(left[:, ::-1]), low, high)
    return _agreed(there, back), _agreed(back, there)


def _agreed(there: np.ndarray, back: np.ndarray) -> np.ndarray:
    width = there.shape[1]
    target = np.arange(width) - np.nan_to_num(there, nan=1e6).round().astype(int)
    inside = (target >= 0) & (target < width)
    again = np.take_along_axis(back[:, ::-1], np.where(inside, target, 0), axis=1)
    return np.where(inside & (np.abs(there - again) <= 1), there, np.nan)  # NaN never agrees


def _match(left: np.ndarray, right: np.ndarray, low: int, high: int) -> np.ndarray:
    # OpenCV gives up on columns whose whole search range is not inside: give it room on both sides.
    count = 16 * -(-(high - low + 1) // 16)
    room = max(abs(low), abs(low + count)) + _BLOCK
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
    pad = ((0, 0), (room, room))
    sixteenths = matcher.compute(np.pad(left, pad, "edge"), np.pad(right, pad, "edge"))[:, room:-room]
    return np.where(sixteenths < low * 16, np.nan, sixteenths / 16)


def _strips(picture: np.ndarray, disparity: np.ndarray) -> np.ndarray:  # [3, N]
    """For every strip of a row that the other eye lacks: to whom it leans, [-1, 1], what that weighs, and
    the texture of the barer neighbour.
    """
    row, start, stop = _between_surfaces(disparity)
    means = _means(picture, row)
    strip = means(start, stop)
    behind, before = means(start - _SIDE, start - _GUARD), means(stop + _GUARD, stop + _SIDE)
    to_behind, to_before = (np.abs(strip - side).sum(1) for side in (behind, before))
    lean = (to_before - to_behind) / np.maximum(to_before + to_behind, 1e-9)
    contrast = np.abs(behind - before).sum(1) / 3
    weight = np.where(contrast >= _MIN_CONTRAST, np.minimum(contrast, _MAX_CONTRAST), 0)
    slope = np.abs(cv2.Sobel(picture.mean(2), cv2.CV_64F, 1, 0, scale=1 / 8))
    texture = cv2.blur(slope, (7, 5))
    centre = _GUARD + _WINDOW // 2
    return np.stack([lean, weight, np.minimum(texture[row, start - centre - 1], texture[row, stop + centre])])


def _between_surfaces(disparity: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, first column and end of each gap as wide as its two neighbours say, both smooth and matched."""
    lost = np.pad(np.isnan(disparity), ((0, 0), (1, 1))).astype(np.int8)
    edges = np.diff(lost, axis=1)
    (row, start), (_, stop) = np.nonzero(edges == 1), np.nonzero(edges == -1)
    inside = (start > _SIDE) & (stop < disparity.shape[1] - _SIDE)
    row, start, stop = row[inside], start[inside], stop[inside]
    step, width = disparity[row, stop] - disparity[row, start - 1], stop - start
    real = (step >= _MIN_STEP_PX) & (width >= 0.5 * step) & (width <= 2 * step + 2)
    for first in (start - _SIDE, stop):
        side = disparity[row[:, None], first[:, None] + np.arange(_SIDE)]
        real &= (np.abs(np.diff(side, axis=1)) <= _SMOOTH_PX).all(1)  # NaN is never smooth
    return row[real], start[real], stop[real]


def _means(picture: np.ndarray, row: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Mean colour [N, 3] of each row's columns from `first` to before `last`."""
    sums = np.pad(picture.cumsum(1), ((0, 0), (1, 0), (0, 0)))
    return lambda first, last: (sums[row, last] - sums[row, first]) / (last - first)[:, None]
