"""The light inpainter's input: what the network sees of a frame, normalised by the local contrast.

Training stacks planes and packs them, differentiably (`stack_inputs`, `warp_previous`, `pack_planes`).
Conversion does the same to one crop in one pass over its pixels (`pack_crop`).
"""

from typing import NamedTuple

import cv2
import numba
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from secondeye.inpaint.fill import FULL_COVERAGE, flow_between

SIDE_MULTIPLE_PX = 8  # sides are padded to multiples of it
HALO_PX = 56  # receptive field on each side, a multiple of SIDE_MULTIPLE_PX
DISPARITY_SCALE = 10.0  # a disparity of a tenth of the width becomes 1
INPUT_CHANNELS = 15  # warped 3, coverage, left 3, disparity, previous 3, its validity, filled 3
WARPED, COVERAGE, LEFT = slice(0, 3), slice(3, 4), slice(4, 7)  # slices of these
DISPARITY = slice(7, 8)
PREVIOUS, PREVIOUS_COLOURS, PREVIOUS_VALID = slice(8, 12), slice(8, 11), slice(11, 12)
FILLED = slice(12, 15)
_WARPED, _COVERAGE, _LEFT, _DISPARITY, _PREVIOUS, _VALID, _FILLED = (
    part.start for part in (WARPED, COVERAGE, LEFT, DISPARITY, PREVIOUS_COLOURS, PREVIOUS_VALID, FILLED)
)  # for numba
CONTRAST_PX = 17  # side of the square in which contrast is measured
MIN_CONTRAST = 0.004  # about one of 255 gray levels
MAX_NORMALISED = 4.0  # of a colour, as a multiple of the local contrast
DOWN_MARGIN_PX = 48  # what the layers need of the margin; local contrast needs the rest


class Margin(NamedTuple):
    """What planes show beyond what is to be computed, px."""

    top: int
    bottom: int
    left: int
    right: int


NO_MARGIN = Margin(0, 0, 0, 0)


