"""Training of the diffusion inpainter's network; its autoencoder is trained before, or pretrained.

The network's conditions are the warped view's latents and the mask (StereoCrafter, section 3.3), see
`conditioning`; the losses are in `v_prediction` and `one_step`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from secondeye.imaging.arrays import occlusion_mask
from secondeye.inpaint import InpaintOptions, Warped, inpaint_shot
from secondeye.inpaint.autoencoder import decode, encode, to_signed
from secondeye.inpaint.conditions import Conditions
from secondeye.inpaint.diffusion import STEPS, Diffusion
from secondeye.inpaint.gradient_checkpoints import enable_gradient_checkpoints
from secondeye.inpaint.pipeline import StereoInpaintPipeline
from secondeye.inpaint.working_size import image_area_px
from secondeye.metrics.learned import load_lpips
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
from secondeye.training.initial_weights import make_pipeline
from secondeye.training.loop import Loss, training_loop
from secondeye.training.lora import add_lora, merge_lora
from secondeye.training.one_step import one_step_loss
from secondeye.training.sample_loader import Draw, Sample
from secondeye.training.sample_sheet import write_sample_sheet
from secondeye.training.shots import hold_out, list_shots, select_usable
from secondeye.training.step_metrics import psnr_db
from secondeye.training.stereo_shot import ShotPool, StereoShot, dequantize, dequantize_plane
from secondeye.training.v_prediction import velocity_error, velocity_loss
from secondeye.training.views import DrawShot, DrawViews, min_size, used_planes, validation_rngs

if TYPE_CHECKING:
    from peft import LoraModel

ClipLoss = Callable[[nn.Module, StereoInpaintPipeline, ClipBatch], tuple[Tensor, Mapping[str, Tensor]]]

# Parts of the names of the layers that svd freezes:
TEMPORAL = ("temporal", "time_mixer", "time_pos_embed", "time_embedding", "add_embedding")
NETWORK_SAMPLES = 8  # validated on
SHEET_SAMPLES = 4


def train(run: Run, data: Path, autoencoder: Path, settings: TrainDiffusion) -> None:
    """Train on a dataset; see `train_diffusion`."""
    given = run, data, min_size(settings), settings.conditioning, used_planes(settings)
    pool = list_shots(*given, mono_max_gradient=settings.mono_max_gradient)
    train_diffusion(run, pool, autoencoder, settings)


def train_diffusion(
    run: Run,
    pool: ShotPool,
    autoencoder: Path,  # a trained one; with svd the pretrained one is taken
    settings: TrainDiffusion,
) -> None:
    """Train on shots, and write the pipeline to `run.model` and a sample sheet.

    tiny and small train the network from scratch; svd widens the network of `pretrained` and trains its
    spatial layers only (paper, section 3.3). Continues a killed run exactly. Validates on held-out films, see
    `held_out_films`. Raises UserError if no shot is as large and as long as the crops, or `pretrained`
    cannot be loaded.
    """
    pipeline = make_pipeline(settings, autoencoder)
    pools = hold_out("diffusion", select_usable("diffusion", pool, min_size(settings)))
    area_px, seed = image_area_px(pipeline.unet.config.sample_size), settings.network.seed
    draw_held, draw = (
        DrawViews(shots, settings, settings.frames, area_px, max_stride=settings.max_stride, seed=seed)
        for shots in pools
    )
    train_network(pipeline, run, settings, draw, draw_held)
    if is_main_process():
        pipeline.save_pretrained(run.model)
        _write_sheet(pipeline, _draw_validation(draw_held, settings, SHEET_SAMPLES), run)


def train_network(
    pipeline: StereoInpaintPipeline,
    run: Run,
    settings: TrainDiffusion,
    draw: DrawShot,
    draw_held: DrawShot,  # from held-out films
) -> None:
    """Train the network in place; the other modules are frozen."""
    adapted = freeze_modules(pipeline, settings)
    pipeline.register_to_config(overlap_mask="cleared", conditioning=settings.conditioning)
    draw_one = (
        _draw_cached(pipeline, run, settings, draw) if settings.cached_samples else partial(draw_sample, draw)
    )
    training_loop(
        pipeline.unet,
        run,
        name="network",
        hyperparams=settings.network,
        draw=draw_one,
        loss=make_loss(pipeline, settings),
        validate=lambda _: _validate(pipeline, _draw_validation(draw_held, settings, NETWORK_SAMPLES)),
        # Cached samples are encoded on the GPU by the process that needs them.
        workers=0 if settings.cached_samples else None,
    )
    pipeline.to("cpu")
    if adapted is not None:
        merge_lora(adapted)


def freeze_modules(pipeline: StereoInpaintPipeline, settings: TrainDiffusion) -> "LoraModel | None":
    """Freeze what is not trained, and let svd compute its activations twice rather than keep them.

    Returns the network with its adapters, if there are any.
    """
    if settings.size == "svd":
        freeze_temporal(pipeline.unet)
        enable_gradient_checkpoints(pipeline.unet)
    pipeline.vae.requires_grad_(False)
    pipeline.image_encoder.requires_grad_(False)
    if not settings.lora_rank:
        return None
    torch.manual_seed(settings.network.seed)
    return add_lora(pipeline.unet, settings.lora_rank, settings.lora_alpha)


def make_loss(pipeline: StereoInpaintPipeline, settings: TrainDiffusion) -> Loss:
    """Return the loss of samples: of fresh ones, which it encodes, or of cached ones."""
    clip_loss = make_clip_loss(settings)

    def fresh_loss(network: nn.Module, sample: Sample) -> tuple[Tensor, Mapping[str, Tensor]]:
        batch = ClipBatch(*map(dequantize_plane, sample))
        _move_frozen(pipeline, batch.target.device)
        return clip_loss(network, pipeline, _give_first_frames(pipeline, settings, batch))

    def cached_loss(network: nn.Module, sample: Sample) -> tuple[Tensor, Mapping[str, Tensor]]:
        latents, *conditions = sample
        return velocity_error(
            network, latents, Conditions(*conditions), dropout=settings.conditioning_dropout
        )

    return cached_loss if settings.cached_samples else fresh_loss


def draw_sample(draw: DrawShot, number: int, rng: np.random.Generator) -> Sample:
    """Draw a sample of the network's training."""
    return make_sample(draw(number, rng))


