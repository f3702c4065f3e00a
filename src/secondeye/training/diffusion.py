"""Training of the diffusion inpainter: the autoencoder first, where there is none, then the network.

The network is given the warped view's latents and the mask (StereoCrafter, section 3.3), see `conditioning`;
by what it learns is in `velocity` and `one_step`.
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
from secondeye.inpaint import Warped
from secondeye.inpaint.autoencoder import decode, encode, patch_px, scaling_factor, to_signed
from secondeye.inpaint.conditions import Conditions
from secondeye.inpaint.diffusion import STEPS, downscale_factor, downscale_warped, inpaint_warped
from secondeye.inpaint.module_checks import IN_CHANNELS, ONE_STEP_CHANNELS
from secondeye.inpaint.pipeline import StereoInpaintPipeline
from secondeye.inpaint.tiny import make_small, make_tiny
from secondeye.inpaint.weights import hash_svd, load_widened
from secondeye.metrics.learned import load_lpips
from secondeye.metrics.vgg16 import hash_weights
from secondeye.params import TrainDiffusion
from secondeye.run_folder import Run
from secondeye.system.process import best_device, is_main_process
from secondeye.training.cached_samples import draw_cached
from secondeye.training.conditioning import Batch, condition, paint_first
from secondeye.training.footage import hold_out, keep_usable, load_all
from secondeye.training.loop import Draw, Loss, Sample, require_shares, training_loop
from secondeye.training.one_step import one_step_loss
from secondeye.training.sample_sheet import write_sample_sheet
from secondeye.training.samples import draw_scene
from secondeye.training.scene import Scene, store
from secondeye.training.v_prediction import velocity_error, velocity_loss

DrawScene = Callable[[np.random.Generator], Scene]
LearnClips = Callable[[nn.Module, StereoInpaintPipeline, Batch], tuple[Tensor, Mapping[str, Tensor]]]

AUTOENCODER_FRAMES = 2  # of a sample; its decoder has to learn what neighbours share
KL_WEIGHT = 1e-4  # keeps latents near the origin, and hardly blurs
WARPED_SHARE = 0.3  # of the autoencoder's samples: the network is given warped views, black holes and all
# In the names of what svd keeps as it is:
TEMPORAL = ("temporal", "time_mixer", "time_pos_embed", "time_embedding", "add_embedding")
MEASURED_SCENES = 16
CHECKED_SCENES = 8
SHOWN_SCENES = 4


def foreign_weights(settings: TrainDiffusion) -> dict[str, str]:
    """Hashes of what svd begins with and LPIPS sees with, by name; Refusal where they can not be had."""
    initial = {"initial": hash_svd(settings.pretrained)} if settings.pretrained else {}
    return initial | ({"lpips": hash_weights(settings.vgg_weights)} if settings.vgg_weights else {})


def train(run: Run, folders: Sequence[Path], settings: TrainDiffusion) -> None:
    """Train on the folders of `load_all`; see `train_diffusion`."""
    train_diffusion(run, *load_all(folders, _least(settings)), settings)


def train_diffusion(
    run: Run, stereo: Sequence[Scene], mono: Sequence[Scene], settings: TrainDiffusion
) -> None:
    """Train on stored scenes, write the pipeline's folder to `run.model` and a picture.

    tiny and small train both modules from nothing; svd widens the network of `initial` and trains its
    spatial layers alone (paper, section 3.3). Scored on films not learnt from, with 20 or more of them.
    Continues a killed run exactly. Raises Refusal when no scene is as large and as long as the crops, or
    `initial` can not be had.
    """
    require_shares("network", settings.network)  # before the autoencoder is trained in vain
    pipeline = make_pipeline(settings)
    stereo, mono = ([to_working_size(scene, pipeline) for scene in scenes] for scenes in (stereo, mono))
    size = (settings.height, settings.width)
    held, learnt = hold_out(*keep_usable("diffusion", stereo, mono, _least(settings)))
    draw_held, draw = (
        partial(draw_scene, *kinds, settings.mono_share, *size, settings.frames) for kinds in (held, learnt)
    )
    if settings.size != "svd":
        held_still, still = (
            partial(draw_scene, *kinds, settings.mono_share, *size, AUTOENCODER_FRAMES)
            for kinds in (held, learnt)
        )
        train_autoencoder(pipeline, run, settings, still, held_still)
    train_network(pipeline, run, settings, draw, draw_held)
    if is_main_process():
        pipeline.save_pretrained(run.model)
        _show(pipeline, [draw_held(rng) for rng in _generators(settings, SHOWN_SCENES)], run)


def make_pipeline(settings: TrainDiffusion) -> StereoInpaintPipeline:
    """What training begins with; the same each time."""
    torch.manual_seed(settings.network.seed)
    channels = ONE_STEP_CHANNELS if settings.method == "one_step" else IN_CHANNELS
    match settings.size:
        case "tiny":
            return make_tiny(settings.frames, channels)
        case "small":
            return make_small(settings.frames, channels)
    pipeline = load_widened(settings.pretrained, channels)
    pipeline.unet.register_to_config(num_frames=settings.frames)  # as many as it will have learnt from
    return pipeline


def _least(settings: TrainDiffusion) -> tuple[int, int, int]:
    return settings.frames, settings.height, settings.width


def train_autoencoder(
    pipeline: StereoInpaintPipeline,
    run: Run,
    settings: TrainDiffusion,
    draw: DrawScene,
    draw_held: DrawScene,  # from scenes not learnt from
) -> None:
    """Reconstruct single frames and their neighbours; then give its latents a standard deviation of 1."""

    def draw_frames(draw: DrawScene, rng: np.random.Generator) -> Sample:
        scene = draw(rng)
        return (to_signed(scene.warped if rng.random() < WARPED_SHARE else scene.right),)

    @torch.no_grad()
    def score(model: nn.Module) -> dict[str, float]:
        return {"psnr_db": _psnr_db(model(checked)[0] - checked, peak=2)}

    checked = torch.stack([draw_frames(draw_held, rng)[0] for rng in _generators(settings, MEASURED_SCENES)])
    training_loop(
        Reconstruction(pipeline.vae),
        run,
        name="autoencoder",
        hyperparams=settings.autoencoder,
        draw=partial(draw_frames, draw),
        loss=reconstruction_loss,
        validate=score,
    )
    with torch.no_grad():
        factor = scaling_factor(encode(pipeline.vae, checked.flatten(0, 1)))
    pipeline.vae.register_to_config(scaling_factor=round(factor, 6))


class Reconstruction(nn.Module):
    """The autoencoder there and back."""

    vae: Any  # AutoencoderKLTemporalDecoder, which is no Module to the type checker

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae = vae

    def forward(
        self,
        frames: Tensor,  # [B, T, 3, H, W] in [-1, 1]
    ) -> tuple[Tensor, Tensor]:  # [B, T, 3, H, W]; [] divergence from a normal distribution, a latent's mean
        side = patch_px(self.vae)
        latents = self.vae.encode(F.pixel_unshuffle(frames.flatten(0, 1), side)).latent_dist
        sample = latents.sample() if self.training else latents.mode()
        decoded = F.pixel_shuffle(self.vae.decode(sample, num_frames=frames.shape[1]).sample, side)
        return decoded.unflatten(0, frames.shape[:2]), latents.kl().mean() / latents.mean[0].numel()


def reconstruction_loss(model: nn.Module, batch: Sample) -> tuple[Tensor, Mapping[str, Tensor]]:
    (frames,) = batch
    decoded, divergence = model(frames)
    difference = (decoded - frames).abs().mean()
    return difference + KL_WEIGHT * divergence, {"difference": difference, "divergence": divergence}


def train_network(
    pipeline: StereoInpaintPipeline,
    run: Run,
    settings: TrainDiffusion,
    draw: DrawScene,
    draw_held: DrawScene,  # from scenes not learnt from
) -> None:
    """Tune the network in place; the other modules stay as they are."""
    if settings.size == "svd":
        freeze_temporal(pipeline.unet)
        pipeline.unet.enable_gradient_checkpointing()
    pipeline.vae.requires_grad_(False)
    pipeline.image_encoder.requires_grad_(False)
    pipeline.register_to_config(overlap_mask="cleared")
    checked = [draw_held(rng) for rng in _generators(settings, CHECKED_SCENES)]
    encoded = _encoded_before if settings.cached_samples else _encoded_anew
    draw_sample, loss = encoded(pipeline, run, settings, draw)
    training_loop(
        pipeline.unet,
        run,
        name="network",
        hyperparams=settings.network,
        draw=draw_sample,
        loss=loss,
        validate=lambda _: _score(pipeline, checked),
    )
    pipeline.to("cpu")


def _encoded_anew(
    pipeline: StereoInpaintPipeline, run: Run, settings: TrainDiffusion, draw: DrawScene
) -> tuple[Draw, Loss]:
    """No sample comes twice."""
    learn = loss_of(settings)

    def loss(network: nn.Module, sample: Sample) -> tuple[Tensor, Mapping[str, Tensor]]:
        batch = Batch(*sample)
        _move_frozen(pipeline, batch.truth.device)
        return learn(network, pipeline, paint_first(pipeline, batch))

    return lambda rng: make_sample(draw(rng)), loss


def _encoded_before(
    pipeline: StereoInpaintPipeline, run: Run, settings: TrainDiffusion, draw: DrawScene
) -> tuple[Draw, Loss]:
    """All that is drawn of a sample is drawn once, painted frames too; each step has its own noise."""

    def make(rng: np.random.Generator) -> Sample:
        device = torch.device(best_device())
        _move_frozen(pipeline, device)
        batch = Batch(*(plane[None].to(device) for plane in make_sample(draw(rng))))
        latents, told = condition(pipeline, paint_first(pipeline, batch))
        return latents[0], *(part[0] for part in told if part is not None)

    def loss(network: nn.Module, sample: Sample) -> tuple[Tensor, Mapping[str, Tensor]]:
        latents, *told = sample
        return velocity_error(network, latents, Conditions(*told), dropout=settings.conditioning_dropout)

    folder = run.checkpoints / "samples"  # gone with them
    return partial(draw_cached, folder, settings.cached_samples, settings.network.seed, make), loss


def _move_frozen(pipeline: StereoInpaintPipeline, device: torch.device) -> None:
    for module in (pipeline.vae, pipeline.image_encoder):
        module.to(device)


def make_sample(scene: Scene) -> Batch:  # of one clip, without the first axis
    """What the network sees of a scene, and the truth."""
    return Batch(scene.right, scene.warped, 1 - scene.coverage, scene.left)


def loss_of(settings: TrainDiffusion) -> LearnClips:
    """The loss of the method that is trained."""
    if settings.method == "one_step":
        device, weights = best_device(), settings.vgg_weights
        lpips = load_lpips(weights, device) if weights and device == "cuda" else None
        return partial(one_step_loss, lpips=lpips)
    return partial(velocity_loss, dropout=settings.conditioning_dropout)


def freeze_temporal(network: nn.Module) -> None:
    """Leave only the spatial layers to be trained (paper, section 3.3)."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not any(part in name for part in TEMPORAL))


