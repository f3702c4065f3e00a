"""Training of the diffusion inpainter: the autoencoder first, where there is none, then the network.

The network learns as Stable Video Diffusion did: velocities, of noise levels drawn log-normally, weighted as
in EDM (arXiv 2206.00364). It is given the warped view's latents and the mask (StereoCrafter, section 3.3).
Some samples begin with frames that are right already, so that it learns to go on from what it painted
(section 3.4).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secondeye.arrays import occlusion_of, resize, resize_disparity
from secondeye.inpaint import Warped
from secondeye.inpaint.diffusion import STEPS, inpaint_warped, overlap_of, reduce_warped, reduction
from secondeye.inpaint.pipeline import (
    Conditions,
    StereoInpaintPipeline,
    decode,
    embed,
    encode,
    latent_mask,
    patch_px,
    predict,
    scaling_factor_of,
    time_ids,
    timestep_of,
    to_signed,
)
from secondeye.inpaint.tiny import make_tiny
from secondeye.inpaint.weights import hash_svd, load_widened
from secondeye.params import TrainDiffusion
from secondeye.process import is_main_process
from secondeye.runs import Run
from secondeye.training.loop import Sample, train
from secondeye.training.samples import Scene, draw_scene, hold_out, keep_usable, load_all, store

DrawScene = Callable[[np.random.Generator], Scene]

AUTOENCODER_FRAMES = 2  # of a sample; its decoder has to learn what neighbours share
KL_WEIGHT = 1e-4  # keeps latents near the origin, and hardly blurs
WARPED_SHARE = 0.3  # of the autoencoder's samples: the network is given warped views, black holes and all
LOG_SIGMA_MEAN, LOG_SIGMA_DEVIATION = 0.7, 1.6  # of the noise levels, as Stable Video Diffusion was tuned
TEMPORAL = ("temporal", "time_mixer", "time_pos_embed")  # in the names of what svd keeps as it is
GIVEN_SHARE = 0.5  # of samples that begin with frames that are right already
MEASURED_SCENES = 16
CHECKED_SCENES = 8
SHOWN_SCENES = 4


def hash_initial(settings: TrainDiffusion) -> str:
    """A hash of the weights that svd begins with; Refusal where they can not be had."""
    return hash_svd(settings.initial)


def teach(run: Run, folders: Sequence[Path], settings: TrainDiffusion) -> None:
    """Train on the folders of `load_all`; see `train_diffusion`."""
    train_diffusion(run, *load_all(folders, _least(settings)), settings)


def train_diffusion(
    run: Run, stereo: Sequence[Scene], mono: Sequence[Scene], settings: TrainDiffusion
) -> None:
    """Train on stored scenes, write the pipeline's folder to `run.model` and a picture.

    tiny trains both modules from nothing; svd widens the network of `initial` by the mask's channel and
    trains its spatial layers alone (paper, section 3.3). Scored on scenes not learnt from, with 20 or more of
    them. Continues a killed run exactly. Raises Refusal when no scene is as large and as long as the crops,
    or `initial` can not be had.
    """
    torch.manual_seed(settings.network.seed)
    pipeline = make_tiny(settings.frames) if settings.size == "tiny" else load_widened(settings.initial)
    stereo, mono = ([to_working_size(scene, pipeline) for scene in scenes] for scenes in (stereo, mono))
    size = (settings.height, settings.width)
    held, learnt = hold_out(*keep_usable("diffusion", stereo, mono, _least(settings)))
    draw_held, draw = (
        partial(draw_scene, *kinds, settings.mono_share, *size, settings.frames) for kinds in (held, learnt)
    )
    if settings.size == "tiny":
        held_still, still = (
            partial(draw_scene, *kinds, settings.mono_share, *size, AUTOENCODER_FRAMES)
            for kinds in (held, learnt)
        )
        train_autoencoder(pipeline, run, settings, still, held_still)
    train_network(pipeline, run, settings, draw, draw_held)
    if is_main_process():
        pipeline.save_pretrained(run.model)
        _show(pipeline, [draw_held(rng) for rng in _generators(settings, SHOWN_SCENES)], run)


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
    train(
        Reconstruction(pipeline.vae),
        run,
        name="autoencoder",
        optimisation=settings.autoencoder,
        draw=partial(draw_frames, draw),
        loss=reconstruction_loss,
        validate=score,
    )
    with torch.no_grad():
        factor = scaling_factor_of(encode(pipeline.vae, checked.flatten(0, 1)))
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
    overlap_frames = overlap_of(pipeline)
    checked = [draw_held(rng) for rng in _generators(settings, CHECKED_SCENES)]

    def draw_sample(rng: np.random.Generator) -> Sample:
        return make_sample(draw(rng), rng, overlap_frames)

    def score(_: nn.Module) -> dict[str, float]:
        _use(pipeline, "cpu")
        return _score(pipeline, checked)

    train(
        pipeline.unet,
        run,
        name="network",
        optimisation=settings.network,
        draw=draw_sample,
        loss=lambda model, batch: velocity_loss(model, pipeline, batch),
        validate=score,
    )
    _use(pipeline, "cpu")


def make_sample(
    scene: Scene,
    rng: np.random.Generator,
    overlap_frames: int,
) -> Sample:  # truth and given frames [T, 3, H, W] in [0, 1], holes [T, 1, H, W], 1 is a hole
    """What the network sees of a scene: at times its first frames are right; the mask is left as it is."""
    count = int(rng.integers(1, overlap_frames + 1)) if rng.random() < GIVEN_SHARE else 0
    given = torch.cat([scene.right[:count], scene.warped[count:]])
    return scene.right, given, occlusion_of(scene.coverage).float()


def velocity_loss(
    network: nn.Module, pipeline: StereoInpaintPipeline, batch: Sample
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """EDM's weighted error of the latents that the predicted velocity leads to."""
    truth, given, holes = batch  # [B, T, C, H, W]
    _use(pipeline, truth.device)
    with torch.no_grad():
        latents = _encode_clips(pipeline, truth) * pipeline.vae.config.scaling_factor
        conditions = Conditions(
            _encode_clips(pipeline, given),
            torch.stack([latent_mask(clip, keep_thin_holes=True) for clip in holes]),
            embed(pipeline.image_encoder, given[:, 0])[:, None],
            time_ids(len(truth), 0.0, truth.device),
        )
    sigma = torch.exp(LOG_SIGMA_MEAN + LOG_SIGMA_DEVIATION * torch.randn(len(truth), device=truth.device))
    wide = sigma.view(-1, 1, 1, 1, 1)
    noisy = latents + wide * torch.randn_like(latents)
    size = (wide**2 + 1).sqrt()
    velocity = predict(network, noisy / size, timestep_of(sigma), conditions)
    denoised = noisy / size**2 - velocity * wide / size
    error = size**2 / wide**2 * (denoised - latents) ** 2
    inside = (error * conditions.mask).sum() / (conditions.mask.sum() * error.shape[2]).clamp(min=1)
    return error.mean(), {"holes": inside}


