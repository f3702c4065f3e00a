"""The network of Video Depth Anything (Chen et al., arXiv 2501.12375).

DINOv2 encodes every frame alone, a DPT head decodes the depth, and four motion modules in the head attend to
the frames of each pixel. Modules of the head have the names of the released weights. To bound the memory,
frames or pixels are processed in parts where they do not depend on each other.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Dinov2Backbone, Dinov2Config
from transformers.models.dinov2.modeling_dinov2 import Dinov2Embeddings

from secondeye.depth.progress import OnFrames, report_nothing

PATCH_PX = 14  # side of a patch of the encoder
WINDOW_FRAMES = 32  # the most frames that the motion modules have positions for
GRID_PX = 518  # side of the image that the encoder's position embedding is for

_FRAMES_AT_ONCE = 4  # in the encoder; where the head's maps are large it is one
_PIXELS_AT_ONCE = 2048  # in a motion module, each with all its frames
_MOTION_HEADS, _NORM_GROUPS = 8, 32
_SCALE_STEP = 0.1  # patches that the encoder adds before it computes the scale of its positions


class Configuration(NamedTuple):
    """The sizes of one released network."""

    width: int  # channels of the encoder
    heads: int
    blocks: int
    taken_blocks: tuple[int, int, int, int]  # whose outputs go to the head, from 0
    features: int  # channels where the head fuses its layers
    layer_channels: tuple[int, int, int, int]  # of the head's layers, from the finest to the coarsest


CONFIGURATIONS = {
    "vits": Configuration(384, 6, 12, (2, 5, 8, 11), 64, (48, 96, 192, 384)),
    "vitb": Configuration(768, 12, 12, (2, 5, 8, 11), 128, (96, 192, 384, 768)),
    "vitl": Configuration(1024, 16, 24, (4, 11, 17, 23), 256, (256, 512, 1024, 1024)),
}


class VideoDepthNetwork(nn.Module):
    """Estimates the depth of up to WINDOW_FRAMES consecutive frames."""

    def __init__(self, sizes: Configuration) -> None:
        super().__init__()
        config = Dinov2Config(
            hidden_size=sizes.width,
            num_attention_heads=sizes.heads,
            num_hidden_layers=sizes.blocks,
            image_size=GRID_PX,
            patch_size=PATCH_PX,
            out_indices=[block + 1 for block in sizes.taken_blocks],  # 0 is the input of the first block
        )
        self.pretrained = Dinov2Backbone(config)
        self.pretrained.embeddings = _Embeddings(config)
        self.head = _Head(sizes)

    def forward(
        self,
        frames: Tensor,  # [T, 3, H, W], normalised; H and W multiples of PATCH_PX, T at most WINDOW_FRAMES
        on_frames: OnFrames = report_nothing,  # called with frames that are encoded, and again decoded
    ) -> Tensor:  # [T, H, W], not negative
        """Return inverse depth up to scale and shift; from metric weights depth in metres."""
        parts = []
        for part in frames.split(_FRAMES_AT_ONCE):
            parts.append(self.pretrained(part).feature_maps)
            on_frames(len(part))
        depth: Tensor = self.head(list(zip(*parts, strict=True)), on_frames)
        return depth


class _Embeddings(Dinov2Embeddings):
    """Resizes positions by scale factors, as DINOv2 does; transformers: to the number of patches."""

    def interpolate_pos_encoding(self, embeddings: Tensor, height: int, width: int) -> Tensor:
        side, patches = GRID_PX // PATCH_PX, (height // PATCH_PX, width // PATCH_PX)
        if patches == (side, side):
            return self.position_embeddings
        grid = self.position_embeddings[:, 1:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
        scale = [(count + _SCALE_STEP) / side for count in patches]
        with torch.autocast(grid.device.type, enabled=False):
            grid = F.interpolate(grid, scale_factor=scale, mode="bicubic", align_corners=False)
        return torch.cat([self.position_embeddings[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)


class _Head(nn.Module):
    """DPT head with motion modules."""

    def __init__(self, sizes: Configuration) -> None:
        super().__init__()
        first, second, third, fourth = channels = sizes.layer_channels
        self.projects = nn.ModuleList(nn.Conv2d(sizes.width, count, 1) for count in channels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(first, first, 4, stride=4),
                nn.ConvTranspose2d(second, second, 2, stride=2),
                nn.Identity(),
                nn.Conv2d(fourth, fourth, 3, stride=2, padding=1),
            ]
        )
        self.motion_modules = nn.ModuleList(
            _MotionModule(count) for count in (third, fourth, sizes.features, sizes.features)
        )
        self.scratch = _Fusion(sizes)

    def forward(
        self,
        features: list[tuple[Tensor, ...]],  # of the taken blocks, each [t, C, h, w] several times
        on_frames: OnFrames,  # called with frames that are decoded
    ) -> Tensor:  # [T, 14 h, 14 w]
        size = [PATCH_PX * side for side in features[0][0].shape[2:]]
        fusion: Any = self.scratch
        layers = list(zip(self.projects, self.resize_layers, strict=True))

        def layer(index: int) -> Iterator[Tensor]:
            project, resize = layers[index]
            return (resize(project(part)) for part in features[index])

        layer3 = fusion.layer3_rn(self.motion_modules[0](torch.cat([*layer(2)])))
        layer4 = fusion.layer4_rn(self.motion_modules[1](torch.cat([*layer(3)])))
        path4 = self.motion_modules[2](fusion.refinenet4(layer4, None, layer3.shape[2:]))
        layer2 = torch.cat([fusion.layer2_rn(part) for part in layer(1)])
        path3 = self.motion_modules[3](fusion.refinenet3(path4, layer3, layer2.shape[2:]))
        del layer3, layer4, path4
        fine = (frame for part in layer(0) for frame in part.split(1))
        depth = []
        for third, second, first in zip(path3.split(1), layer2.split(1), fine, strict=True):
            layer1 = fusion.layer1_rn(first)
            path2 = fusion.refinenet2(third, second, layer1.shape[2:])
            path1 = fusion.refinenet1(path2, layer1, [2 * side for side in layer1.shape[2:]])
            depth.append(fusion.depth(path1, size))
            on_frames(1)
        return torch.cat(depth)


class _Fusion(nn.Module):
    """The layers that bring all maps to one number of channels, fuse them, and end in depth."""

    def __init__(self, sizes: Configuration) -> None:
        super().__init__()
        features = sizes.features
        for number, count in enumerate(sizes.layer_channels, start=1):
            self.add_module(f"layer{number}_rn", nn.Conv2d(count, features, 3, padding=1, bias=False))
            self.add_module(f"refinenet{number}", _FusionBlock(features))
        self.output_conv1 = nn.Conv2d(features, features // 2, 3, padding=1)
        self.output_conv2 = nn.Sequential(
            nn.Conv2d(features // 2, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 1, 1), nn.ReLU()
        )

    def depth(self, path: Tensor, size: list[int]) -> Tensor:  # [t, C, h, w] -> [t, H, W]
        """Return the depth at the size of the network's input."""
        path = F.interpolate(self.output_conv1(path), size, mode="bilinear", align_corners=True)
        with torch.autocast(path.device.type, enabled=False):  # float16 would quantise the depth
            depth: Tensor = self.output_conv2(path.float())
        return depth[:, 0]


