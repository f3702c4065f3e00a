"""The loss of the one-step diffusion network, after M2SVid (arXiv 2505.16565).

Nothing is random: the network gets zeros in place of noise, at the largest noise level, beside both views and
the mask. Its negated output is compared with the true latents; on a GPU the decoded frames are also
compared with the ground truth, by absolute difference and, if its weights are given, by LPIPS.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from secondeye.inpaint.autoencoder import decode, to_signed
from secondeye.inpaint.denoising import denoise_one_step
from secondeye.inpaint.pipeline import StereoInpaintPipeline
from secondeye.metrics.learned import Lpips
from secondeye.training.conditioning import ClipBatch, encode_conditions

DECODED_FRAMES = 2  # decoded together; more would be steadier and need more memory


def one_step_loss(
    network: nn.Module,  # with 13 input channels
    pipeline: StereoInpaintPipeline,  # its other modules are frozen
    batch: ClipBatch,
    *,
    lpips: Lpips | None,
    precision: str = "float32",  # of the frozen modules, see `encode_conditions`
) -> tuple[Tensor, Mapping[str, Tensor]]:  # []; metrics to log
    """Return the squared error of the latents, on a GPU plus the losses of `image_losses`."""
    target, conditions = encode_conditions(pipeline, batch, precision)
    latents = denoise_one_step(network, conditions)
    error = (latents - target) ** 2  # [B, T, 4, h, w]
    hole_values = conditions.mask.sum() * error.shape[2]
    loss = error.mean()
    metrics = {"latents": loss, "holes": (error * conditions.mask).sum() / hole_values.clamp(min=1)}
    if batch.target.device.type != "cpu":  # also on the meta device, where memory is counted as of a GPU
        images = image_losses(pipeline, latents, batch.target, lpips)
        loss = loss + torch.stack(list(images.values())).sum()
        metrics |= images
    return loss, metrics


def image_losses(
    pipeline: StereoInpaintPipeline,
    latents: Tensor,  # [B, T, 4, h, w] scaled
    target: Tensor,  # [B, T, 3, 8 * h, 8 * w] in [0, 1]
    lpips: Lpips | None,
) -> dict[str, Tensor]:  # each []
    """Return the mean absolute difference of decoded and true frames, over [-1, 1], and their mean LPIPS.

    Both have weight 1, as the latents do. Gradient checkpointing decodes a few frames at a time and again for
    the backward pass, so memory is that of these frames.
    """
    clips = zip(latents, target, strict=True)
    groups = [
        pair
        for clip in clips
        for pair in zip(*(planes.split(DECODED_FRAMES) for planes in clip), strict=True)
    ]
    found = [checkpoint(_compare, pipeline.vae, *group, lpips, use_reentrant=False) for group in groups]
    frames = latents.shape[0] * latents.shape[1]
    sums = {name: torch.stack([group[name] for group in found]).sum() for name in found[0]}
    return {name: value / frames for name, value in sums.items()}


def _compare(vae: nn.Module, latents: Tensor, target: Tensor, lpips: Lpips | None) -> dict[str, Tensor]:
    """Decode a few frames; returns the sums of their losses."""
    decoded = decode(vae, latents, len(latents))
    sums = {"images": (decoded - to_signed(target)).abs().mean((1, 2, 3)).sum()}
    if lpips is not None:
        sums["lpips"] = lpips(decoded / 2 + 0.5, target).sum().float()
    return sums
