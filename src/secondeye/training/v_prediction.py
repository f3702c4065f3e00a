"""The loss of the multi-step diffusion network: v-prediction, as Stable Video Diffusion was trained.

Noise levels are drawn from a log-normal distribution. With EDM's loss weight (arXiv 2206.00364) the weighted
error of the denoised latents is the unweighted squared error of velocities.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from secondeye.inpaint.conditions import Conditions
from secondeye.inpaint.denoising import predict_velocity, sigma_to_timestep
from secondeye.inpaint.pipeline import StereoInpaintPipeline
from secondeye.training.conditioning import ClipBatch, drop_conditions, encode_conditions

LOG_SIGMA_MEAN, LOG_SIGMA_STD = 0.7, 1.6  # of the noise levels, as Stable Video Diffusion was fine-tuned
NOISE_LEVELS = {"low": (0.0, 0.5), "middle": (0.5, 8.0), "high": (8.0, math.inf)}  # sigma, logged separately


def velocity_loss(
    network: nn.Module,
    pipeline: StereoInpaintPipeline,  # its other modules are frozen
    batch: ClipBatch,
    *,
    dropout: float,  # [0, 1] of the clips whose conditions are zeroed
    precision: str = "float32",  # of the frozen modules, see `encode_conditions`
) -> tuple[Tensor, Mapping[str, Tensor]]:  # []; metrics to log, NaN if a batch has no value
    """Encode a batch with the frozen modules and return its velocity error."""
    return velocity_error(network, *encode_conditions(pipeline, batch, precision), dropout=dropout)


def velocity_error(
    network: nn.Module,
    latents: Tensor,  # [B, T, 4, h, w] of the ground truth, scaled
    conditions: Conditions,
    *,
    dropout: float,  # [0, 1] of the clips whose conditions are zeroed
) -> tuple[Tensor, Mapping[str, Tensor]]:  # []; metrics to log, NaN if a batch has no value
    """Return the mean squared error of velocities, v = (noise - sigma * latents) / sqrt(sigma^2 + 1).

    EDM's weighted error of latents is the same (Karras et al., weight 1 / c_out^2).
    """
    sigma = torch.exp(LOG_SIGMA_MEAN + LOG_SIGMA_STD * torch.randn(len(latents), device=latents.device))
    noise, wide = torch.randn_like(latents), sigma.view(-1, 1, 1, 1, 1)
    scale = (wide**2 + 1).sqrt()
    given = drop_conditions(conditions, dropout)
    velocity = predict_velocity(network, (latents + wide * noise) / scale, sigma_to_timestep(sigma), given)
    error = (velocity - (noise - wide * latents) / scale) ** 2
    mask = conditions.mask
    holes = (error * mask).sum() / (mask.sum() * error.shape[2])
    return error.mean(), {"holes": holes, **_by_noise_level(error.mean((1, 2, 3, 4)), sigma)}


def _by_noise_level(
    errors: Tensor,  # [B]
    sigma: Tensor,  # [B]
) -> dict[str, Tensor]:
    """Return the mean error of the clips of each noise level, NaN if there are none."""
    nan = torch.full_like(errors, torch.nan)
    return {
        f"loss_{name}": torch.where((low <= sigma) & (sigma < high), errors, nan).nanmean()
        for name, (low, high) in NOISE_LEVELS.items()
    }
