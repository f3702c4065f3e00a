"""Training of the network that paints at once, after M2SVid (arXiv 2505.16565).

Nothing is drawn at random: the network sees zeros in place of noise, at the largest noise level, beside both
views and the mask. What it says, turned round, is to be the true latents; on a GPU their pictures are to be
the true pictures, too, by their difference and, where weights for it are at hand, by LPIPS.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from secondeye.inpaint.autoencoder import decode, to_signed
from secondeye.inpaint.denoising import denoise_one_step
from secondeye.inpaint.pipeline import StereoInpaintPipeline
from secondeye.metrics.learned import Lpips
from secondeye.training.conditioning import Batch, condition

PICTURE_FRAMES = 2  # decoded together; more would be steadier and need more memory


def one_step_loss(
    network: nn.Module,  # of 13 input channels
    pipeline: StereoInpaintPipeline,  # its other modules stay as they are
    batch: Batch,
    *,
    lpips: Lpips | None,
) -> tuple[Tensor, Mapping[str, Tensor]]:  # []; parts to log
    """Squared error of the painted latents; on a GPU also that of their pictures, see `picture_losses`."""
    truth, conditions = condition(pipeline, batch)
    painted = denoise_one_step(network, conditions)
    error = (painted - truth) ** 2  # [B, T, 4, h, w]
    open_values = conditions.mask.sum() * error.shape[2]
    loss = error.mean()
    parts = {"latents": loss, "holes": (error * conditions.mask).sum() / open_values.clamp(min=1)}
    if batch.truth.is_cuda:
        pictures = picture_losses(pipeline, painted, batch.truth, lpips)
        loss = loss + torch.stack(list(pictures.values())).sum()
        parts |= pictures
    return loss, parts


def picture_losses(
    pipeline: StereoInpaintPipeline,
    painted: Tensor,  # [B, T, 4, h, w] scaled latents
    truth: Tensor,  # [B, T, 3, 8 * h, 8 * w] in [0, 1]
    lpips: Lpips | None,
) -> dict[str, Tensor]:  # each []
    """Mean absolute difference of decoded and true pictures, which range over [-1, 1], and their mean LPIPS.

    Both count alike, as do the latents. Pictures are decoded anew for the gradient, a few frames at a time:
    memory is that of these.
    """
    clips = zip(painted, truth, strict=True)
    groups = [pair for clip in clips for pair in zip(*(of.split(PICTURE_FRAMES) for of in clip), strict=True)]
    found = [checkpoint(_compare, pipeline.vae, *group, lpips, use_reentrant=False) for group in groups]
    frames = painted.shape[0] * painted.shape[1]
    sums = {name: torch.stack([group[name] for group in found]).sum() for name in found[0]}
    return {name: value / frames for name, value in sums.items()}


def _compare(vae: nn.Module, latents: Tensor, truth: Tensor, lpips: Lpips | None) -> dict[str, Tensor]:
    """Sums over the frames of what they differ by."""
    decoded = decode(vae, latents, len(latents))
    sums = {"pictures": (decoded - to_signed(truth)).abs().mean((1, 2, 3)).sum()}
    if lpips is not None:
        sums["lpips"] = lpips(decoded / 2 + 0.5, truth).sum().float()
    return sums