class _FusionBlock(nn.Module):
    """Add a finer layer to a path, and resize the sum."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.resConfUnit1 = _ResidualUnit(features)  # of the deepest block: in the weights, not used
        self.resConfUnit2 = _ResidualUnit(features)
        self.out_conv = nn.Conv2d(features, features, 1)

    def forward(self, path: Tensor, skip: Tensor | None, size: list[int]) -> Tensor:
        if skip is not None:
            path = path + self.resConfUnit1(skip)
        path = F.interpolate(self.resConfUnit2(path), size, mode="bilinear", align_corners=True)
        fused: Tensor = self.out_conv(path)
        return fused


class _ResidualUnit(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.conv2(F.relu(self.conv1(F.relu(x))))
        return x + change


class _MotionModule(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.temporal_transformer = _TemporalTransformer(width)

    def forward(self, x: Tensor) -> Tensor:  # [T, C, h, w]
        change: Tensor = self.temporal_transformer(x)
        return x + change


class _TemporalTransformer(nn.Module):
    """Attends over the frames of each pixel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_NORM_GROUPS, width, eps=1e-6)
        self.proj_in = nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList([_TemporalBlock(width)])
        self.proj_out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:  # [T, C, h, w]
        pixels = self.norm(x).flatten(2).permute(2, 0, 1)  # [h w, T, C]
        block = self.transformer_blocks[0]
        changed = [self.proj_out(block(self.proj_in(part))) for part in pixels.split(_PIXELS_AT_ONCE)]
        return torch.cat(changed).permute(1, 2, 0).reshape(x.shape)


class _TemporalBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList(_TemporalAttention(width) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-5) for _ in range(2))
        self.ff = _FeedForward(width)
        self.ff_norm = nn.LayerNorm(width, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:  # [N, T, C]
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            x = x + attention(norm(x))
        change: Tensor = self.ff(self.ff_norm(x))
        return x + change


class _TemporalAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(width, width, bias=False)
        self.to_v = nn.Linear(width, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        self.pos_encoder = _Positions(width)

    def forward(self, x: Tensor) -> Tensor:  # [N, T, C]
        x = self.pos_encoder(x)
        query, key, value = (
            projection(x).unflatten(2, (_MOTION_HEADS, -1)).transpose(1, 2)
            for projection in (self.to_q, self.to_k, self.to_v)
        )
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        out: Tensor = self.to_out[0](attended)
        return out


class _Positions(nn.Module):
    """Adds the position of a frame in its window; the sinusoids are part of the weights."""

    pe: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("pe", torch.empty(1, WINDOW_FRAMES, width))

    def forward(self, x: Tensor) -> Tensor:  # [N, T, C]
        return x + self.pe[:, : x.shape[1]]


class _FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([_GatedGelu(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.net:
            x = layer(x)
        return x


class _GatedGelu(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        values, gate = self.proj(x).chunk(2, dim=-1)
        gated: Tensor = values * F.gelu(gate)
        return gated