def cut_margin(planes: Tensor, margin: Margin, keep_px: int, scale: int) -> tuple[Tensor, Margin]:
    """Cut what exceeds `keep_px` of the margin off planes at 1 / scale of the size; also return the rest."""
    kept = Margin(*(min(side, keep_px) for side in margin))
    top, bottom, left, right = ((side - keep) // scale for side, keep in zip(margin, kept, strict=True))
    height, width = planes.shape[-2:]
    return planes[..., top : height - bottom, left : width - right], kept


def pack_planes(
    planes: Tensor,  # [B, INPUT_CHANNELS, H, W] from `stack_inputs`
    margin: Margin = NO_MARGIN,  # of the planes, multiples of SIDE_MULTIPLE_PX, or 0; below and right any
) -> tuple[Tensor, Tensor]:  # of `Light.forward`
    """Normalise planes, cut their margin to DOWN_MARGIN_PX and join squares of 2 x 2 px.

    Returns [B, H / 2, W / 2, 4 INPUT_CHANNELS], padded to SIDE_MULTIPLE_PX, and the contrast [B, 1, h, w]
    without the margin.
    """
    mean, contrast = local_statistics(planes[:, FILLED])
    inputs = normalise(*(cut_margin(part, margin, DOWN_MARGIN_PX, 1)[0] for part in (planes, mean, contrast)))
    padding = (0, -inputs.shape[-1] % SIDE_MULTIPLE_PX, 0, -inputs.shape[-2] % SIDE_MULTIPLE_PX)
    padded = F.pad(inputs, padding, mode="replicate") if any(padding) else inputs
    return F.pixel_unshuffle(padded, 2).permute(0, 2, 3, 1), cut_margin(contrast, margin, 0, 1)[0]


def normalise(
    planes: Tensor,  # [B, INPUT_CHANNELS, H, W] from `stack_inputs`
    mean: Tensor,  # [B, 3, H, W] from `local_statistics`
    contrast: Tensor,  # [B, 1, H, W]
) -> Tensor:  # [B, INPUT_CHANNELS, H, W]
    """Subtract the local mean from colours and divide by the local contrast; masked pixels stay 0.

    The residual is scaled by the same contrast, so flat areas stay as filled.
    """

    def divide(colours: slice, offset: Tensor) -> Tensor:
        return ((planes[:, colours] - offset) / contrast).clamp_(-MAX_NORMALISED, MAX_NORMALISED)

    coverage, valid = planes[:, COVERAGE], planes[:, PREVIOUS_VALID]
    return torch.cat(
        [
            divide(WARPED, coverage * mean),
            coverage,
            divide(LEFT, mean),
            planes[:, DISPARITY],
            divide(PREVIOUS_COLOURS, valid * mean),
            valid,
            divide(FILLED, mean),
        ],
        dim=1,
    )


def local_statistics(
    frames: Tensor,  # [B, 3, H, W] in [0, 1]
) -> tuple[Tensor, Tensor]:  # [B, 3, H, W] mean, [B, 1, H, W] standard deviation, at least MIN_CONTRAST
    """Return mean and contrast in a square of CONTRAST_PX around each pixel."""
    planes = torch.cat([frames, (frames**2).mean(1, keepdim=True), torch.ones_like(frames[:, :1])], dim=1)
    sums = _moving_sum(_moving_sum(planes, -1), -2)
    means = sums[:, :4] / sums[:, 4:]  # at the borders over the pixels inside
    variance = means[:, 3:] - (means[:, :3] ** 2).mean(1, keepdim=True)
    return means[:, :3], (variance.clamp(min=0) + MIN_CONTRAST**2).sqrt()


def _moving_sum(planes: Tensor, axis: int) -> Tensor:
    """Sum over CONTRAST_PX along an axis by doubling: five additions and no accumulating error."""
    size, reach = planes.shape[axis], CONTRAST_PX // 2
    padding = (reach, reach) if axis == -1 else (0, 0, reach, reach)
    padded = sums = F.pad(planes, padding)
    for px in (1, 2, 4, 8):
        length = sums.shape[axis] - px
        sums = sums.narrow(axis, 0, length) + sums.narrow(axis, px, length)
    return sums.narrow(axis, 0, size) + padded.narrow(axis, CONTRAST_PX - 1, size)


def stack_inputs(
    warped: Tensor,  # [3, H, W] in [0, 1]
    coverage: Tensor,  # [1, H, W] in [0, 1]
    left: Tensor,  # [3, H, W] in [0, 1]
    disparity: Tensor,  # [1, H, W] px, of the right view, the background's in holes
    filled: Tensor,  # [3, H, W] in [0, 1]
    width: int,  # px, of the whole frame if these are a crop
) -> Tensor:  # [INPUT_CHANNELS, H, W]
    """Stack the network's input of one frame; PREVIOUS is zero, as for the first frame of a shot."""
    previous = torch.zeros(4, *filled.shape[1:])
    return torch.cat([warped, coverage, left, disparity * (DISPARITY_SCALE / width), previous, filled])


def pack_crop(
    warped: np.ndarray,  # [H, W, 3], whole frames, in [0, levels]
    coverage: np.ndarray,  # [H, W] in [0, 1]
    left: np.ndarray,  # [H, W, 3]
    disparity: np.ndarray,  # [H, W] px
    filled: np.ndarray,  # [H, W, 3]
    previous: np.ndarray,  # [H, W, 3]; not read without a flow
    flow: Tensor | None,  # [2, H, W] px to the previous frame; None at the start of a shot
    rows: slice,  # of the crop with its margin
    columns: slice,
    margin: Margin,
) -> tuple[Tensor, Tensor]:  # of `Light.forward`
    """Compute `pack_planes` of `stack_inputs` and `warp_previous` for one crop, in one pass."""
    levels = 255.0 if filled.dtype == np.uint8 else 1.0
    crop = torch.from_numpy(filled[rows, columns]).permute(2, 0, 1) / levels
    mean, contrast = local_statistics(crop[None])
    kept = Margin(*(min(side, DOWN_MARGIN_PX) for side in margin))
    top, left_px = rows.start + margin.top - kept.top, columns.start + margin.left - kept.left
    bottom, right = rows.stop - margin.bottom + kept.bottom, columns.stop - margin.right + kept.right
    height, width = (
        -(-side // SIDE_MULTIPLE_PX) * SIDE_MULTIPLE_PX for side in (bottom - top, right - left_px)
    )
    packed = torch.empty(1, height // 2, width // 2, 4 * INPUT_CHANNELS)
    moved = np.empty((0, 0, 0), np.float32) if flow is None else flow.numpy()
    statistics = mean[0].numpy(), contrast[0, 0].numpy()
    corners = rows.start, columns.start, top, bottom, left_px, right
    frames = warped, coverage, left, disparity, filled, previous
    _pack(*frames, moved, *statistics, *corners, levels, packed[0].numpy())
    return packed, cut_margin(contrast, margin, 0, 1)[0]


@numba.njit(cache=True, nogil=True)
def _pack(
    warped: np.ndarray,
    coverage: np.ndarray,
    left: np.ndarray,
    disparity: np.ndarray,
    filled: np.ndarray,
    previous: np.ndarray,
    flow: np.ndarray,  # [2, H, W] px, or without values
    mean: np.ndarray,  # [3, h, w] of the crop
    contrast: np.ndarray,  # [h, w]
    crop_top: int,  # px
    crop_left: int,
    top: int,  # px: the part to pack, in the frame
    bottom: int,
    left_px: int,
    right: int,
    levels: float,
    packed: np.ndarray,  # [h / 2, w / 2, 4 INPUT_CHANNELS], written; beyond the part its border is repeated
) -> None:
    height, width = coverage.shape
    for i in range(2 * packed.shape[0]):
        for j in range(2 * packed.shape[1]):
            y, x = min(top + i, bottom - 1), min(left_px + j, right - 1)
            out, k = packed[i // 2, j // 2], 2 * (i % 2) + j % 2
            scale, share = contrast[y - crop_top, x - crop_left], coverage[y, x]
            valid, before_y, before_x = np.float32(0), 0.0, 0.0
            if flow.size > 0:
                before_x, before_y = x + flow[0, y, x], y + flow[1, y, x]
                if 0 <= before_x <= width - 1 and 0 <= before_y <= height - 1:
                    valid = np.float32(1)
            out[4 * _COVERAGE + k], out[4 * _VALID + k] = share, valid
            out[4 * _DISPARITY + k] = disparity[y, x] * (DISPARITY_SCALE / width)
            for c in range(3):
                offset = mean[c, y - crop_top, x - crop_left]
                out[4 * (_WARPED + c) + k] = _clamp((warped[y, x, c] / levels - share * offset) / scale)
                out[4 * (_LEFT + c) + k] = _clamp((left[y, x, c] / levels - offset) / scale)
                out[4 * (_FILLED + c) + k] = _clamp((filled[y, x, c] / levels - offset) / scale)
                out[4 * (_PREVIOUS + c) + k] = np.float32(0)
                if valid > 0:
                    colour = _bilinear(previous, before_y, before_x, c) / levels
                    out[4 * (_PREVIOUS + c) + k] = _clamp((colour - offset) / scale)


@numba.njit(cache=True, nogil=True)
def _clamp(value: float) -> float:
    return min(max(value, -MAX_NORMALISED), MAX_NORMALISED)


@numba.njit(cache=True, nogil=True)
def _bilinear(frame: np.ndarray, y: float, x: float, channel: int) -> float:
    """Sample a position inside the frame."""
    top, left = int(y), int(x)
    bottom, right = min(top + 1, frame.shape[0] - 1), min(left + 1, frame.shape[1] - 1)
    v, u = np.float32(y - top), np.float32(x - left)
    above = (1 - u) * frame[top, left, channel] + u * frame[top, right, channel]
    below = (1 - u) * frame[bottom, left, channel] + u * frame[bottom, right, channel]
    return (1 - v) * above + v * below


def flow_to_previous(
    gray: Tensor,  # uint8 [h, w], the filled frame from `flow_gray`
    previous: Tensor,  # uint8 [h, w], the previous frame, filled
    height: int,  # px of the frame
    width: int,  # px
) -> Tensor:  # [2, height, width] px
    """Return the optical flow to the previous frame; zero for frames that are too small for it."""
    small = flow_between(gray, previous)
    if small is None:
        return torch.zeros(2, height, width)
    scale = np.array([width / small.shape[1], height / small.shape[0]], np.float32)
    flow = cv2.resize(small * scale, (width, height), interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(flow).permute(2, 0, 1)


def warp_previous(
    previous: Tensor,  # [B, 3, H, W] the previous frame, inpainted
    flow: Tensor,  # [B, 2, H, W] px from `flow_to_previous`
) -> Tensor:  # [B, 4, H, W] the PREVIOUS channels: colours, and 1 where they are valid
    """Warp the previous frame backward along the flow; black outside of it."""
    height, width = previous.shape[-2:]
    x = flow[:, 0] + torch.arange(width, device=flow.device)
    y = flow[:, 1] + torch.arange(height, device=flow.device)[:, None]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    grid = torch.stack([2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1], dim=-1)
    moved = F.grid_sample(previous, grid, "bilinear", "border", align_corners=True)
    return torch.cat([moved * inside[:, None], inside[:, None].to(moved.dtype)], dim=1)


def soft_hole_mask(
    coverage: Tensor,  # [..., H, W] in [0, 1], of whole frames
) -> Tensor:
    """Return the share of each pixel that the residual may change: 1 - coverage, 0 where fully covered.

    Also 0 at the frame's border, left of the first and right of the last covered pixel of a row: what `fill`
    extends there is closer to the truth than what the network makes of it (measured).
    """
    covered = coverage >= FULL_COVERAGE
    column, width = torch.arange(coverage.shape[-1], device=coverage.device), coverage.shape[-1]
    first = covered.byte().argmax(-1, keepdim=True)
    last = width - 1 - covered.flip(-1).byte().argmax(-1, keepdim=True)
    is_hole = ~covered & covered.any(-1, keepdim=True) & (first < column) & (column < last)
    return torch.where(is_hole, 1 - coverage, torch.zeros_like(coverage))
