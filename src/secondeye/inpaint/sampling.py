"""From noise to latents, in steps or in one; functions on tensors, for any network.

Latents are scaled to a standard deviation of 1, but for those that the network is given, as it was taught.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from diffusers import EulerDiscreteScheduler, ModelMixin, UNetSpatioTemporalConditionModel
from torch import Tensor

from secondeye.inpaint.tiles import Tile, blend_weights

ONE_STEP_SIGMA = 700.0  # the largest that Stable Video Diffusion knows: nothing of a picture is left in it


@dataclass(frozen=True)
class SamplingConfig:
    """How a picture is drawn out of noise. One-step networks take no steps, and add no noise.

    Raises ValueError for numbers out of range.
    """

    steps: int
    guidance: float | tuple[float, float]  # of each frame, or of the first and the last; up to 1 is none
    noise_share: float  # standard deviation of the noise added to the given frames; they range over [-1, 1]
    keep_thin_holes: bool  # a latent is a hole when any of its pixels is; else when its top left one is
    decode_frames: int  # at once; frames decoded together are steadier and take more memory
    even_groups: bool = True  # of decoded frames; the release's last group has what is left
    # What Stable Video Diffusion was told of every clip it saw: its rate, and how much moves in it.
    fps: float = 7.0
    motion: float = 127.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.decode_frames < 1:
            raise ValueError(
                f"steps and decode_frames must be 1 or more, got {self.steps} and {self.decode_frames}"
            )
        if not (math.isfinite(self.noise_share) and self.noise_share >= 0):
            raise ValueError(f"noise_share must be 0 or more, got {self.noise_share}")
        pair = self.guidance if isinstance(self.guidance, tuple) else (self.guidance, self.guidance)
        if len(pair) != 2 or not all(math.isfinite(value) for value in pair):
            raise ValueError(f"guidance must be a number or a pair of them, got {self.guidance}")


RELEASE_SAMPLING = SamplingConfig(
    steps=8, guidance=1.01, noise_share=0.0, keep_thin_holes=False, decode_frames=2, even_groups=False
)
"""As the paper's release samples."""


class Conditions(NamedTuple):
    """What the network is told besides the noisy latents."""

    latents: Tensor  # [B, T, 4, h, w] of the given frames, not scaled
    mask: Tensor  # [B, T, 1, h, w], 1 is a hole
    embedding: Tensor  # [B, 1, D] of the first given frame
    time_ids: Tensor  # [B, 3]
    left: Tensor | None = None  # [B, T, 4, h, w] of the left view, not scaled; one-step networks alone see it


def denoise(
    unet: UNetSpatioTemporalConditionModel,
    scheduler: EulerDiscreteScheduler,
    noise: Tensor,  # [B, T, 4, h, w] of standard deviation 1
    conditions: Conditions,
    sampling: SamplingConfig,
    tiles: Sequence[Tile] | None = None,  # in latents; None is one of all
) -> Tensor:  # [B, T, 4, h, w] float32, scaled latents
    """Walk from noise to latents; in float32, for half precision has steps of 2 at the first sigma.

    Tiles agree at every step, as the velocities of those that share a latent are blended (MultiDiffusion,
    arXiv 2302.08113).
    """
    scheduler.set_timesteps(sampling.steps, device=noise.device)
    latents = noise.float() * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        noisy = scheduler.scale_model_input(latents, t)
        velocity = tiled_velocity(unet, noisy, t, conditions, sampling.guidance, tiles)
        latents = scheduler.step(velocity, t, latents).prev_sample
    return latents


