"""Pictures to latents and back, a few frames at a time."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLTemporalDecoder
from torch import Tensor

from secondeye.inpaint.frame_windows import split_evenly
from secondeye.inpaint.tiles import Tile, blend_weights

LATENT_PX = 8  # of the picture, along one side of a latent
ENCODE_FRAMES = 5  # at once; no frame sees another, so only memory depends on it


def encode(
    vae: AutoencoderKLTemporalDecoder,
    frames: Tensor,  # [T, 3, H, W] in [-1, 1]
) -> Tensor:  # [T, 4, H/8, W/8] float32, not scaled
    """The most likely latents (the posterior's mode)."""
    packed = F.pixel_unshuffle(frames, patch_px(vae)).to(vae.dtype)
    parts = (vae.encode(part).latent_dist.mode() for part in packed.split(ENCODE_FRAMES))
    return torch.cat([part.float() for part in parts])


def decode(
    vae: AutoencoderKLTemporalDecoder,
    latents: Tensor,  # [T, 4, h, w], scaled
    frames_at_once: int,
    even: bool = True,  # groups that differ by one frame at most; else the last has what is left
) -> Tensor:  # [T, 3, 8 * h, 8 * w] float32, about [-1, 1]
    """Latents to pictures."""
    plain = (latents / vae.config.scaling_factor).to(vae.dtype)
    groups = plain.split(split_evenly(len(plain), frames_at_once) if even else frames_at_once)
    parts = (vae.decode(group, num_frames=len(group)).sample for group in groups)
    return F.pixel_shuffle(torch.cat([part.float() for part in parts]), patch_px(vae))


def decode_tiles(
    vae: AutoencoderKLTemporalDecoder,
    latents: Tensor,  # [T, 4, h, w], scaled
    frames_at_once: int,
    tiles: Sequence[Tile],  # in latents
    frames: Tensor,  # [T, 3, 8 * h, 8 * w] about [-1, 1]; written to where a tile is
) -> None:
    """As `decode`, tile by tile: memory grows with a tile's size, not with the picture's."""
    large = [tile.times(LATENT_PX) for tile in tiles]
    for tile in large:
        tile.cut(frames).zero_()
    weights = blend_weights(large, *frames.shape[-2:])
    for small, tile, weight in zip(tiles, large, weights, strict=True):
        tile.cut(frames).add_(weight.to(frames.device) * decode(vae, small.cut(latents), frames_at_once))


def patch_px(vae: AutoencoderKLTemporalDecoder) -> int:
    """The side of the patches the autoencoder sees as one pixel of many channels; 1 in the release."""
    return math.isqrt(vae.config.in_channels // 3)


def to_signed(frames: Tensor) -> Tensor:
    return frames * 2 - 1
