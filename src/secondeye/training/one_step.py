"""Training of the network that paints at once, after M2SVid (arXiv 2505.16565).

Nothing is drawn at random: the network sees zeros in place of noise, at the largest noise level, beside both
views and the mask. What it says, turned round, is to be the true latents; on a GPU their pictures are to be
the true pictures, too. M2SVid adds LPIPS to the pictures' difference; its weights are not ours to ship.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from secondeye.inpaint.autoencoder import decode, to_signed
from secondeye.inpaint.pipeline import StereoInpaintPipeline
from secondeye.inpaint.sampling import paint_at_once
from secondeye.training.conditioning import Batch, condition

PICTURE_FRAMES = 2  # decoded together; more would be steadier and need more memory


def one_step_loss(
    network: nn.Module,  # of 13 input channels
    pipeline: StereoInpaintPipeline,  # its other modules stay as they are
    batch: Batch,
) -> tuple[Tensor, Mapping[str, Tensor]]:  # []; parts to log
    """Squared error of the painted latents; on a GPU also the absolute error of their pictures."""
    truth, conditions = condition(pipeline, batch)
    painted = paint_at_once(network, conditions)
    error = (painted - truth) ** 2  # [B, T, 4, h, w]
    open_values = conditions.mask.sum() * error.shape[2]
    loss = error.mean()
    parts = {"latents": loss, "holes": (error * conditions.mask).sum() / open_values.clamp(min=1)}
    if batch.truth.is_cuda:
        parts["pictures"] = picture_loss(pipeline, painted, batch.truth)
        loss = loss + parts["pictures"]
    return loss, parts


def picture_loss(
    pipeline: StereoInpaintPipeline,
    painted: Tensor,  # [B, T, 4, h, w] scaled latents
    truth: Tensor,  # [B, T, 3, 8 * h, 8 * w] in [0, 1]
) -> Tensor:  # []
    """How far decoded pictures are from the true ones, which range over [-1, 1].

    The decoder runs anew for the gradient, a few frames at a time: memory is that of these.
    """
    groups = [group for clip in painted for group in clip.split(PICTURE_FRAMES)]
    decoded = [
        checkpoint(decode, pipeline.vae, group, PICTURE_FRAMES, use_reentrant=False) for group in groups
    ]
    wanted = to_signed(truth.flatten(0, 1))
    difference: Tensor = (torch.cat(decoded) - wanted).abs().mean()
    return difference
