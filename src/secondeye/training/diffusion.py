"""Training of the diffusion inpainter: its autoencoder first, unless it is pretrained, then the network.

The network's conditions are the warped view's latents and the mask (StereoCrafter, section 3.3), see
`conditioning`; the losses are in `v_prediction` and `one_step`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
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
from secondeye.training.conditioning import (
    ClipBatch,
    encode_conditions,
    replace_first_frames,
    simulate_inpainted,
)
from secondeye.training.loop import Loss, require_divisible_batch, training_loop
from secondeye.training.one_step import one_step_loss
from secondeye.training.sample_loader import Draw, Sample
from secondeye.training.sample_sheet import write_sample_sheet
from secondeye.training.shot_crops import draw_views
from secondeye.training.shots import hold_out, list_shots, select_usable
from secondeye.training.stereo_shot import ShotPool, StereoShot, dequantize, dequantize_plane, quantize
from secondeye.training.v_prediction import velocity_error, velocity_loss
from secondeye.training.windows import Windows, read_window

DrawShot = Callable[[int, np.random.Generator], StereoShot]  # as Draw; quantized
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
    train_diffusion(run, list_shots(run, data, _min_size(settings), settings.conditioning), settings)


def train_diffusion(run: Run, pool: ShotPool, settings: TrainDiffusion) -> None:
    """Train on shots, and write the pipeline to `run.model` and a sample sheet.

    tiny and small train both modules from scratch; svd widens the network of `pretrained` and trains its
    spatial layers only (paper, section 3.3). Continues a killed run exactly. Validates on held-out films, see
    `held_out_films`. Raises UserError if no shot is as large and as long as the crops, or `pretrained`
    cannot be loaded.
    """
    require_divisible_batch("network", settings.network)  # checked before the autoencoder is trained
    pipeline = make_pipeline(settings)
    held, trained_on = hold_out("diffusion", select_usable("diffusion", pool, _min_size(settings)))
    area_px = image_area_px(pipeline.unet.config.sample_size)
    if settings.size != "svd":
        draws = [DrawViews(shots, settings, AUTOENCODER_FRAMES, area_px) for shots in (trained_on, held)]
        train_autoencoder(pipeline, run, settings, *draws)
    draw, draw_held = (DrawViews(shots, settings, settings.frames, area_px) for shots in (trained_on, held))
    train_network(pipeline, run, settings, draw, draw_held)
    if is_main_process():
        pipeline.save_pretrained(run.model)
        _write_sheet(pipeline, _draw_validation(draw_held, settings, SHEET_SAMPLES), run)


class DrawViews:
    """Draws crops of windows of shots."""

    def __init__(self, pool: ShotPool, settings: TrainDiffusion, frames: int, area_px: int) -> None:
        share, seed = settings.mono_share, settings.network.seed
        self.windows = Windows(pool, frames, mono_share=share, seed=seed, max_stride=settings.max_stride)
        self.height, self.width = settings.height, settings.width
        self.border_hole_percent = settings.border_hole_percent
        self.area_px = area_px  # of the images that the network was made for

    def __call__(self, number: int, rng: np.random.Generator) -> StereoShot:  # quantized
        """Draw the views of a sample."""
        shot, frames = self.windows.draw(number, rng)
        size = training_size(shot.height, shot.width, self.height, self.width, self.area_px)
        window = read_window(shot, frames, partial(reduce_shot, height=size[0], width=size[1]))
        return draw_views(window, self.height, self.width, self.border_hole_percent, rng)


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

    @torch.no_grad()
    def validate(model: nn.Module) -> dict[str, float]:
        return {"psnr_db": _psnr_db(model(frames)[0] - frames, peak=2)}

    rngs = enumerate(_validation_rngs(settings, AUTOENCODER_SAMPLES))
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
    make_objective = _cached_objective if settings.cached_samples else _fresh_objective
    draw_sample, loss = make_objective(pipeline, run, settings, draw)
    training_loop(
        pipeline.unet,
        run,
        name="network",
        hyperparams=settings.network,
        draw=draw_sample,
        loss=loss,
        validate=lambda _: _validate(pipeline, _draw_validation(draw_held, settings, NETWORK_SAMPLES)),
        # Cached samples are encoded on the GPU by the process that needs them.
        workers=0 if settings.cached_samples else None,
    )
    pipeline.to("cpu")


def _fresh_objective(
    pipeline: StereoInpaintPipeline, run: Run, settings: TrainDiffusion, draw: DrawShot
) -> tuple[Draw, Loss]:
    """Draw and encode a fresh sample at every step."""
    clip_loss = make_clip_loss(settings)

    def loss(network: nn.Module, sample: Sample) -> tuple[Tensor, Mapping[str, Tensor]]:
        batch = ClipBatch(*map(dequantize_plane, sample))
        _move_frozen(pipeline, batch.target.device)
        return clip_loss(network, pipeline, _give_first_frames(pipeline, settings, batch))

    return partial(_draw_sample, draw), loss


def _draw_sample(draw: DrawShot, number: int, rng: np.random.Generator) -> Sample:
    return make_sample(draw(number, rng))


def _cached_objective(
    pipeline: StereoInpaintPipeline, run: Run, settings: TrainDiffusion, draw: DrawShot
) -> tuple[Draw, Loss]:
    """Draw and encode samples once, simulated inpainting included; every step adds its own noise."""

    def make(index: int, rng: np.random.Generator) -> Sample:
        device = torch.device(best_device())
        _move_frozen(pipeline, device)
        planes = make_sample(draw(index, rng))
        batch = ClipBatch(*(dequantize_plane(plane[None].to(device)) for plane in planes))
        batch = _give_first_frames(pipeline, settings, batch)
        latents, conditions = encode_conditions(pipeline, batch)
        return latents[0], *(part[0] for part in conditions if part is not None)

    def loss(network: nn.Module, sample: Sample) -> tuple[Tensor, Mapping[str, Tensor]]:
        latents, *conditions = sample
        return velocity_error(
            network, latents, Conditions(*conditions), dropout=settings.conditioning_dropout
        )

    folder = run.checkpoints / "samples"  # deleted with the checkpoints

    def draw_one(_: int, rng: np.random.Generator) -> Sample:
        return draw_cached(folder, settings.cached_samples, settings.network.seed, make, rng)

    return draw_one, loss


def _give_first_frames(
    pipeline: StereoInpaintPipeline, settings: TrainDiffusion, batch: ClipBatch
) -> ClipBatch:
    """Let clips begin with frames that a conversion would have inpainted before."""
    if settings.first_frames == "ground_truth":
        return replace_first_frames(batch)
    return simulate_inpainted(pipeline, batch)


def _move_frozen(pipeline: StereoInpaintPipeline, device: torch.device) -> None:
    for module in (pipeline.vae, pipeline.image_encoder):
        module.to(device)


def make_sample(
    shot: StereoShot,  # quantized
) -> ClipBatch:  # 8-bit, of one clip, without the batch axis
    """Return the network's inputs and the ground truth of a shot."""
    return ClipBatch(shot.right, shot.warped, 255 - shot.coverage, shot.left)


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


