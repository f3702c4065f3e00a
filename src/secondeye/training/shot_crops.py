"""Random crops of windows to train inpainters on: crops with holes are preferred, colours are augmented."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from secondeye.training.column_offsets import column_range, offset_range
from secondeye.training.stereo_shot import StereoShot

CANDIDATES = 6  # crops, of which the one with the most hole pixels is taken
CANDIDATES_SHARE = 0.8  # of draws that choose among candidates; the others take any crop
GAIN = (0.85, 1.1)  # of each colour channel; black stays black, so holes stay holes


class ShotCrop(NamedTuple):
    """Where a sample lies in its window, and its augmentation."""

    top: int  # px
    left: int  # px
    height: int  # px
    width: int  # px
    flipped: bool  # upside down; mirroring would swap the views
    gain: tuple[float, float, float]  # of red, green and blue


def draw_views(
    window: StereoShot,  # quantized
    height: int,  # px of the crop
    width: int,  # px
    border_hole_percent: float,  # of the crop's width, see `draw_column_offset`; 0: the same columns
    rng: np.random.Generator,
) -> StereoShot:  # quantized, [T, C, height, width]
    """Draw a crop of both views.

    The left view is cropped at another column than the right view, so that holes open at both borders.
    """
    crop = draw_crop(window.coverage, height, width, rng)
    if not border_hole_percent:
        return StereoShot(*(crop_plane(plane, crop) for plane in window.planes))
    return crop_views(window, *draw_column_offset(window, crop, border_hole_percent, rng))


def draw_crop(
    coverage: Tensor,  # uint8 [T, 1, H, W], at least as large as the crop
    height: int,
    width: int,
    rng: np.random.Generator,
) -> ShotCrop:
    """Draw a crop, the same for both views."""
    last = coverage[-1, 0].numpy()
    count = CANDIDATES if rng.random() < CANDIDATES_SHARE else 1
    tops = rng.integers(last.shape[0] - height + 1, size=count)
    lefts = rng.integers(last.shape[1] - width + 1, size=count)
    holes = [
        np.count_nonzero(last[top : top + height, left : left + width] < 128)
        for top, left in zip(tops, lefts, strict=True)
    ]
    best = int(np.argmax(holes))
    flipped = bool(rng.random() < 0.5)
    red, green, blue = (float(gain) for gain in rng.uniform(*GAIN, size=3))
    return ShotCrop(int(tops[best]), int(lefts[best]), height, width, flipped, (red, green, blue))


def draw_column_offset(
    window: StereoShot,  # quantized
    crop: ShotCrop,
    border_hole_percent: float,  # of the crop's width, a border hole beside points at the median disparity
    rng: np.random.Generator,
) -> tuple[ShotCrop, int]:  # px
    """Draw the left crop's column less the right crop's; the right crop moves if there is no room."""
    rows = slice(crop.top, crop.top + crop.height), slice(crop.left, crop.left + crop.width)
    disparity = window.disparity[..., *rows][window.coverage[..., *rows] > 0]
    median = float(disparity.float().median()) if len(disparity) else 0.0
    room = window.coverage.shape[-1] - crop.width
    low, high = offset_range(median, room, border_hole_percent / 100 * crop.width)
    offset = int(rng.integers(low, high + 1))
    first, last = column_range(offset, room)
    return crop._replace(left=min(max(crop.left, first), last)), offset


def crop_views(
    window: StereoShot,  # quantized
    crop: ShotCrop,  # of the right view
    offset_px: int,  # left column less right column
) -> StereoShot:  # quantized [T, C, crop.height, crop.width]
    """Crop both views; what lies outside the left crop becomes a hole."""
    left = crop_plane(window.left, crop._replace(left=crop.left + offset_px))
    right, warped, coverage, disparity = (crop_plane(plane, crop) for plane in window.planes[1:])
    disparity = disparity.float() - offset_px
    source = torch.arange(crop.width) + disparity  # column of the left crop
    inside = (source >= -0.5) & (source < crop.width - 0.5)
    coverage = coverage * inside
    return StereoShot(left, right, warped * inside, coverage, (disparity * (coverage > 0)).half())


def crop_plane(
    plane: Tensor,  # [T, C, H, W], a plane of the window, quantized
    crop: ShotCrop,
) -> Tensor:  # of the same type, [T, C, height, width]
    """Crop and augment one plane; the gain applies to images (three channels) only."""
    rows = slice(crop.top, crop.top + crop.height)
    columns = slice(crop.left, crop.left + crop.width)
    part = plane[..., rows, columns]
    part = part.flip(-2) if crop.flipped else part
    return _apply_gain(part, crop.gain) if part.shape[1] == 3 else part.contiguous()


def _apply_gain(frames: Tensor, gain: tuple[float, float, float]) -> Tensor:
    """Multiply the channels of 8-bit frames, rounded to 8 bits again."""
    brighter = np.rint(np.arange(256)[None] * np.array(gain)[:, None]).clip(0, 255).astype(np.uint8)
    channels = [table[frames[:, channel].numpy()] for channel, table in enumerate(brighter)]
    return torch.from_numpy(np.stack(channels, axis=1))
