"""The light inpainter's network: its layers.

It works on pixels, one frame at a time, and predicts a residual to what `fill` made: of brightness only, so
that chroma is that of the surroundings and a gray film stays gray. Colours are given, and the residual is
returned, as multiples of the local contrast, so that dark films are treated like bright ones.
There is no other normalisation and the receptive field is HALO_PX: a crop with that margin gives the same
result as the whole frame. Every layer needs less of the margin than the one before, so it is cut on the way,
which halves the work on a typical crop. Blocks are depthwise separable (ConvNeXt, Liu et al. 2022), at a
fifth of the cost of full convolutions.
"""

import numba
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secondeye.inpaint.light_inputs import (
    DOWN_MARGIN_PX,
    INPUT_CHANNELS,
    NO_MARGIN,
    Margin,
    cut_margin,
)

CHANNELS = (32, 64, 192)  # at a half, a quarter and an eighth of the size
# How much of the margin is kept: before each block at an eighth of the size, and before the first layer after
# them.
MIDDLE_MARGINS_PX, UP_MARGIN_PX = (40, 32, 24), 16


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
        packed: Tensor,  # [B, H / 2, W / 2, 4 INPUT_CHANNELS] from `pack_planes` or `pack_crop`
        contrast: Tensor,  # [B, 1, h, w] from there
        margin: Margin = NO_MARGIN,  # as given there
    ) -> Tensor:  # [B, 1, h, w] to add to R, G and B of the filled frame in holes, without the margin
        """Return the residual; any size."""
        height, width = contrast.shape[-2:]
        kept = Margin(*(min(side, DOWN_MARGIN_PX) for side in margin))
        margin_left = kept._replace(
            bottom=2 * packed.shape[1] - kept.top - height, right=2 * packed.shape[2] - kept.left - width
        )
        half = self.down_half(self.head(packed))
        quarter = self.down_quarter(_halve(self.to_quarter, half))
        deep, deep_margin = _halve(self.to_eighth, quarter), margin_left
        for block, keep_px in zip(self.middle, MIDDLE_MARGINS_PX, strict=True):
            deep, deep_margin = _cut_pixels(deep, deep_margin, keep_px, 8)
            deep = block(deep)
        deep, _ = _cut_pixels(deep, deep_margin, UP_MARGIN_PX, 8)
        quarter, _ = _cut_pixels(quarter, margin_left, UP_MARGIN_PX, 4)
        half, margin_left = _cut_pixels(half, margin_left, UP_MARGIN_PX, 2)
        quarter = self.up_quarter(quarter + _double(self.from_eighth, deep))
        half = self.up_half(half + _double(self.from_quarter, quarter))
        residual = F.pixel_shuffle(self.tail(F.relu(half).permute(0, 3, 1, 2)), 2)
        rows = slice(margin_left.top, margin_left.top + height)
        columns = slice(margin_left.left, margin_left.left + width)
        return residual[..., rows, columns].mean(1, keepdim=True) * contrast


def _cut_pixels(pixels: Tensor, margin: Margin, keep_px: int, scale: int) -> tuple[Tensor, Margin]:
    """Run `cut_margin` for [B, h, w, C]."""
    planes, kept = cut_margin(pixels.permute(0, 3, 1, 2), margin, keep_px, scale)
    return planes.permute(0, 2, 3, 1), kept


# Inside the network, tensors are [B, h, w, C]. Crops have ever new sizes, and oneDNN compiles each
# convolution again for each of them, which took a quarter of the time. Linear layers and our kernel are
# compiled once for all sizes, and give the same bits for any number of threads.


class Block(nn.Module):
    """A depthwise convolution, then a per-pixel MLP, with a residual connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.widen = nn.Linear(channels, 2 * channels)
        self.narrow = nn.Linear(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:  # [B, h, w, C]
        result: Tensor = self.narrow(F.relu(self.widen(_depthwise(self.near, x)), inplace=True))
        return x + result


def _halve(layer: nn.Conv2d, pixels: Tensor) -> Tensor:  # [B, h, w, C] -> [B, h / 2, w / 2, C']
    """Apply a convolution with kernel and stride 2."""
    squares = pixels.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).transpose(2, 3).flatten(3)
    return F.linear(squares, layer.weight.permute(0, 2, 3, 1).flatten(1), layer.bias)


def _double(layer: nn.ConvTranspose2d, pixels: Tensor) -> Tensor:  # [B, h, w, C] -> [B, 2 h, 2 w, C']
    """Apply a transposed convolution with kernel and stride 2."""
    assert layer.bias is not None
    squares = F.linear(pixels, layer.weight.permute(2, 3, 1, 0).flatten(0, 2), layer.bias.repeat(4))
    return squares.unflatten(3, (2, 2, -1)).transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _depthwise(layer: nn.Conv2d, pixels: Tensor) -> Tensor:  # [B, h, w, C]
    """Apply a depthwise 3 x 3 convolution."""
    if torch.is_grad_enabled() or pixels.device.type != "cpu" or pixels.dtype != torch.float32:
        result: Tensor = layer(pixels.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return result
    assert layer.bias is not None
    weight = layer.weight.flatten(1).T.contiguous()
    convolved = torch.empty(pixels.shape)
    _convolve(pixels.contiguous().numpy(), weight.numpy(), layer.bias.numpy(), convolved.numpy())
    return convolved


@numba.njit(cache=True, nogil=True)
def _convolve(
    pixels: np.ndarray,  # [B, h, w, C]
    weight: np.ndarray,  # [9, C] by row and column
    bias: np.ndarray,  # [C]
    convolved: np.ndarray,  # [B, h, w, C], written
) -> None:
    """Convolve each channel with its 3 x 3 weights; zero outside."""
    batch, height, width, channels = pixels.shape
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                total = convolved[b, y, x]
                for c in range(channels):
                    total[c] = bias[c]
                for j in range(max(0, y - 1), min(height, y + 2)):
                    for i in range(max(0, x - 1), min(width, x + 2)):
                        near, tap = pixels[b, j, i], weight[3 * (j - y + 1) + i - x + 1]
                        for c in range(channels):
                            total[c] += tap[c] * near[c]
