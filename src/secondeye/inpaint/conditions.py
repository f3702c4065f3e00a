"""What the network is conditioned on: latents of the views, mask, image embedding and time ids."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from secondeye.inpaint.autoencoder import LATENT_PX
from secondeye.inpaint.sampling_config import SamplingConfig
from secondeye.inpaint.tiles import Tile


class Conditions(NamedTuple):
    """Inputs of the network besides the noisy latents."""

    latents: Tensor  # [B, T, 4, h, w] of the warped view, not scaled
    mask: Tensor  # [B, T, 1, h, w], 1 is a hole
    embedding: Tensor  # [B, 1, D] of the first warped frame
    time_ids: Tensor  # [B, 3]
    left: Tensor | None = None  # [B, T, 4, h, w] of the left view, not scaled; for one-step networks only


def crop_conditions(conditions: Conditions, tile: Tile) -> Conditions:
    """Return the conditions of one tile; the embedding stays that of the whole frame."""
    left = None if conditions.left is None else tile.crop(conditions.left)
    return conditions._replace(
        latents=tile.crop(conditions.latents), mask=tile.crop(conditions.mask), left=left
    )


def unconditional(conditions: Conditions) -> Conditions:
    """Return zeros for latents, mask and embedding; the time ids stay."""
    latents, mask, embedding = (torch.zeros_like(condition) for condition in conditions[:3])
    left = None if conditions.left is None else torch.zeros_like(conditions.left)
    return Conditions(latents, mask, embedding, conditions.time_ids, left)


def clear_holes(
    holes: Tensor,  # [T, 1, H, W], 1 is a hole
    inpainted_frames: int,  # the first ones
    overlap_mask: str,  # one of OVERLAP_MASKS
) -> Tensor:  # [T, 1, H, W]
    """Return the mask of a window whose first frames are inpainted already, as the network was trained."""
    if overlap_mask == "kept":
        return holes
    return torch.cat([torch.zeros_like(holes[:inpainted_frames]), holes[inpainted_frames:]])


def latent_mask(
    holes: Tensor,  # bool [T, 1, H, W]; or float32, at least 0.5 where there is a hole
    keep_thin_holes: bool,
) -> Tensor:  # [T, 1, H/8, W/8] float32, 1 is a hole
    """Downscale the mask to latents: max-pooled to keep thin holes, or every eighth pixel as the release."""
    binary = (holes >= 0.5).float()
    return F.max_pool2d(binary, LATENT_PX) if keep_thin_holes else binary[..., ::LATENT_PX, ::LATENT_PX]


def time_ids(batch: int, sampling: SamplingConfig, device: torch.device | str) -> Tensor:  # [batch, 3]
    """Return Stable Video Diffusion's added time ids: fps - 1, motion bucket, noise augmentation."""
    ids = [sampling.fps - 1, sampling.motion, sampling.noise_share]
    return torch.tensor([ids], device=device).expand(batch, -1)
