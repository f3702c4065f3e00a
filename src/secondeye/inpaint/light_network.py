"""The light inpainter's network: inputs, normalisation and layers.

It works on pixels, one frame at a time, and predicts a residual to what `fill` made. Colours are given, and
the residual is returned, as multiples of the local contrast, so that dark films are treated like bright ones.
There is no other normalisation and the receptive field is HALO_PX: a crop with that margin gives the same
result as the whole frame. Every layer needs less of the margin than the one before, so it is cut on the way,
which halves the work on a typical crop. Blocks are depthwise separable (ConvNeXt, Liu et al. 2022), at a
fifth of the cost of full convolutions.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secondeye.inpaint.fill import FULL_COVERAGE, flow_between

CHANNELS = (32, 64, 192)  # at a half, a quarter and an eighth of the size
SIDE_MULTIPLE_PX = 8  # sides are padded to multiples of it
HALO_PX = 56  # receptive field on each side, a multiple of SIDE_MULTIPLE_PX
DISPARITY_SCALE = 10.0  # a disparity of a tenth of the width becomes 1
INPUT_CHANNELS = 15  # warped 3, coverage, left 3, disparity, previous 3, its validity, filled 3
WARPED, COVERAGE, LEFT = slice(0, 3), slice(3, 4), slice(4, 7)  # slices of these
PREVIOUS, PREVIOUS_COLOURS, PREVIOUS_VALID = slice(8, 12), slice(8, 11), slice(11, 12)
FILLED = slice(12, 15)
CONTRAST_PX = 17  # side of the square in which contrast is measured
MIN_CONTRAST = 0.004  # about one of 255 gray levels
MAX_NORMALISED = 4.0  # of a colour, as a multiple of the local contrast


# Of the margin, what is left of the receptive field: before the first layer, before each block at an eighth
# of the size, and before the first layer after these.
DOWN_MARGIN_PX, MIDDLE_MARGINS_PX, UP_MARGIN_PX = 48, (40, 32, 24), 16


class Margin(NamedTuple):
    """What planes show beyond what is to be computed, px."""

    top: int
    bottom: int
    left: int
    right: int


NO_MARGIN = Margin(0, 0, 0, 0)


class Light(nn.Module):
    """A residual U-Net at half the frame's size and less; its last layer is initialised to zero."""

    def __init__(self, channels: tuple[int, int, int]) -> None:
        super().__init__()
        self.channels = channels
        half, quarter, eighth = channels
        self.head = nn.Linear(INPUT_CHANNELS * 4, half)
        self.down_half = Block(half)
        self.to_quarter = nn.Conv2d(half, quarter, 2, stride=2)
        self.down_quarter = Block(quarter)
        self.to_eighth = nn.Conv2d(quarter, eighth, 2, stride=2)
        self.middle = nn.Sequential(Block(eighth), Block(eighth), Block(eighth))
        self.from_eighth = nn.ConvTranspose2d(eighth, quarter, 2, stride=2)
        self.up_quarter = nn.Sequential(Block(quarter), Block(quarter))
        self.from_quarter = nn.ConvTranspose2d(quarter, half, 2, stride=2)
        self.up_half = Block(half)
        self.tail = nn.Conv2d(half, 3 * 4, 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]

    def forward(
        self,
        planes: Tensor,  # [B, INPUT_CHANNELS, H, W] from `stack_inputs`
        margin: Margin = NO_MARGIN,  # of the planes, multiples of SIDE_MULTIPLE_PX, or 0
    ) -> Tensor:  # [B, 3, h, w] to add to the filled frame in holes, without the margin
        """Return the residual; any size."""
        inputs, contrast = normalise(planes)
        height, width = planes.shape[-2:]
        height, width = height - margin.top - margin.bottom, width - margin.left - margin.right
        inputs, margin_left = _cut(inputs, margin, DOWN_MARGIN_PX, 1)
        padding = (0, -inputs.shape[-1] % SIDE_MULTIPLE_PX, 0, -inputs.shape[-2] % SIDE_MULTIPLE_PX)
        padded = F.pad(inputs, padding, mode="replicate") if any(padding) else inputs
        margin_left = margin_left._replace(
            bottom=margin_left.bottom + padding[3], right=margin_left.right + padding[1]
        )
        packed = F.pixel_unshuffle(padded, 2).contiguous(memory_format=torch.channels_last)
        half = self.down_half(_per_pixel(self.head, packed))
        quarter = self.down_quarter(self.to_quarter(half))
        deep, deep_margin = self.to_eighth(quarter), margin_left
        for block, keep_px in zip(self.middle, MIDDLE_MARGINS_PX, strict=True):
            deep, deep_margin = _cut(deep, deep_margin, keep_px, 8)
            deep = block(deep)
        deep, _ = _cut(deep, deep_margin, UP_MARGIN_PX, 8)
        quarter, _ = _cut(quarter, margin_left, UP_MARGIN_PX, 4)
        half, margin_left = _cut(half, margin_left, UP_MARGIN_PX, 2)
        quarter = self.up_quarter(quarter + self.from_eighth(deep))
        half = self.up_half(half + self.from_quarter(quarter))
        residual = F.pixel_shuffle(self.tail(F.relu(half)), 2)
        rows = slice(margin_left.top, margin_left.top + height)
        columns = slice(margin_left.left, margin_left.left + width)
        return residual[..., rows, columns] * _cut(contrast, margin, 0, 1)[0]


