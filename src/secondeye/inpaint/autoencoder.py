"""Encode frames to latents and decode them, a few frames at a time."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLTemporalDecoder
from torch import Tensor

from secondeye.imaging.arrays import frame_size
from secondeye.inpaint.frame_windows import split_evenly
from secondeye.inpaint.tiles import Tile, blend_weights

LATENT_PX = 8  # side of a latent in pixels
ENCODE_FRAMES = 5  # encoded at once; frames are independent, so this affects memory only
DECODE_FRAMES = 8  # decoded together, at most; more are steadier and take more memory


def encode(
    vae: AutoencoderKLTemporalDecoder,
    frames: Tensor,  # [T, 3, H, W] in [-1, 1]
    frames_at_once: int = ENCODE_FRAMES,
) -> Tensor:  # [T, 4, H/8, W/8] float32, not scaled
    """Return the mode of the posterior."""
    patches = F.pixel_unshuffle(frames, patch_px(vae)).to(vae.dtype)
    parts = (vae.encode(part).latent_dist.mode() for part in patches.split(frames_at_once))
    return torch.cat([part.float() for part in parts])


def encode_tiles(
    vae: AutoencoderKLTemporalDecoder,
    frames: Tensor,  # uint8 [T, H, W, 3], or [T, 3, H, W] in [0, 1]; on any device
    frames_at_once: int,
    tiles: Sequence[Tile],  # in latents
    device: torch.device,  # of the autoencoder
) -> Tensor:  # [T, 4, H/8, W/8] float32, not scaled, on `device`; 0 outside of the tiles
    """Encode tile by tile and group by group, so that memory grows with these and not with the frames."""
    height, width = (side // LATENT_PX for side in frame_size(frames))
    latents = torch.zeros(len(frames), vae.config.latent_channels, height, width, device=device)
    for tile, weight in zip(tiles, blend_weights(tiles, height, width), strict=True):
        part = tile.scaled(LATENT_PX).crop_frames(frames)
        groups = (signed_frames(group.to(device)) for group in part.split(frames_at_once))
        encoded = torch.cat([encode(vae, group, frames_at_once) for group in groups])
        tile.crop(latents).add_(encoded.mul_(weight.to(device)))
    return latents


def decode(
    vae: AutoencoderKLTemporalDecoder,
    latents: Tensor,  # [T, 4, h, w], scaled
    frames_at_once: int,
    even: bool = True,  # groups differ by at most one frame; else the last one has the remainder
) -> Tensor:  # [T, 3, 8 * h, 8 * w] float32, about [-1, 1]
    """Decode latents to frames."""
    unscaled = (latents / vae.config.scaling_factor).to(vae.dtype)
    groups = unscaled.split(group_sizes(len(unscaled), frames_at_once, even))
    decoded = [vae.decode(group, num_frames=len(group)).sample.float() for group in groups]
    whole = decoded.pop() if len(decoded) == 1 else torch.cat(decoded)
    patch = patch_px(vae)
    return whole if patch == 1 else F.pixel_shuffle(whole, patch)


def decode_tiles(
    vae: AutoencoderKLTemporalDecoder,
    latents: Tensor,  # [T, 4, h, w], scaled
    frames_at_once: int,
    tiles: Sequence[Tile],  # in latents
    frames: Tensor,  # [T, 3, 8 * h, 8 * w] about [-1, 1]; overwritten inside the tiles
) -> None:
    """Decode tile by tile, so that memory grows with the size of a tile and not of the frame."""
    pixel_tiles = [tile.scaled(LATENT_PX) for tile in tiles]
    for tile in pixel_tiles:
        tile.crop(frames).zero_()
    weights = blend_weights(pixel_tiles, *frames.shape[-2:])
    for latent_tile, tile, weight in zip(tiles, pixel_tiles, weights, strict=True):
        decoded = decode(vae, latent_tile.crop(latents), frames_at_once)
        tile.crop(frames).add_(decoded.mul_(weight.to(frames.device)))
        del decoded  # or it would be kept while the next tile is decoded


def group_sizes(frames: int, frames_at_once: int, even: bool) -> list[int]:
    """Return the sizes of the groups that frames are decoded in: even, or the last has the remainder."""
    if even:
        return split_evenly(frames, frames_at_once)
    full, rest = divmod(frames, frames_at_once)
    return [frames_at_once] * full + [rest] * (rest > 0)


def patch_px(vae: AutoencoderKLTemporalDecoder) -> int:
    """Return the side of the pixel patches that the autoencoder takes as channels; 1 in the release."""
    return math.isqrt(vae.config.in_channels // 3)


def scaling_factor(latents: Tensor) -> float:
    """Return the factor that gives latents a standard deviation of 1; ValueError if there is none."""
    deviation = float(latents.double().std())
    if not math.isfinite(deviation) or deviation == 0:
        raise ValueError(f"latents of standard deviation {deviation} cannot be scaled")
    return 1 / deviation


def signed_frames(
    frames: Tensor,  # uint8 [T, H, W, 3], or [T, 3, H, W] in [0, 1]
) -> Tensor:  # [T, 3, H, W] in [-1, 1]
    """Return frames as the autoencoder takes them; 8-bit frames are converted within one new array."""
    if frames.dtype != torch.uint8:
        return to_signed(frames)
    planes = frames.permute(0, 3, 1, 2)
    return planes.to(torch.float32, memory_format=torch.contiguous_format).div_(255).mul_(2).sub_(1)


def to_signed(frames: Tensor) -> Tensor:
    """Map [0, 1] to [-1, 1]."""
    return frames * 2 - 1
