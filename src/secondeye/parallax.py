"""How far the right view must move so that the farthest point has nearly no disparity (after the paper)."""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from secondeye.arrays import resize

_COARSE = 4  # matching at a quarter of the size: whole px of shift need no more
_BLOCK = 5  # px of the coarse picture
_FAR_PERCENTILE, _NEAR_PERCENTILE = 1.0, 99.0  # ours: a few false matches must not set the range
_TEXTURE = 12  # Sobel response, 8-bit levels: sky and walls match anywhere and prove nothing
_MIN_TEXTURE_SHARE = 0.002


class Parallax(NamedTuple):
    shift_px: int  # the right view moves this far to the right
    near_px: float  # largest disparity left after that
    support: float  # share of textured coarse pixels that matched both ways, [0, 1]


def find_shift(
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
    *,
    max_disparity_percent: float,  # searched to both sides, % of W
    margin_px: int,
) -> Parallax:
    """Match coarsely both ways and take the whole-pixel shift that leaves the far percentile at `margin_px`.

    `support` is 0 (and the rest meaningless) where nothing matches, as between unrelated pictures.
    """
    height, width = left.shape[-2:]
    rows, columns = max(height // _COARSE, 8), max(width // _COARSE, 16)
    reach = 16 * int(np.ceil(columns * max_disparity_percent / 100 / 16))
    found, textured, supported = [], 0, 0
    for frame_left, frame_right in zip(_grey(left, rows, columns), _grey(right, rows, columns), strict=True):
        texture = np.abs(cv2.Sobel(frame_left, cv2.CV_16S, 1, 0)) >= _TEXTURE
        disparity = _match_both_ways(frame_left, frame_right, reach)
        agreed = np.isfinite(disparity)
        found.append(disparity[agreed])
        textured += int(texture.sum())
        supported += int((agreed & texture).sum())
    disparity = np.concatenate(found)
    if textured < _MIN_TEXTURE_SHARE * rows * columns * len(found) or not disparity.size:
        return Parallax(0, 0.0, 0.0)
    support = supported / textured
    far, near = np.percentile(disparity, [_FAR_PERCENTILE, _NEAR_PERCENTILE]) * (width / columns)
    shift_px = int(np.floor(far)) - margin_px
    return Parallax(shift_px, float(near) - shift_px, support)


def _grey(frames: Tensor, rows: int, columns: int) -> list[np.ndarray]:
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    small = (resize(frames, rows, columns) * weights).sum(1).clamp(0, 1)
    return list((small * 255).round().to(torch.uint8).numpy())


def _match_both_ways(left: np.ndarray, right: np.ndarray, reach: int) -> np.ndarray:
    """Disparity [h, w] in px of the coarse picture, NaN where the two directions do not agree."""
    forward = _match(left, right, reach)
    backward = _match(right[:, ::-1], left[:, ::-1], reach)[:, ::-1]
    columns = np.arange(left.shape[1])
    target = columns - np.nan_to_num(forward, nan=1e6).round().astype(int)
    inside = (target >= 0) & (target < left.shape[1])
    there = np.take_along_axis(backward, np.where(inside, target, 0), axis=1)
    agree = inside & (np.abs(forward - there) <= 1)  # NaN never agrees
    return np.where(agree, forward, np.nan)


def _match(left: np.ndarray, right: np.ndarray, reach: int) -> np.ndarray:
    # OpenCV gives up on columns whose whole search range is not inside: give it room on both sides.
    pad = ((0, 0), (reach, reach))
    matcher = cv2.StereoSGBM.create(
        minDisparity=-reach,
        numDisparities=2 * reach,
        blockSize=_BLOCK,
        P1=8 * _BLOCK**2,
        P2=32 * _BLOCK**2,
        uniquenessRatio=10,
        speckleWindowSize=30,
        speckleRange=1,
        preFilterCap=31,
    )
    sixteenths = matcher.compute(np.pad(left, pad, "edge"), np.pad(right, pad, "edge"))[:, reach:-reach]
    return np.where(sixteenths < -reach * 16, np.nan, sixteenths / 16)
