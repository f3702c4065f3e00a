"""The student's network: depth of one frame and its uncertainty.

An inverted-residual encoder, self-attention over the coarsest map, and a light decoder with skip connections.
The encoder is our own, with squeeze and excitation (Sandler et al., CVPR 2018; Howard et al., ICCV 2019), or
EfficientNet-Lite0, which starts from ImageNet weights. GroupNorm makes the network independent of the batch.
Names of submodules are names of tensors in weight files: a new name needs a new `student.KIND`.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secondeye.depth import efficientnet_lite
from secondeye.depth.cues import CUE_CHANNELS

Encoder = Literal["own", "efficientnet-lite0"]

STEM = 16  # channels at a half of the size, of both encoders
# Of our own encoder: channels, blocks and expansion at 1/4, 1/8, 1/16 and 1/32 of the size.
STAGES = ((24, 2, 3), (48, 3, 4), (96, 4, 4), (192, 4, 4))
GROUP = 8  # channels of a normalisation group
HEADS = 4  # of the self-attention
SQUEEZE = 4  # reduction of channels in squeeze and excitation
SIDE_MULTIPLE_PX = 32  # of both sides of the input
MAX_LOG_UNCERTAINTY = 5.0  # in absolute value


class Student(nn.Module):
    """The network; `height` and `width` are the size it is trained at and works best at."""

    rank_share: Tensor

    def __init__(self, height: int, width: int, encoder: Encoder = "own") -> None:
        super().__init__()
        self.height, self.width, self.encoder = height, width, encoder
        self.norms = nn.ModuleList()  # of the maps of an encoder without normalisation of its own
        if encoder == "own":
            self.stem, self.stages = _convolve(CUE_CHANNELS, STEM, 3, stride=2), _make_stages()
            channels = tuple(channels for channels, _, _ in STAGES)
        else:
            self.stem = efficientnet_lite.make_stem(CUE_CHANNELS)
            self.stages = efficientnet_lite.make_stages()
            channels = efficientnet_lite.CHANNELS
            self.norms.extend(_normalise(count) for count in (STEM, *channels))
        inputs = channels[-1]
        self.context = _Attention(inputs)
        ups = []
        for skip in (*channels[-2::-1], STEM):
            ups.append(_Up(inputs, skip))
            inputs = skip
        self.ups = nn.ModuleList(ups)
        self.head = nn.Conv2d(STEM, 2, 3, padding=1)
        # Measured rank correlation, relative to the one expected from the uncertainty, on held-out footage.
        self.register_buffer("rank_share", torch.ones(()))

    def forward(
        self,
        inputs: Tensor,  # [B, CUE_CHANNELS, h, w] from `stack_cues`; sides are multiples of 32
    ) -> tuple[Tensor, Tensor]:  # depth, log_uncertainty [B, 1, h, w]
        """Predict raw relative inverse depth and the logarithm of its expected absolute error.

        The error is in units of the mean absolute deviation of the true depth from its median.
        """
        channels, height, width = inputs.shape[1:]
        if channels != CUE_CHANNELS or height % SIDE_MULTIPLE_PX or width % SIDE_MULTIPLE_PX:
            raise ValueError(
                f"inputs must be [B, {CUE_CHANNELS}, h, w], h and w multiples of {SIDE_MULTIPLE_PX}, "
                f"got {list(inputs.shape)}"
            )
        maps = [self.stem(inputs.contiguous(memory_format=torch.channels_last))]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        if self.norms:
            maps = [norm(plane) for norm, plane in zip(self.norms, maps, strict=True)]
        decoded = self.context(maps.pop())
        for up in self.ups:
            decoded = up(decoded, maps.pop())
        both = F.interpolate(self.head(decoded), scale_factor=2.0, mode="bilinear", align_corners=False)
        depth, log_uncertainty = both.float().contiguous().split(1, dim=1)
        return depth, MAX_LOG_UNCERTAINTY * torch.tanh(log_uncertainty / MAX_LOG_UNCERTAINTY)


def _make_stages() -> nn.ModuleList:
    """Return the stages of our own encoder, each of which halves the size."""
    inputs, stages = STEM, []
    for channels, blocks, expansion in STAGES:
        first = _Block(inputs, channels, expansion, stride=2)
        rest = [_Block(channels, channels, expansion, stride=1) for _ in range(blocks - 1)]
        stages.append(nn.Sequential(first, *rest))
        inputs = channels
    return nn.ModuleList(stages)


class _Block(nn.Module):
    """Inverted residual: expand, depthwise convolution, squeeze and excitation, project."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.widen = _convolve(inputs, wide, 1)  # pointwise expansion
        self.look = _convolve(wide, wide, 3, stride=stride, groups=wide)  # depthwise
        self.squeeze = nn.Conv2d(wide, wide // SQUEEZE, 1)
        self.excite = nn.Conv2d(wide // SQUEEZE, wide, 1)
        # Pointwise projection, without an activation.
        self.narrow = nn.Sequential(nn.Conv2d(wide, outputs, 1, bias=False), _normalise(outputs))
        self.residual = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        wide = self.look(self.widen(x))
        summary = F.hardswish(self.squeeze(wide.mean(dim=(2, 3), keepdim=True)))
        out: Tensor = self.narrow(wide * torch.sigmoid(self.excite(summary)))
        return x + out if self.residual else out


class _Attention(nn.Module):
    """A pre-norm transformer layer over all positions; needs no encoding of them, the cues contain it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.question_key_value = nn.Linear(channels, 3 * channels)
        self.answer = nn.Linear(channels, channels)  # output projection
        self.think = nn.Sequential(  # MLP
            nn.Linear(channels, 2 * channels), nn.Hardswish(), nn.Linear(2 * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        split = self.question_key_value(self.before(tokens)).view(batch, -1, 3, HEADS, channels // HEADS)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.answer(attended.transpose(1, 2).reshape(batch, -1, channels))
        tokens = tokens + self.think(self.between(tokens))
        return tokens.transpose(1, 2).reshape(batch, channels, height, width)


class _Up(nn.Module):
    """Upsample by 2 and add the encoder's skip connection."""

    def __init__(self, inputs: int, skip: int) -> None:
        super().__init__()
        self.reduce = _convolve(inputs, skip, 1)
        self.look = _convolve(skip, skip, 3, groups=skip)  # depthwise
        self.mix = _convolve(skip, skip, 1)  # pointwise

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        upsampled = F.interpolate(self.reduce(coarse), scale_factor=2.0, mode="bilinear", align_corners=False)
        merged = upsampled + fine
        out: Tensor = merged + self.mix(self.look(merged))
        return out


def _convolve(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False),
        _normalise(outputs),
        nn.Hardswish(),
    )


def _normalise(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // GROUP, channels)