def to_working_size(
    scene: Scene,  # stored
    pipeline: StereoInpaintPipeline,
) -> Scene:  # stored
    """The scene at the size the network works at, as `inpaint_warped` reduces what it is given."""
    factor = downscale_factor(pipeline, *scene.left.shape[2:])
    if factor == 1:
        return scene
    left, right, warped, coverage = (plane.float() / 255 for plane in scene.planes[:4])
    small, holes = downscale_warped(warped, coverage, factor)
    size = small.shape[2:]
    disparity = resize_disparity(scene.disparity.float(), *size)
    return store(Scene(resize(left, *size), resize(right, *size), small, 1 - holes, disparity, scene.film))


def _generators(settings: TrainDiffusion, count: int) -> list[np.random.Generator]:
    """Others than those that training draws with."""
    return [
        np.random.default_rng(seed) for seed in np.random.SeedSequence(settings.network.seed).spawn(count)
    ]


def _score(pipeline: StereoInpaintPipeline, scenes: Sequence[Scene]) -> dict[str, float]:
    """PSNR of what was open, over the scenes together."""
    errors = [
        (painted - scene.right)[occlusion_mask(scene.coverage).expand_as(scene.right)]
        for scene, painted in zip(scenes, _paint(pipeline, scenes), strict=True)
    ]
    return {"open_psnr_db": _psnr_db(torch.cat(errors), peak=1)}


