"""Stereo video inpainting by diffusion (StereoCrafter, arXiv 2409.07447, section 3.3), on diffusers' modules.

Stable Video Diffusion with one more input channel: beside the noisy latents and those of the warped view the
network sees where the holes are. Each step is a function on tensors; `StereoInpaintPipeline` strings them
together and is what is loaded and saved. Pictures are [T, 3, H, W] in [0, 1] outside, in [-1, 1] inside.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKLTemporalDecoder,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    ModelMixin,
    UNetSpatioTemporalConditionModel,
)
from torch import Tensor
from transformers import CLIPVisionModelWithProjection
from transformers.utils import logging

from secondeye.arrays import require_frames, require_plane, require_same_size
from secondeye.inpaint.autoencoder import LATENT_PX, decode, decode_tiles, encode, to_signed
from secondeye.inpaint.autoencoder import patch_px as patch_px
from secondeye.inpaint.embedding import CLIP_MEAN, CLIP_SIDE_PX, CLIP_STD, embed
from secondeye.inpaint.embedding import resize_for_clip as resize_for_clip
from secondeye.inpaint.tiles import Tile, blend_weights
from secondeye.inpaint.time_convolution import flatten_time_convolutions
from secondeye.refusal import Refusal

LATENT_CHANNELS = 4
SIDE_MULTIPLE_PX = 64  # three halvings of the latents
IN_CHANNELS = 2 * LATENT_CHANNELS + 1  # noisy latents, latents of the given frames, mask
# What Stable Video Diffusion was told of every clip it saw: the frame rate less one, and how much moves.
FPS_ID = 6.0
MOTION_ID = 127.0
OVERLAP_MASKS = ("kept", "cleared")  # of frames painted before, given again: as it was, or no holes


@dataclass(frozen=True)
class Sampling:
    """How a picture is drawn out of noise."""

    steps: int
    guidance: float | tuple[float, float]  # of each frame, or of the first and the last; up to 1 is none
    noise_share: float  # standard deviation of the noise added to the given frames; they range over [-1, 1]
    keep_thin_holes: bool  # a latent is a hole when any of its pixels is; else when its top left one is
    decode_frames: int  # at once; frames decoded together are steadier and take more memory


REFERENCE = Sampling(steps=8, guidance=1.01, noise_share=0.0, keep_thin_holes=False, decode_frames=2)
"""As the paper's release samples."""


class Conditions(NamedTuple):
    """What the network is told besides the noisy latents."""

    latents: Tensor  # [B, T, 4, h, w] of the given frames, not scaled
    mask: Tensor  # [B, T, 1, h, w], 1 is a hole
    embedding: Tensor  # [B, 1, D] of the first given frame
    time_ids: Tensor  # [B, 3]


class Painted(NamedTuple):
    latents: Tensor  # [T, 4, H/8, W/8] float32, scaled
    frames: Tensor  # [T, 3, H, W] float32 in [0, 1]