def _draw_cached(pipeline: StereoInpaintPipeline, run: Run, settings: TrainDiffusion, draw: DrawShot) -> Draw:
    """Draw and encode samples once, simulated inpainting included; every step adds its own noise."""

    def make(index: int, rng: np.random.Generator) -> Sample:
        device = torch.device(best_device())
        _move_frozen(pipeline, device)
        planes = make_sample(draw(index, rng))
        batch = ClipBatch(*(dequantize_plane(plane[None].to(device)) for plane in planes))
        batch = _give_first_frames(pipeline, settings, batch)
        latents, conditions = encode_conditions(pipeline, batch, settings.frozen_precision)
        return latents[0], *(part[0] for part in conditions if part is not None)

    folder = run.checkpoints / "samples"  # deleted with the checkpoints

    def draw_one(_: int, rng: np.random.Generator) -> Sample:
        return draw_cached(folder, settings.cached_samples, settings.network.seed, make, rng)

    return draw_one


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
        return partial(one_step_loss, lpips=lpips, precision=settings.frozen_precision)
    dropout, precision = settings.conditioning_dropout, settings.frozen_precision
    return partial(velocity_loss, dropout=dropout, precision=precision)


def freeze_temporal(network: nn.Module) -> None:
    """Freeze all but the spatial layers (paper, section 3.3)."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not any(part in name for part in TEMPORAL))


def _draw_validation(draw: DrawShot, settings: TrainDiffusion, count: int) -> Iterator[StereoShot]:
    """Draw the first shots of the validation; float32."""
    for number, rng in enumerate(validation_rngs(settings.network.seed, count)):
        yield dequantize(draw(number, rng))


def _validate(pipeline: StereoInpaintPipeline, shots: Iterable[StereoShot]) -> dict[str, float]:
    """Compute the PSNR in the holes, over all shots together."""
    errors = [
        (inpainted - shot.right)[occlusion_mask(shot.coverage).expand_as(shot.right)]
        for shot, inpainted in _inpaint(pipeline, shots)
    ]
    return {"hole_psnr_db": psnr_db(torch.cat(errors), peak=1)}


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
