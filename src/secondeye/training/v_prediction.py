"""Training of the network that paints in many steps: velocities, as Stable Video Diffusion learnt.

Noise levels are drawn log-normally. EDM's weight of a level (arXiv 2206.00364) is what makes the squared
error of velocities plain.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from secondeye.inpaint.conditions import Conditions
from secondeye.inpaint.denoising import predict_velocity, sigma_to_timestep
from secondeye.inpaint.pipeline import StereoInpaintPipeline
from secondeye.training.conditioning import Batch, condition, drop

LOG_SIGMA_MEAN, LOG_SIGMA_DEVIATION = 0.7, 1.6  # of the noise levels, as Stable Video Diffusion was tuned
NOISE_LEVELS = {"low": (0.0, 0.5), "middle": (0.5, 8.0), "high": (8.0, math.inf)}  # sigmas logged apart


def velocity_loss(
    network: nn.Module,
    pipeline: StereoInpaintPipeline,  # its other modules stay as they are
    batch: Batch,
    *,
    dropout: float,  # [0, 1] of the clips that the network is told nothing of
) -> tuple[Tensor, Mapping[str, Tensor]]:  # []; parts to log, NaN where a batch has none of a kind
    """The velocities' error of clips that the frozen modules have to encode first."""
    return velocity_error(network, *condition(pipeline, batch), dropout=dropout)


def velocity_error(
    network: nn.Module,
    latents: Tensor,  # [B, T, 4, h, w] of the truth, scaled
    conditions: Conditions,
    *,
    dropout: float,  # [0, 1] of the clips that the network is told nothing of
) -> tuple[Tensor, Mapping[str, Tensor]]:  # []; parts to log, NaN where a batch has none of a kind
    """Squared error of velocities, v = (noise - sigma * latents) / sqrt(sigma^2 + 1).

    EDM's weighted error of latents is the same (Karras et al., weight 1 / c_out^2).
    """
    sigma = torch.exp(LOG_SIGMA_MEAN + LOG_SIGMA_DEVIATION * torch.randn(len(latents), device=latents.device))
    noise, wide = torch.randn_like(latents), sigma.view(-1, 1, 1, 1, 1)
    size = (wide**2 + 1).sqrt()
    told = drop(conditions, dropout)
    velocity = predict_velocity(network, (latents + wide * noise) / size, sigma_to_timestep(sigma), told)
    error = (velocity - (noise - wide * latents) / size) ** 2
    open_ = conditions.mask
    holes = (error * open_).sum() / (open_.sum() * error.shape[2])
    return error.mean(), {"holes": holes, **_by_noise(error.mean((1, 2, 3, 4)), sigma)}


def _by_noise(
    errors: Tensor,  # [B]
    sigma: Tensor,  # [B]
) -> dict[str, Tensor]:
    """Means over the clips of each noise level; NaN where there is none."""
    nothing = torch.full_like(errors, torch.nan)
    return {
        f"loss_{name}": torch.where((low <= sigma) & (sigma < high), errors, nothing).nanmean()
        for name, (low, high) in NOISE_LEVELS.items()
    }