def training_size(
    height: int,  # px of a view
    width: int,
    crop_height: int,  # px of a sample
    crop_width: int,
    area_px: int,  # of the images that the network was made for
) -> tuple[int, int]:  # px
    """Return the size to reduce a view to: where the network takes a frame whole, as it inpaints, or larger.

    A reduced view is still as large as a sample, so that crops of the network's own size fit into views of
    any size.
    """
    reduced = working_size(height, width, 1, 1, area_px)
    scale = min(1.0, max(reduced[0] / height, reduced[1] / width, crop_height / height, crop_width / width))
    return max(crop_height, round(scale * height)), max(crop_width, round(scale * width))


def reduce_shot(
    shot: StereoShot,  # quantized
    *,
    height: int,
    width: int,
) -> StereoShot:  # quantized
    """Reduce a shot as the inpainter does."""
    if shot.left.shape[2:] == (height, width):
        return shot
    left, right, warped, coverage, disparity = dequantize(shot)
    small, holes = reduce_warped(warped, coverage, height, width)
    disparity = resize_disparity(disparity, height, width)
    left, right = resize(left, height, width), resize(right, height, width)
    return quantize(StereoShot(left, right, small, 1 - holes.float(), disparity))


def _validation_rngs(settings: TrainDiffusion, count: int) -> list[np.random.Generator]:
    """Return generators that the training loop does not use."""
    seeds = np.random.SeedSequence(settings.network.seed).spawn(count)
    return [np.random.default_rng(seed) for seed in seeds]


def _draw_validation(draw: DrawShot, settings: TrainDiffusion, count: int) -> Iterator[StereoShot]:
    """Draw the first shots of the validation; float32."""
    for number, rng in enumerate(_validation_rngs(settings, count)):
        yield dequantize(draw(number, rng))


def _validate(pipeline: StereoInpaintPipeline, shots: Iterable[StereoShot]) -> dict[str, float]:
    """Compute the PSNR in the holes, over all shots together."""
    errors = [
        (inpainted - shot.right)[occlusion_mask(shot.coverage).expand_as(shot.right)]
        for shot, inpainted in _inpaint(pipeline, shots)
    ]
    return {"hole_psnr_db": _psnr_db(torch.cat(errors), peak=1)}


def _inpaint(
    pipeline: StereoInpaintPipeline, shots: Iterable[StereoShot]
) -> Iterator[tuple[StereoShot, Tensor]]:  # [T, 3, H, W] in [0, 1]
    """Inpaint shots one by one, on a GPU if there is one; leaves the pipeline on the CPU."""
    pipeline.to(best_device())
    inpainter = Diffusion(pipeline, InpaintOptions(steps=STEPS, tiles=1))
    for shot in shots:
        view = Warped(shot.left, shot.warped, shot.coverage, shot.disparity)
        yield shot, inpaint_shot(inpainter, [view])
    pipeline.to("cpu")


def _psnr_db(error: Tensor, peak: float) -> float:
    """Compute the PSNR of an error; 100 if it is zero or empty."""
    mean = float((error.double() ** 2).sum()) / max(1, error.numel())
    return -10 * float(np.log10(max(mean / peak**2, 1e-10)))


@torch.no_grad()
def _write_sheet(pipeline: StereoInpaintPipeline, shots: Iterable[StereoShot], run: Run) -> None:
    """Write an image with a column for each shot's last frame.

    Rows: warped, ground truth after the autoencoder, inpainted, ground truth.
    """
    ends = [(shot.warped[-1], right[-1], shot.right[-2:]) for shot, right in _inpaint(pipeline, shots)]
    columns = []
    for warped, inpainted, truth in ends:
        latents = encode(pipeline.vae, to_signed(truth)) * pipeline.vae.config.scaling_factor
        coded = (decode(pipeline.vae, latents, len(latents)) / 2 + 0.5).clamp(0, 1)
        columns.append(torch.cat([warped, coded[-1], inpainted, truth[-1]], dim=1))
    sheet = torch.cat(columns, dim=2).permute(1, 2, 0).numpy()
    write_sample_sheet(run.picture("diffusion.png"), (sheet * 255).round().astype(np.uint8))