def denoise_one_step(
    unet: torch.nn.Module,
    conditions: Conditions,  # with the left view
    guidance: float | tuple[float, float] = 1.0,
    tiles: Sequence[Tile] | None = None,  # in latents; None is one of all
) -> Tensor:  # [B, T, 4, h, w] float32, scaled latents
    """One pass, from zeros in place of noise: what is painted is the velocity turned round (M2SVid).

    It would be x / (s^2 + 1) - s v / sqrt(s^2 + 1), with x = 0, and the last factor is 1 to six digits.
    """
    nothing = torch.zeros_like(conditions.latents)
    sigma = torch.tensor(ONE_STEP_SIGMA, device=nothing.device)
    return -tiled_velocity(unet, nothing, sigma_to_timestep(sigma), conditions, guidance, tiles)


def tiled_velocity(
    unet: torch.nn.Module,
    noisy: Tensor,  # [B, T, 4, h, w], scaled to unit variance
    timestep: Tensor,
    conditions: Conditions,
    guidance: float | tuple[float, float],
    tiles: Sequence[Tile] | None,  # in latents; None is one of all
) -> Tensor:  # [B, T, 4, h, w] float32; 0 outside of the tiles
    """What the network says of each tile, blended."""
    if tiles is None:
        return guided_velocity(unet, noisy, timestep, conditions, guidance)
    velocity = torch.zeros_like(noisy)
    for tile, weight in zip(tiles, blend_weights(tiles, *noisy.shape[-2:]), strict=True):
        seen = cut(conditions, tile)
        part = guided_velocity(unet, tile.cut(noisy), timestep, seen, guidance)
        tile.cut(velocity).add_(weight.to(noisy.device) * part)
    return velocity


def cut(conditions: Conditions, tile: Tile) -> Conditions:
    """What is told of a tile; the embedding is the whole picture's."""
    left = None if conditions.left is None else tile.cut(conditions.left)
    return conditions._replace(
        latents=tile.cut(conditions.latents), mask=tile.cut(conditions.mask), left=left
    )


def guided_velocity(
    unet: torch.nn.Module,
    noisy: Tensor,  # [B, T, 4, h, w], scaled to unit variance
    timestep: Tensor,
    conditions: Conditions,
    guidance: float | tuple[float, float],
) -> Tensor:  # [B, T, 4, h, w] float32, velocity
    """One pass, or two where a frame is guided: away from what would be painted with nothing given."""
    velocity = predict_velocity(unet, noisy, timestep, conditions)
    first, last = guidance if isinstance(guidance, tuple) else (guidance, guidance)
    if max(first, last) <= 1:
        return velocity
    ramp = torch.linspace(first, last, noisy.shape[1], device=noisy.device).view(-1, 1, 1, 1)
    unguided = predict_velocity(unet, noisy, timestep, unconditional(conditions))
    return unguided + ramp * (velocity - unguided)


def predict_velocity(
    unet: torch.nn.Module,
    noisy: Tensor,  # [B, T, 4, h, w], scaled to unit variance
    timestep: Tensor,  # [] or [B], 0.25 * ln(sigma)
    conditions: Conditions,
) -> Tensor:  # [B, T, 4, h, w] float32, velocity
    """One pass of the network."""
    # A module of diffusers knows what it computes in, however its weights are stored.
    kind = unet.dtype if isinstance(unet, ModelMixin) else next(unet.parameters()).dtype
    left = [] if conditions.left is None else [conditions.left]
    stacked = torch.cat([noisy, *left, conditions.latents, conditions.mask], dim=2).to(kind)
    embedding, ids = conditions.embedding.to(kind), conditions.time_ids.to(kind)
    velocity: Tensor = unet(stacked, timestep, embedding, added_time_ids=ids, return_dict=False)[0]
    return velocity.float()


def unconditional(conditions: Conditions) -> Conditions:
    """Nothing given: zeros for the latents, the mask and the embedding; the time ids stay."""
    latents, mask, embedding = (torch.zeros_like(given) for given in conditions[:3])
    left = None if conditions.left is None else torch.zeros_like(conditions.left)
    return Conditions(latents, mask, embedding, conditions.time_ids, left)


def sigma_to_timestep(sigma: Tensor) -> Tensor:
    """What the network is told of a sigma."""
    return 0.25 * sigma.log()
