"""Semi-global block matching (Hirschmueller 2008) by OpenCV: frame by frame, no weights."""

import cv2
import numpy as np
import torch
from torch import Tensor

from secondeye.matching.interface import Matcher

_BLOCK = 5  # px
_SUBPIXELS = 16  # OpenCV's unit is 1/16 px


def make_block_matcher(max_disparity_px: int) -> Matcher:
    """Return a matcher that searches [0, max_disparity_px]; NaN where no disparity is unique."""
    search_px = 16 * max(1, -(-max_disparity_px // 16))
    engine = cv2.StereoSGBM.create(
        minDisparity=0,
        numDisparities=search_px,
        blockSize=_BLOCK,
        P1=8 * 3 * _BLOCK**2,
        P2=32 * 3 * _BLOCK**2,
        uniquenessRatio=5,
        speckleWindowSize=100,
        speckleRange=2,
        preFilterCap=63,
        mode=cv2.STEREO_SGBM_MODE_SGBM,
    )

    def match_blocks(left: Tensor, right: Tensor) -> Tensor:
        disparities = [_match(engine, search_px, *pair) for pair in zip(_bgr(left), _bgr(right), strict=True)]
        return torch.from_numpy(np.stack(disparities))[:, None]

    return match_blocks


def _match(engine: cv2.StereoSGBM, search_px: int, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    # OpenCV skips the first `search_px` columns, hence the padding.
    pad = ((0, 0), (search_px, 0), (0, 0))
    sixteenths = engine.compute(np.pad(left, pad, "edge"), np.pad(right, pad, "edge"))[:, search_px:]
    return np.where(sixteenths < 0, np.nan, sixteenths / _SUBPIXELS).astype(np.float32)


def _bgr(frames: Tensor) -> np.ndarray:
    pixels = (frames.clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(pixels.flip(1).permute(0, 2, 3, 1).numpy())
