"""Training of the diffusion inpainter: its autoencoder first, unless it is pretrained, then the network.

The network's conditions are the warped view's latents and the mask (StereoCrafter, section 3.3), see
`conditioning`; the losses are in `v_prediction` and `one_step`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secondeye.imaging.arrays import occlusion_mask, resize, resize_disparity
from secondeye.inpaint import InpaintOptions, Warped, inpaint_shot
from secondeye.inpaint.autoencoder import decode, encode, patch_px, scaling_factor, to_signed
from secondeye.inpaint.conditions import Conditions
from secondeye.inpaint.diffusion import STEPS, Diffusion
from secondeye.inpaint.module_checks import IN_CHANNELS, ONE_STEP_CHANNELS
from secondeye.inpaint.pipeline import StereoInpaintPipeline
from secondeye.inpaint.tiny import make_small, make_tiny
from secondeye.inpaint.weights import hash_svd, load_widened
from secondeye.inpaint.working_size import image_area_px, reduce_warped, working_size
from secondeye.metrics.learned import load_lpips
from secondeye.metrics.vgg16 import hash_weights
from secondeye.params import TrainDiffusion
from secondeye.run_folder import Run
from secondeye.system.process import best_device, is_main_process
from secondeye.training.cached_samples import draw_cached
from secondeye.training.conditioning import ClipBatch, encode_conditions, simulate_inpainted
from secondeye.training.footage import hold_out, load_shots, select_usable
from secondeye.training.loop import Draw, Loss, Sample, require_divisible_batch, training_loop
from secondeye.training.one_step import one_step_loss
from secondeye.training.sample_sheet import write_sample_sheet
from secondeye.training.shot_crops import draw_shot
from secondeye.training.stereo_shot import ShotPool, StereoShot, quantize
from secondeye.training.v_prediction import velocity_error, velocity_loss

DrawShot = Callable[[np.random.Generator], StereoShot]
ClipLoss = Callable[[nn.Module, StereoInpaintPipeline, ClipBatch], tuple[Tensor, Mapping[str, Tensor]]]

AUTOENCODER_FRAMES = 2  # of a sample: its decoder learns what neighbouring frames share
KL_WEIGHT = 1e-4  # keeps latents near the origin, and hardly blurs
WARPED_SHARE = 0.3  # of the autoencoder's samples: the network is given warped views with black holes
# Parts of the names of the layers that svd freezes:
TEMPORAL = ("temporal", "time_mixer", "time_pos_embed", "time_embedding", "add_embedding")
AUTOENCODER_SAMPLES = 16  # validated on
NETWORK_SAMPLES = 8  # validated on
SHEET_SAMPLES = 4


def hash_pretrained(settings: TrainDiffusion) -> dict[str, str]:
    """Hash the weights that training starts from and LPIPS uses. Raises UserError if they are missing."""
    initial = {"initial": hash_svd(settings.pretrained)} if settings.pretrained else {}
    return initial | ({"lpips": hash_weights(settings.vgg_weights)} if settings.vgg_weights else {})


def train(run: Run, data: Path, settings: TrainDiffusion) -> None:
    """Train on a dataset; see `train_diffusion`."""
    train_diffusion(run, load_shots(data, _min_size(settings), settings.conditioning), settings)


def train_diffusion(run: Run, pool: ShotPool, settings: TrainDiffusion) -> None:
    """Train on quantized shots, and write the pipeline to `run.model` and a sample sheet.

    tiny and small train both modules from scratch; svd widens the network of `pretrained` and trains its
    spatial layers only (paper, section 3.3). Continues a killed run exactly. Validates on held-out films, see
    `held_out_films`. Raises UserError if no shot is as large and as long as the crops, or `pretrained`
    cannot be loaded.
    """
    require_divisible_batch("network", settings.network)  # checked before the autoencoder is trained
    pipeline = make_pipeline(settings)
    pool = ShotPool(*([to_working_size(shot, pipeline) for shot in shots] for shots in pool))
    held, trained_on = hold_out("diffusion", select_usable("diffusion", *pool, _min_size(settings)))

    def make_draw(shots: ShotPool, frames: int) -> DrawShot:
        return partial(draw_shot, *shots, settings.mono_share, settings.height, settings.width, frames)

    if settings.size != "svd":
        draws = [make_draw(shots, AUTOENCODER_FRAMES) for shots in (trained_on, held)]
        train_autoencoder(pipeline, run, settings, *draws)
    draw, draw_held = (make_draw(shots, settings.frames) for shots in (trained_on, held))
    train_network(pipeline, run, settings, draw, draw_held)
    if is_main_process():
        pipeline.save_pretrained(run.model)
        _write_sheet(pipeline, [draw_held(rng) for rng in _validation_rngs(settings, SHEET_SAMPLES)], run)


def make_pipeline(settings: TrainDiffusion) -> StereoInpaintPipeline:
    """Build the pipeline that training starts from, the same each time."""
    torch.manual_seed(settings.network.seed)
    channels = ONE_STEP_CHANNELS if settings.method == "one_step" else IN_CHANNELS
    match settings.size:
        case "tiny":
            return make_tiny(settings.frames, channels)
        case "small":
            return make_small(settings.frames, channels)
    pipeline = load_widened(settings.pretrained, channels)
    pipeline.unet.register_to_config(num_frames=settings.frames)  # the number it is trained on
    return pipeline


def _min_size(settings: TrainDiffusion) -> tuple[int, int, int]:
    return settings.frames, settings.height, settings.width


def train_autoencoder(
    pipeline: StereoInpaintPipeline,
    run: Run,
    settings: TrainDiffusion,
    draw: DrawShot,
    draw_held: DrawShot,  # from held-out films
) -> None:
    """Train to reconstruct pairs of frames; then set the scaling factor that gives latents unit variance."""

    def draw_frames(draw: DrawShot, rng: np.random.Generator) -> Sample:
        shot = draw(rng)
        return (to_signed(shot.warped if rng.random() < WARPED_SHARE else shot.right),)

    @torch.no_grad()
    def validate(model: nn.Module) -> dict[str, float]:
        return {"psnr_db": _psnr_db(model(frames)[0] - frames, peak=2)}

    rngs = _validation_rngs(settings, AUTOENCODER_SAMPLES)
    frames = torch.stack([draw_frames(draw_held, rng)[0] for rng in rngs])
    training_loop(
        Reconstruction(pipeline.vae),
        run,
        name="autoencoder",
        hyperparams=settings.autoencoder,
        draw=partial(draw_frames, draw),
        loss=reconstruction_loss,
        validate=validate,
    )
    with torch.no_grad():
        factor = scaling_factor(encode(pipeline.vae, frames.flatten(0, 1)))
    pipeline.vae.register_to_config(scaling_factor=round(factor, 6))


class Reconstruction(nn.Module):
    """The autoencoder as one module: encode, sample, decode."""

    vae: Any  # AutoencoderKLTemporalDecoder, which is no Module to the type checker

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae = vae

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


def train_network(
    pipeline: StereoInpaintPipeline,
    run: Run,
    settings: TrainDiffusion,
    draw: DrawShot,
    draw_held: DrawShot,  # from held-out films
) -> None:
    """Train the network in place; the other modules are frozen."""
    if settings.size == "svd":
        freeze_temporal(pipeline.unet)
        pipeline.unet.enable_gradient_checkpointing()
    pipeline.vae.requires_grad_(False)
    pipeline.image_encoder.requires_grad_(False)
    pipeline.register_to_config(overlap_mask="cleared", conditioning=settings.conditioning)
    shots = [draw_held(rng) for rng in _validation_rngs(settings, NETWORK_SAMPLES)]
    make_objective = _cached_objective if settings.cached_samples else _fresh_objective
    draw_sample, loss = make_objective(pipeline, run, settings, draw)
    training_loop(
        pipeline.unet,
        run,
        name="network",
        hyperparams=settings.network,
        draw=draw_sample,
        loss=loss,
        validate=lambda _: _validate(pipeline, shots),
    )
    pipeline.to("cpu")


def _fresh_objective(
    pipeline: StereoInpaintPipeline, run: Run, settings: TrainDiffusion, draw: DrawShot
) -> tuple[Draw, Loss]:
    """Draw and encode a fresh sample at every step."""
    clip_loss = make_clip_loss(settings)

    def loss(network: nn.Module, sample: Sample) -> tuple[Tensor, Mapping[str, Tensor]]:
        batch = ClipBatch(*sample)
        _move_frozen(pipeline, batch.target.device)
        return clip_loss(network, pipeline, simulate_inpainted(pipeline, batch))

    return lambda rng: make_sample(draw(rng)), loss


def _cached_objective(
    pipeline: StereoInpaintPipeline, run: Run, settings: TrainDiffusion, draw: DrawShot
) -> tuple[Draw, Loss]:
    """Draw and encode samples once, simulated inpainting included; every step adds its own noise."""

    def make(rng: np.random.Generator) -> Sample:
        device = torch.device(best_device())
        _move_frozen(pipeline, device)
        batch = ClipBatch(*(plane[None].to(device) for plane in make_sample(draw(rng))))
        latents, conditions = encode_conditions(pipeline, simulate_inpainted(pipeline, batch))
        return latents[0], *(part[0] for part in conditions if part is not None)

    def loss(network: nn.Module, sample: Sample) -> tuple[Tensor, Mapping[str, Tensor]]:
        latents, *conditions = sample
        return velocity_error(
            network, latents, Conditions(*conditions), dropout=settings.conditioning_dropout
        )

    folder = run.checkpoints / "samples"  # deleted with the checkpoints
    return partial(draw_cached, folder, settings.cached_samples, settings.network.seed, make), loss


def _move_frozen(pipeline: StereoInpaintPipeline, device: torch.device) -> None:
    for module in (pipeline.vae, pipeline.image_encoder):
        module.to(device)


def make_sample(shot: StereoShot) -> ClipBatch:  # of one clip, without the batch axis
    """Return the network's inputs and the ground truth of a shot."""
    return ClipBatch(shot.right, shot.warped, 1 - shot.coverage, shot.left)