class StereoInpaintPipeline(DiffusionPipeline):
    """Stereo inpainting in diffusers' folder layout; Refusal for modules it can not be made of."""

    model_cpu_offload_seq = "image_encoder->unet->vae"

    def __init__(
        self,
        vae: AutoencoderKLTemporalDecoder,
        image_encoder: CLIPVisionModelWithProjection,
        unet: UNetSpatioTemporalConditionModel,
        scheduler: EulerDiscreteScheduler,
        overlap_mask: str = "kept",  # one of OVERLAP_MASKS; a folder that says nothing was trained so
    ) -> None:
        super().__init__()
        channels = unet.conv_in.in_channels
        if channels != IN_CHANNELS:
            raise Refusal(
                f"the network in unet/ has {channels} input channels, stereo inpainting needs {IN_CHANNELS}: "
                "this is not an inpainting network (plain Stable Video Diffusion has 8)"
            )
        if not isinstance(scheduler, EulerDiscreteScheduler):
            raise Refusal(f"the scheduler must be an EulerDiscreteScheduler, got {type(scheduler).__name__}")
        if overlap_mask not in OVERLAP_MASKS:
            raise Refusal(f"overlap_mask must be one of {', '.join(OVERLAP_MASKS)}, got {overlap_mask!r}")
        flatten_time_convolutions(vae)
        flatten_time_convolutions(unet)
        self.register_modules(vae=vae, image_encoder=image_encoder, unet=unet, scheduler=scheduler)
        self.register_to_config(overlap_mask=overlap_mask)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **options: Any) -> "StereoInpaintPipeline":
        """Load a folder or a Hugging Face id: ours whole, or Stable Video Diffusion's with `unet=` another's.

        The options are those of `weights.load_pretrained`.
        """
        from secondeye.inpaint.weights import load_pretrained  # which makes pipelines

        return load_pretrained(pretrained_model_name_or_path, **options)

    @torch.no_grad()
    def __call__(
        self,
        frames: Tensor,  # [T, 3, H, W] in [0, 1]; H and W are multiples of 64
        holes: Tensor,  # [T, 1, H, W] float32, at least 0.5 where there is a hole
        *,
        sampling: Sampling,
        generator: torch.Generator,  # on the CPU
        noise: Tensor | None = None,  # [1, T, 4, H/8, W/8] of standard deviation 1; drawn when None
        tiles: Sequence[Tile] | None = None,  # of equal sizes, in latents; None is one of all
    ) -> Painted:
        """Paint whole frames, holes and all; outside of the tiles they stay as given.

        Raises ValueError for arrays of another shape.
        """
        require_frames(frames)
        if frames.shape[2] % SIDE_MULTIPLE_PX or frames.shape[3] % SIDE_MULTIPLE_PX:
            raise ValueError(f"sides must be multiples of {SIDE_MULTIPLE_PX}, got {list(frames.shape)}")
        latents = self.draw(frames, holes, sampling=sampling, generator=generator, noise=noise, tiles=tiles)
        if tiles is None:
            decoded = decode(self.vae, latents, sampling.decode_frames)
        else:
            decoded = to_signed(frames).to(latents.device)
            decode_tiles(self.vae, latents, sampling.decode_frames, tiles, decoded)
        self.maybe_free_model_hooks()
        return Painted(latents.cpu(), (decoded / 2 + 0.5).clamp(0, 1).cpu())

    @torch.no_grad()
    def draw(
        self,
        frames: Tensor,  # [T, 3, H, W] in [0, 1]; H and W are multiples of 8
        holes: Tensor,  # [T, 1, H, W] float32, at least 0.5 where there is a hole
        *,
        sampling: Sampling,
        generator: torch.Generator,  # on the CPU
        noise: Tensor | None = None,  # [1, T, 4, H/8, W/8] of standard deviation 1; drawn when None
        tiles: Sequence[Tile] | None = None,  # of equal sizes, in latents; None is one of all
    ) -> Tensor:  # [T, 4, H/8, W/8] float32, scaled; on the network's device
        """The latents of painted frames. Raises ValueError for arrays of another shape."""
        require_frames(frames)
        require_plane(holes, "holes")
        require_same_size(frames, holes, "holes")
        device = self._execution_device
        # The release's order of random numbers: the frames' noise, even where it counts nothing, then this.
        added = sampling.noise_share * torch.randn(frames.shape, generator=generator)
        if noise is None:
            noise = torch.randn(latent_shape(frames), generator=generator)
        conditions = Conditions(
            encode(self.vae, (to_signed(frames) + added).to(device))[None],
            latent_mask(holes.to(device), sampling.keep_thin_holes)[None],
            embed(self.image_encoder, frames[:1].to(device))[None],
            time_ids(1, sampling.noise_share, device),
        )
        return denoise(self.unet, self.scheduler, noise.to(device), conditions, sampling, tiles)[0]

    def save_pretrained(self, save_directory: Any, **options: Any) -> None:
        """As DiffusionPipeline's, and what the released layout has besides: feature_extractor/.

        Raises ValueError where it would push too (`push_to_hub` saves and pushes), or where the network's
        weights are in 8 bits.
        """
        if options.pop("push_to_hub", False):
            raise ValueError("save_pretrained does not push; call push_to_hub, which saves what it pushes")
        if any(weights.element_size() == 1 for weights in self.unet.parameters()):
            raise ValueError(
                "the network's weights are in 8 bits; save the pipeline before they are, or plain"
            )
        logging.disable_progress_bar()
        super().save_pretrained(save_directory, **options)
        folder = Path(save_directory)
        index = json.loads((folder / "model_index.json").read_text())
        index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
        (folder / "model_index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
        (folder / "feature_extractor").mkdir(exist_ok=True)
        preparation = {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": CLIP_SIDE_PX},
            "crop_size": {"height": CLIP_SIDE_PX, "width": CLIP_SIDE_PX},
            "image_mean": CLIP_MEAN,
            "image_std": CLIP_STD,
        }
        path = folder / "feature_extractor" / "preprocessor_config.json"
        path.write_text(json.dumps(preparation, indent=2) + "\n")


def denoise(
    unet: UNetSpatioTemporalConditionModel,
    scheduler: EulerDiscreteScheduler,
    noise: Tensor,  # [B, T, 4, h, w] of standard deviation 1
    conditions: Conditions,
    sampling: Sampling,
    tiles: Sequence[Tile] | None = None,  # in latents; None is one of all
) -> Tensor:  # [B, T, 4, h, w] float32, scaled latents
    """Walk from noise to latents; in float32, for half precision has steps of 2 at the first sigma.

    Tiles agree at every step, as the velocities of those that share a latent are blended (MultiDiffusion,
    arXiv 2302.08113).
    """
    scheduler.set_timesteps(sampling.steps, device=noise.device)
    latents = noise.float() * scheduler.init_noise_sigma
    whole = [Tile(0, 0, *noise.shape[-2:])]
    tiles = whole if tiles is None else tiles
    weights = [weight.to(noise.device) for weight in blend_weights(tiles, *noise.shape[-2:])]
    for t in scheduler.timesteps:
        noisy = scheduler.scale_model_input(latents, t)
        velocity = torch.zeros_like(latents)
        for tile, weight in zip(tiles, weights, strict=True):
            seen = cut(conditions, tile)
            tile.cut(velocity).add_(weight * guided(unet, tile.cut(noisy), t, seen, sampling.guidance))
        latents = scheduler.step(velocity, t, latents).prev_sample
    return latents


def cut(conditions: Conditions, tile: Tile) -> Conditions:
    """What is told of a tile; the embedding is the whole picture's."""
    return conditions._replace(latents=tile.cut(conditions.latents), mask=tile.cut(conditions.mask))


def guided(
    unet: torch.nn.Module,
    noisy: Tensor,  # [B, T, 4, h, w], scaled to unit variance
    timestep: Tensor,
    conditions: Conditions,
    guidance: float | tuple[float, float],
) -> Tensor:  # [B, T, 4, h, w] float32, velocity
    """One pass, or two where a frame is guided: away from what would be painted with nothing given."""
    velocity = predict(unet, noisy, timestep, conditions)
    first, last = guidance if isinstance(guidance, tuple) else (guidance, guidance)
    if max(first, last) <= 1:
        return velocity
    ramp = torch.linspace(first, last, noisy.shape[1], device=noisy.device).view(-1, 1, 1, 1)
    unguided = predict(unet, noisy, timestep, unconditional(conditions))
    return unguided + ramp * (velocity - unguided)


def predict(
    unet: torch.nn.Module,
    noisy: Tensor,  # [B, T, 4, h, w], scaled to unit variance
    timestep: Tensor,  # [] or [B], 0.25 * ln(sigma)
    conditions: Conditions,
) -> Tensor:  # [B, T, 4, h, w] float32, velocity
    """One pass of the network."""
    # A module of diffusers knows what it computes in, however its weights are stored.
    kind = unet.dtype if isinstance(unet, ModelMixin) else next(unet.parameters()).dtype
    stacked = torch.cat([noisy, conditions.latents, conditions.mask], dim=2).to(kind)
    embedding, ids = conditions.embedding.to(kind), conditions.time_ids.to(kind)
    velocity: Tensor = unet(stacked, timestep, embedding, added_time_ids=ids, return_dict=False)[0]
    return velocity.float()


def unconditional(conditions: Conditions) -> Conditions:
    """Nothing given: zeros for the latents, the mask and the embedding; the time ids stay."""
    latents, mask, embedding = (torch.zeros_like(given) for given in conditions[:3])
    return Conditions(latents, mask, embedding, conditions.time_ids)


def clear_painted(
    holes: Tensor,  # [T, 1, H, W], 1 is a hole
    painted_frames: int,  # of the first ones
    overlap_mask: str,  # one of OVERLAP_MASKS
) -> Tensor:  # [T, 1, H, W]
    """The mask of frames that begin with painted ones, as a network was trained to see it."""
    if overlap_mask == "kept":
        return holes
    return torch.cat([torch.zeros_like(holes[:painted_frames]), holes[painted_frames:]])


def latent_mask(
    holes: Tensor,  # [T, 1, H, W], at least 0.5 where there is a hole
    keep_thin_holes: bool,
) -> Tensor:  # [T, 1, H/8, W/8] float32, 1 is a hole
    """Holes as the network sees them; ours keeps each of them, the release's those at every eighth pixel."""
    binary = (holes >= 0.5).float()
    return F.max_pool2d(binary, LATENT_PX) if keep_thin_holes else binary[..., ::LATENT_PX, ::LATENT_PX]


def time_ids(batch: int, noise_share: float, device: torch.device | str) -> Tensor:  # [batch, 3]
    return torch.tensor([[FPS_ID, MOTION_ID, noise_share]], device=device).expand(batch, -1)


def latent_shape(frames: Tensor) -> tuple[int, ...]:
    """[1, T, 4, H/8, W/8] of frames [T, 3, H, W]."""
    count, _, height, width = frames.shape
    return (1, count, LATENT_CHANNELS, height // LATENT_PX, width // LATENT_PX)


def timestep_of(sigma: Tensor) -> Tensor:
    """What the network is told of a sigma."""
    return 0.25 * sigma.log()


def scaling_factor_of(latents: Tensor) -> float:
    """The factor that gives latents a standard deviation of 1."""
    deviation = float(latents.double().std())
    if not math.isfinite(deviation) or deviation == 0:
        raise ValueError(f"latents of standard deviation {deviation} can not be scaled")
    return 1 / deviation