def _cut(planes: Tensor, margin: Margin, keep_px: int, scale: int) -> tuple[Tensor, Margin]:
    """Cut what exceeds `keep_px` of the margin off planes at 1 / scale of the size; also return the rest."""
    kept = Margin(*(min(side, keep_px) for side in margin))
    top, bottom, left, right = ((side - keep) // scale for side, keep in zip(margin, kept, strict=True))
    height, width = planes.shape[-2:]
    return planes[..., top : height - bottom, left : width - right], kept


class Block(nn.Module):
    """A depthwise convolution, then a per-pixel MLP, with a residual connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.widen = nn.Linear(channels, 2 * channels)
        self.narrow = nn.Linear(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + _per_pixel(
            lambda pixels: self.narrow(F.relu(self.widen(pixels), inplace=True)), self.near(x)
        )


def _per_pixel(layer: Callable[[Tensor], Tensor], planes: Tensor) -> Tensor:
    """Apply a linear layer to each pixel: unlike a 1x1 convolution it gives the same bits for any threads."""
    return layer(planes.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def normalise(
    planes: Tensor,  # [B, INPUT_CHANNELS, H, W] from `stack_inputs`
) -> tuple[Tensor, Tensor]:  # normalised planes; [B, 1, H, W] the local contrast
    """Subtract the local mean from colours and divide by the local contrast; masked pixels stay 0.

    The residual is scaled by the same contrast, so flat areas stay as filled.
    """
    mean, contrast = local_statistics(planes[:, FILLED])
    normalised = planes.clone()
    for colours, share in (
        (WARPED, planes[:, COVERAGE]),
        (LEFT, 1.0),
        (PREVIOUS_COLOURS, planes[:, PREVIOUS_VALID]),
        (FILLED, 1.0),
    ):
        centred = (planes[:, colours] - share * mean) / contrast
        normalised[:, colours] = centred.clamp(-MAX_NORMALISED, MAX_NORMALISED)
    return normalised, contrast


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
    flow: Tensor,  # [B, 2, h, w] px from `flow_to_previous`
    top: int = 0,  # px: position of the flow's first pixel in the frame
    left: int = 0,  # px
) -> Tensor:  # [B, 4, h, w] the PREVIOUS channels: colours, and 1 where they are valid
    """Warp the previous frame backward along the flow; black outside of it."""
    height, width = previous.shape[-2:]
    x = flow[:, 0] + torch.arange(left, left + flow.shape[-1], device=flow.device)
    y = flow[:, 1] + torch.arange(top, top + flow.shape[-2], device=flow.device)[:, None]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    grid = torch.stack([2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1], dim=-1)
    moved = F.grid_sample(previous, grid, "bilinear", "border", align_corners=True)
    return torch.cat([moved * inside[:, None], inside[:, None].to(moved.dtype)], dim=1)


def soft_hole_mask(
    coverage: Tensor,  # [..., H, W] in [0, 1]
) -> Tensor:
    """Return the share of each pixel that the residual may change: 1 - coverage, 0 where fully covered."""
    return torch.where(coverage >= FULL_COVERAGE, torch.zeros_like(coverage), 1 - coverage)
