"""Denoising: from noise to latents in several steps, or in one; functions on tensors, for any UNet.

Latents are scaled to a standard deviation of 1, except for the conditions, which are not scaled in training.
"""

from collections.abc import Sequence

import torch
from diffusers import EulerDiscreteScheduler, ModelMixin, UNetSpatioTemporalConditionModel
from torch import Tensor

from secondeye.inpaint.conditions import Conditions, crop_conditions, unconditional
from secondeye.inpaint.sampling_config import SamplingConfig
from secondeye.inpaint.tiles import Tile, blend_weights

ONE_STEP_SIGMA = 700.0  # Stable Video Diffusion's largest, at which no signal is left


def denoise(
    unet: UNetSpatioTemporalConditionModel,
    scheduler: EulerDiscreteScheduler,
    noise: Tensor,  # [B, T, 4, h, w] of standard deviation 1
    conditions: Conditions,
    sampling: SamplingConfig,
    tiles: Sequence[Tile] | None = None,  # in latents; None is one tile of the whole frame
) -> Tensor:  # [B, T, 4, h, w] float32, scaled latents
    """Sample latents from noise, in float32: half precision has a resolution of 2 at the first sigma.

    Velocities of overlapping tiles are blended at every step (MultiDiffusion, arXiv 2302.08113).
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
    tiles: Sequence[Tile] | None = None,  # in latents; None is one tile of the whole frame
) -> Tensor:  # [B, T, 4, h, w] float32, scaled latents
    """Sample latents in one pass, with zeros for noise (M2SVid, arXiv 2505.16565).

    The result is the negated velocity: the exact x / (s^2 + 1) - s v / sqrt(s^2 + 1) has x = 0, and the last
    factor is 1 to six digits.
    """
    zeros = torch.zeros_like(conditions.latents)
    sigma = torch.tensor(ONE_STEP_SIGMA, device=zeros.device)
    return -tiled_velocity(unet, zeros, sigma_to_timestep(sigma), conditions, guidance, tiles)


def tiled_velocity(
    unet: torch.nn.Module,
    noisy: Tensor,  # [B, T, 4, h, w], scaled to unit variance
    timestep: Tensor,
    conditions: Conditions,
    guidance: float | tuple[float, float],
    tiles: Sequence[Tile] | None,  # in latents; None is one tile of the whole frame
) -> Tensor:  # [B, T, 4, h, w] float32; 0 outside of the tiles
    """Predict the velocity of each tile and blend them."""
    if tiles is None:
        return guided_velocity(unet, noisy, timestep, conditions, guidance)
    velocity = torch.zeros_like(noisy)
    for tile, weight in zip(tiles, blend_weights(tiles, *noisy.shape[-2:]), strict=True):
        part = guided_velocity(unet, tile.crop(noisy), timestep, crop_conditions(conditions, tile), guidance)
        tile.crop(velocity).add_(weight.to(noisy.device) * part)
    return velocity


def guided_velocity(
    unet: torch.nn.Module,
    noisy: Tensor,  # [B, T, 4, h, w], scaled to unit variance
    timestep: Tensor,
    conditions: Conditions,
    guidance: float | tuple[float, float],
) -> Tensor:  # [B, T, 4, h, w] float32, velocity
    """Predict the velocity with classifier-free guidance; one pass only if no frame is guided."""
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
    """Run one pass of the network."""
    # A diffusers module reports its compute dtype, whatever its weights are stored in.
    dtype = unet.dtype if isinstance(unet, ModelMixin) else next(unet.parameters()).dtype
    left = [] if conditions.left is None else [conditions.left]
    stacked = torch.cat([noisy, *left, conditions.latents, conditions.mask], dim=2).to(dtype)
    embedding, ids = conditions.embedding.to(dtype), conditions.time_ids.to(dtype)
    velocity: Tensor = unet(stacked, timestep, embedding, added_time_ids=ids, return_dict=False)[0]
    return velocity.float()


def sigma_to_timestep(sigma: Tensor) -> Tensor:
    """Return the timestep that the network is given for a sigma."""
    return 0.25 * sigma.log()
