"""Random crops of shots to train inpainters on: crops with holes are preferred, colours are augmented."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from secondeye.training.column_offsets import column_range, offset_range
from secondeye.training.stereo_shot import StereoShot, usable_frames

CANDIDATES = 6  # crops, of which the one with the most hole pixels is taken
CANDIDATES_SHARE = 0.8  # of draws that choose among candidates; the others take any crop
MAX_HOLE_SHARE = 0.05  # of the crop's width, a border hole beside points at the median disparity
GAIN = (0.85, 1.1)  # of each colour channel; black stays black, so holes stay holes


class ShotCrop(NamedTuple):
    """Where a sample lies in the shots, and its augmentation."""

    shot: int  # index in [*stereo, *mono]
    start: int  # first frame
    frames: int
    top: int  # px
    left: int  # px
    height: int  # px
    width: int  # px
    flipped: bool  # upside down; mirroring would swap the views
    gain: tuple[float, float, float]  # of red, green and blue


def draw_shot(
    stereo: Sequence[StereoShot],  # quantized
    mono: Sequence[StereoShot],  # quantized
    mono_share: float,  # [0, 1] of the draws; if one kind is missing the other is taken
    height: int,  # px of the crop
    width: int,  # px
    frames: int,  # consecutive
    rng: np.random.Generator,
) -> StereoShot:  # float32 [frames, C, height, width]
    """Draw a random crop of a random shot; depends on the generator alone.

    The left view is cropped at another column than the right view, so that holes open at both borders. Raises
    ValueError if no shot is as large and as long as that.
    """
    crop = draw_crop(stereo, mono, mono_share, height, width, frames, rng)
    shot = [*stereo, *mono][crop.shot]
    return crop_views(shot, *draw_column_offset(shot, crop, rng))


def draw_crop(
    stereo: Sequence[StereoShot],
    mono: Sequence[StereoShot],
    mono_share: float,
    height: int,
    width: int,
    frames: int,
    rng: np.random.Generator,
) -> ShotCrop:
    """Draw a crop, the same for both views; shots are drawn in proportion to their frames."""
    shots = [*stereo, *mono]
    index = _draw_index(stereo, mono, mono_share, (frames, height, width), rng)
    coverage = shots[index].coverage
    start = int(rng.integers(len(coverage) - frames + 1))
    count = CANDIDATES if rng.random() < CANDIDATES_SHARE else 1
    tops = rng.integers(coverage.shape[2] - height + 1, size=count)
    lefts = rng.integers(coverage.shape[3] - width + 1, size=count)
    last = coverage[start + frames - 1, 0].numpy()
    holes = [
        np.count_nonzero(last[top : top + height, left : left + width] < 128)
        for top, left in zip(tops, lefts, strict=True)
    ]
    best = int(np.argmax(holes))
    flipped = bool(rng.random() < 0.5)
    red, green, blue = (float(gain) for gain in rng.uniform(*GAIN, size=3))
    return ShotCrop(
        index, start, frames, int(tops[best]), int(lefts[best]), height, width, flipped, (red, green, blue)
    )


def draw_column_offset(
    shot: StereoShot,  # quantized
    crop: ShotCrop,
    rng: np.random.Generator,
) -> tuple[ShotCrop, int]:  # px
    """Draw the left crop's column less the right crop's; the right crop moves if there is no room."""
    disparity = crop_plane(shot.disparity, crop)[crop_plane(shot.coverage, crop) > 0]
    median = float(disparity.median()) if len(disparity) else 0.0
    room = shot.coverage.shape[-1] - crop.width
    low, high = offset_range(median, room, MAX_HOLE_SHARE * crop.width)
    offset = int(rng.integers(low, high + 1))
    first, last = column_range(offset, room)
    return crop._replace(left=min(max(crop.left, first), last)), offset


def crop_views(
    shot: StereoShot,  # quantized
    crop: ShotCrop,  # of the right view
    offset_px: int,  # left column less right column
) -> StereoShot:  # float32 [frames, C, crop.height, crop.width]
    """Crop both views; what lies outside the left crop becomes a hole."""
    left = crop_plane(shot.left, crop._replace(left=crop.left + offset_px))
    right, warped, coverage, disparity = (crop_plane(plane, crop) for plane in shot.planes[1:])
    disparity = disparity - offset_px
    source = torch.arange(crop.width) + disparity  # column of the left crop
    inside = (source >= -0.5) & (source < crop.width - 0.5)
    coverage = coverage * inside
    return StereoShot(left, right, warped * inside, coverage, disparity * (coverage > 0), shot.film)


def crop_plane(
    plane: Tensor,  # [T, C, H, W], a plane of the crop's shot, quantized
    crop: ShotCrop,
) -> Tensor:  # float32 [frames, C, height, width]
    """Crop and augment one plane; the gain applies to images (three channels) only."""
    rows = slice(crop.top, crop.top + crop.height)
    columns = slice(crop.left, crop.left + crop.width)
    part = plane[crop.start : crop.start + crop.frames, :, rows, columns]
    part = part.float() / 255 if part.dtype == torch.uint8 else part.float()
    part = part.flip(-2) if crop.flipped else part
    if part.shape[1] == 3:
        part = (part * torch.tensor(crop.gain).view(1, 3, 1, 1)).clamp(0, 1)
    return part.contiguous()


def _draw_index(
    stereo: Sequence[StereoShot],
    mono: Sequence[StereoShot],
    mono_share: float,
    min_size: tuple[int, int, int],  # frames, height, width
    rng: np.random.Generator,
) -> int:
    """Draw a shot that is large enough; returns its index in [*stereo, *mono]."""
    weights = np.array([usable_frames(shot, min_size) for shot in (*stereo, *mono)], np.float64)
    if not weights.any():
        raise ValueError(
            f"no shot of {len(weights)} has {min_size[0]} frames of at least {min_size[2]}x{min_size[1]}"
        )
    if weights[: len(stereo)].any() and weights[len(stereo) :].any():
        weights[: len(stereo)] *= (1 - mono_share) / weights[: len(stereo)].sum()
        weights[len(stereo) :] *= mono_share / weights[len(stereo) :].sum()
    return int(rng.choice(len(weights), p=weights / weights.sum()))