def freeze_temporal(network: nn.Module) -> None:
    """Leave only the spatial layers to be trained (paper, section 3.3)."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not any(part in name for part in TEMPORAL))


def to_working_size(
    scene: Scene,  # stored
    pipeline: StereoInpaintPipeline,
) -> Scene:  # stored
    """The scene at the size the network works at, as `inpaint_warped` reduces what it is given."""
    factor = reduction(pipeline, *scene.left.shape[2:])
    if factor == 1:
        return scene
    left, right, warped, coverage = (plane.float() / 255 for plane in scene[:4])
    small, holes = reduce_warped(warped, coverage, factor)
    size = small.shape[2:]
    disparity = resize_disparity(scene.disparity.float(), *size)
    return store(Scene(resize(left, *size), resize(right, *size), small, 1 - holes, disparity))


def _encode_clips(pipeline: StereoInpaintPipeline, clips: Tensor) -> Tensor:  # [B, T, 4, h, w]
    return encode(pipeline.vae, to_signed(clips.flatten(0, 1))).unflatten(0, clips.shape[:2])


def _use(pipeline: StereoInpaintPipeline, device: torch.device | str) -> None:
    """Have the modules that are not trained where the trained one is."""
    pipeline.vae.to(device)
    pipeline.image_encoder.to(device)


def _generators(settings: TrainDiffusion, count: int) -> list[np.random.Generator]:
    """Others than those that training draws with."""
    return [
        np.random.default_rng(seed) for seed in np.random.SeedSequence(settings.network.seed).spawn(count)
    ]


def _score(pipeline: StereoInpaintPipeline, scenes: Sequence[Scene]) -> dict[str, float]:
    """PSNR of what was open, over the scenes together."""
    errors = []
    for scene in scenes:
        warped = Warped(scene.left, scene.warped, scene.coverage, scene.disparity)
        painted, _ = inpaint_warped(pipeline, warped, None, STEPS)
        errors.append((painted - scene.right)[occlusion_of(scene.coverage).expand_as(scene.right)])
    return {"open_psnr_db": _psnr_db(torch.cat(errors), peak=1)}


def _psnr_db(error: Tensor, peak: float) -> float:
    """Of an error; 100 where there is none."""
    return -10 * float(np.log10(max(float((error.double() ** 2).mean()) / peak**2, 1e-10)))


@torch.no_grad()
def _show(pipeline: StereoInpaintPipeline, scenes: Sequence[Scene], run: Run) -> None:
    """Rows: warped, the autoencoder's picture of the truth, painted, truth; a column a scene's last frame."""
    columns = []
    for scene in scenes:
        warped = Warped(scene.left, scene.warped, scene.coverage, scene.disparity)
        painted, _ = inpaint_warped(pipeline, warped, None, STEPS)
        latents = encode(pipeline.vae, to_signed(scene.right)) * pipeline.vae.config.scaling_factor
        coded = (decode(pipeline.vae, latents, len(latents)) / 2 + 0.5).clamp(0, 1)
        columns.append(torch.cat([scene.warped[-1], coded[-1], painted[-1], scene.right[-1]], dim=1))
    sheet = torch.cat(columns, dim=2).permute(1, 2, 0).numpy()
    cv2.imwrite(str(run.picture("diffusion.png")), (sheet * 255).round().astype(np.uint8)[..., ::-1])