def make_clip_loss(settings: TrainDiffusion) -> ClipLoss:
    """Return the loss of the chosen method."""
    if settings.method == "one_step":
        device, weights = best_device(), settings.vgg_weights
        lpips = load_lpips(weights, device) if weights and device == "cuda" else None
        return partial(one_step_loss, lpips=lpips)
    return partial(velocity_loss, dropout=settings.conditioning_dropout)


def freeze_temporal(network: nn.Module) -> None:
    """Freeze all but the spatial layers (paper, section 3.3)."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not any(part in name for part in TEMPORAL))


def to_working_size(
    shot: StereoShot,  # quantized
    pipeline: StereoInpaintPipeline,
) -> StereoShot:  # quantized
    """Reduce a shot to the size at which the network takes a frame whole, as the inpainter does."""
    height, width = shot.left.shape[2:]
    size = working_size(height, width, 1, 1, image_area_px(pipeline.unet.config.sample_size))
    if size == (height, width):
        return shot
    left, right, warped, coverage = (plane.float() / 255 for plane in shot.planes[:4])
    small, holes = reduce_warped(warped, coverage, *size)
    disparity = resize_disparity(shot.disparity.float(), *size)
    left, right = resize(left, *size), resize(right, *size)
    return quantize(StereoShot(left, right, small, 1 - holes.float(), disparity, shot.film))


def _validation_rngs(settings: TrainDiffusion, count: int) -> list[np.random.Generator]:
    """Return generators that the training loop does not use."""
    seeds = np.random.SeedSequence(settings.network.seed).spawn(count)
    return [np.random.default_rng(seed) for seed in seeds]


def _validate(pipeline: StereoInpaintPipeline, shots: Sequence[StereoShot]) -> dict[str, float]:
    """Compute the PSNR in the holes, over all shots together."""
    errors = [
        (inpainted - shot.right)[occlusion_mask(shot.coverage).expand_as(shot.right)]
        for shot, inpainted in zip(shots, _inpaint(pipeline, shots), strict=True)
    ]
    return {"hole_psnr_db": _psnr_db(torch.cat(errors), peak=1)}


def _inpaint(
    pipeline: StereoInpaintPipeline, shots: Sequence[StereoShot]
) -> list[Tensor]:  # [T, 3, H, W] in [0, 1]
    """Inpaint shots, on a GPU if there is one; leaves the pipeline on the CPU."""
    pipeline.to(best_device())
    views = [Warped(shot.left, shot.warped, shot.coverage, shot.disparity) for shot in shots]
    inpainter = Diffusion(pipeline, InpaintOptions(steps=STEPS, tiles=1))
    inpainted = [inpaint_shot(inpainter, [view]) for view in views]
    pipeline.to("cpu")
    return inpainted


def _psnr_db(error: Tensor, peak: float) -> float:
    """Compute the PSNR of an error; 100 if it is zero or empty."""
    mean = float((error.double() ** 2).sum()) / max(1, error.numel())
    return -10 * float(np.log10(max(mean / peak**2, 1e-10)))


@torch.no_grad()
def _write_sheet(pipeline: StereoInpaintPipeline, shots: Sequence[StereoShot], run: Run) -> None:
    """Write an image with a column for each shot's last frame.

    Rows: warped, ground truth after the autoencoder, inpainted, ground truth.
    """
    columns = []
    for shot, inpainted in zip(shots, _inpaint(pipeline, shots), strict=True):
        latents = encode(pipeline.vae, to_signed(shot.right[-2:])) * pipeline.vae.config.scaling_factor
        coded = (decode(pipeline.vae, latents, len(latents)) / 2 + 0.5).clamp(0, 1)
        columns.append(torch.cat([shot.warped[-1], coded[-1], inpainted[-1], shot.right[-1]], dim=1))
    sheet = torch.cat(columns, dim=2).permute(1, 2, 0).numpy()
    write_sample_sheet(run.picture("diffusion.png"), (sheet * 255).round().astype(np.uint8))