def _paint(
    pipeline: StereoInpaintPipeline, scenes: Sequence[Scene]
) -> list[Tensor]:  # [T, 3, H, W] in [0, 1]
    """On a GPU where there is one; then the pipeline is back."""
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    views = [Warped(scene.left, scene.warped, scene.coverage, scene.disparity) for scene in scenes]
    painted = [inpaint_warped(pipeline, view, None, STEPS)[0] for view in views]
    pipeline.to("cpu")
    return painted


def _psnr_db(error: Tensor, peak: float) -> float:
    """Of an error; 100 where there is none, or nothing that could be wrong."""
    mean = float((error.double() ** 2).sum()) / max(1, error.numel())
    return -10 * float(np.log10(max(mean / peak**2, 1e-10)))


@torch.no_grad()
def _show(pipeline: StereoInpaintPipeline, scenes: Sequence[Scene], run: Run) -> None:
    """Rows: warped, the autoencoder's picture of the truth, painted, truth; a column a scene's last frame."""
    columns = []
    for scene, painted in zip(scenes, _paint(pipeline, scenes), strict=True):
        latents = encode(pipeline.vae, to_signed(scene.right[-2:])) * pipeline.vae.config.scaling_factor
        coded = (decode(pipeline.vae, latents, len(latents)) / 2 + 0.5).clamp(0, 1)
        columns.append(torch.cat([scene.warped[-1], coded[-1], painted[-1], scene.right[-1]], dim=1))
    sheet = torch.cat(columns, dim=2).permute(1, 2, 0).numpy()
    write_sample_sheet(run.picture("diffusion.png"), (sheet * 255).round().astype(np.uint8))
