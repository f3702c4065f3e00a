"""Training of the diffusion inpainter's autoencoder; a pretrained one is used unchanged."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secondeye.inpaint.autoencoder import encode, patch_px, scaling_factor, to_signed
from secondeye.inpaint.pipeline import StereoInpaintPipeline
from secondeye.inpaint.working_size import image_area_px
from secondeye.params import TrainDiffusion
from secondeye.run_folder import Run
from secondeye.system.files import write_atomic
from secondeye.system.process import is_main_process
from secondeye.training.initial_weights import make_pipeline
from secondeye.training.loop import training_loop
from secondeye.training.sample_loader import Sample
from secondeye.training.shots import hold_out, list_shots, select_usable
from secondeye.training.step_metrics import psnr_db
from secondeye.training.stereo_shot import ShotPool, dequantize_plane
from secondeye.training.views import DrawShot, DrawViews, min_size, used_planes, validation_rngs

FRAMES = 2  # of a sample, consecutive: the decoder learns what neighbouring frames share
KL_WEIGHT = 1e-4  # keeps latents near the origin, and hardly blurs
WARPED_SHARE = 0.3  # of the samples: the network is given warped views with black holes
SAMPLES = 16  # validated on


def train(run: Run, data: Path, settings: TrainDiffusion) -> None:
    """Train on a dataset; see `train_autoencoder`. With svd only write which one is used."""
    if settings.size != "svd":
        given = run, data, min_size(settings), settings.conditioning, used_planes(settings)
        pool = list_shots(*given, mono_max_gradient=settings.mono_max_gradient)
        train_autoencoder(run, pool, settings)
    elif is_main_process():
        run.model.mkdir(exist_ok=True)
        write_atomic(run.model / "pretrained.json", json.dumps({"pretrained": settings.pretrained}) + "\n")


def train_autoencoder(run: Run, pool: ShotPool, settings: TrainDiffusion) -> None:
    """Train on shots from scratch and write it to `run.model`.

    Continues a killed run exactly. Validates on held-out films, see `held_out_films`. Raises UserError if no
    shot is as large and as long as the crops.
    """
    pipeline = make_pipeline(settings)
    pools = hold_out("autoencoder", select_usable("diffusion", pool, min_size(settings)))
    area_px, seed = image_area_px(pipeline.unet.config.sample_size), settings.autoencoder.seed
    draw_held, draw = (
        DrawViews(shots, settings, FRAMES, area_px, max_stride=1, seed=seed) for shots in pools
    )
    fit_autoencoder(pipeline, run, settings, draw, draw_held)
    if is_main_process():
        pipeline.vae.save_pretrained(run.model)


def fit_autoencoder(
    pipeline: StereoInpaintPipeline,
    run: Run,
    settings: TrainDiffusion,
    draw: DrawShot,
    draw_held: DrawShot,  # from held-out films
) -> None:
    """Train to reconstruct pairs of frames; then set the scaling factor that gives latents unit variance."""

    @torch.no_grad()
    def validate(model: nn.Module) -> dict[str, float]:
        return {"psnr_db": psnr_db(model(frames)[0] - frames, peak=2)}

    rngs = enumerate(validation_rngs(settings.autoencoder.seed, SAMPLES))
    frames = torch.stack([_draw_frames(draw_held, *given)[0] for given in rngs])
    training_loop(
        Reconstruction(pipeline.vae),
        run,
        name="autoencoder",
        hyperparams=settings.autoencoder,
        draw=partial(_draw_frames, draw),
        loss=reconstruction_loss,
        validate=validate,
    )
    with torch.no_grad():
        factor = scaling_factor(encode(pipeline.vae, frames.flatten(0, 1)))
    pipeline.vae.register_to_config(scaling_factor=round(factor, 6))


def _draw_frames(draw: DrawShot, number: int, rng: np.random.Generator) -> Sample:
    shot = draw(number, rng)
    frames = shot.warped if rng.random() < WARPED_SHARE else shot.right
    return (to_signed(dequantize_plane(frames)),)


class Reconstruction(nn.Module):
    """The autoencoder as one module: encode, sample, decode."""

    vae: Any  # AutoencoderKLTemporalDecoder, which is no Module to the type checker

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae = vae
        middle = self.vae.decoder.mid_block
        # Attention follows every layer but the first. Processes wait for each other's gradients of all
        # weights that are not frozen, so a weight without gradient would end the training.
        middle.attentions[max(0, len(middle.resnets) - 1) :].requires_grad_(False)

    def forward(
        self,
        frames: Tensor,  # [B, T, 3, H, W] in [-1, 1]
    ) -> tuple[Tensor, Tensor]:  # [B, T, 3, H, W]; scalar
        """Reconstruct frames, in eval mode from the mode of the latents.

        Also returns the KL divergence from a normal distribution, mean per latent.
        """
        side = patch_px(self.vae)
        latents = self.vae.encode(F.pixel_unshuffle(frames.flatten(0, 1), side)).latent_dist
        sample = latents.sample() if self.training else latents.mode()
        decoded = F.pixel_shuffle(self.vae.decode(sample, num_frames=frames.shape[1]).sample, side)
        return decoded.unflatten(0, frames.shape[:2]), latents.kl().mean() / latents.mean[0].numel()


def reconstruction_loss(model: nn.Module, batch: Sample) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Return the mean absolute difference plus the weighted KL divergence, and both as metrics."""
    (frames,) = batch
    decoded, divergence = model(frames)
    difference = (decoded - frames).abs().mean()
    return difference + KL_WEIGHT * divergence, {"difference": difference, "divergence": divergence}
