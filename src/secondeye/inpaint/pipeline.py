"""Stereo video inpainting by diffusion (StereoCrafter, arXiv 2409.07447, section 3.3), on diffusers' modules.

Stable Video Diffusion with one more input channel: beside the noisy latents and those of the warped view the
network sees where the holes are. Each step is a function on tensors; `StereoInpaintPipeline` strings them
together and is what is loaded and saved. Pictures are [T, 3, H, W] in [0, 1] outside, in [-1, 1] inside.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKLTemporalDecoder,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    UNetSpatioTemporalConditionModel,
)
from torch import Tensor
from transformers import CLIPVisionModelWithProjection
from transformers.utils import logging

from secondeye.arrays import require_frames, require_plane, require_same_size
from secondeye.inpaint.time_convolution import flatten_time_convolutions
from secondeye.refusal import Refusal

LATENT_PX = 8  # of the picture, along one side of a latent
LATENT_CHANNELS = 4
SIDE_MULTIPLE_PX = 64  # three halvings of the latents
IN_CHANNELS = 2 * LATENT_CHANNELS + 1  # noisy latents, latents of the given frames, mask
ENCODE_FRAMES = 5  # at once; no frame sees another, so only memory depends on it
# What Stable Video Diffusion was told of every clip it saw: the frame rate less one, and how much moves.
FPS_ID = 6.0
MOTION_ID = 127.0
CLIP_SIDE_PX = 224
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Sampling:
    """How a picture is drawn out of noise."""

    steps: int
    guidance: float  # 1 is none, and half the work
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
    """Stereo inpainting in diffusers' folder layout; Refusal for a network without the mask's channel."""

    model_cpu_offload_seq = "image_encoder->unet->vae"

    def __init__(
        self,
        vae: AutoencoderKLTemporalDecoder,
        image_encoder: CLIPVisionModelWithProjection,
        unet: UNetSpatioTemporalConditionModel,
        scheduler: EulerDiscreteScheduler,
    ) -> None:
        super().__init__()
        channels = unet.conv_in.in_channels
        if channels != IN_CHANNELS:
            raise Refusal(
                f"the network in unet/ has {channels} input channels, stereo inpainting needs {IN_CHANNELS}: "
                "this is not an inpainting network (plain Stable Video Diffusion has 8)"
            )
        flatten_time_convolutions(vae)
        flatten_time_convolutions(unet)
        self.register_modules(vae=vae, image_encoder=image_encoder, unet=unet, scheduler=scheduler)

    @torch.no_grad()
    def __call__(
        self,
        frames: Tensor,  # [T, 3, H, W] in [0, 1]; H and W are multiples of 64
        holes: Tensor,  # [T, 1, H, W] float32, at least 0.5 where there is a hole
        *,
        sampling: Sampling,
        generator: torch.Generator,  # on the CPU
        noise: Tensor | None = None,  # [1, T, 4, H/8, W/8] of standard deviation 1; drawn when None
    ) -> Painted:
        """Paint whole frames, holes and all. Raises ValueError for arrays of another shape."""
        require_frames(frames)
        require_plane(holes, "holes")
        require_same_size(frames, holes, "holes")
        if frames.shape[2] % SIDE_MULTIPLE_PX or frames.shape[3] % SIDE_MULTIPLE_PX:
            raise ValueError(f"sides must be multiples of {SIDE_MULTIPLE_PX}, got {list(frames.shape)}")
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
        latents = denoise(self.unet, self.scheduler, noise.to(device), conditions, sampling)[0]
        decoded = decode(self.vae, latents, sampling.decode_frames)
        self.maybe_free_model_hooks()
        return Painted(latents.cpu(), (decoded / 2 + 0.5).clamp(0, 1).cpu())

    def save_pretrained(self, save_directory: Any, **options: Any) -> None:
        """As DiffusionPipeline's, and what the released layout has besides: feature_extractor/."""
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
) -> Tensor:  # [B, T, 4, h, w] float32, scaled latents
    """Walk from noise to latents; in float32, for half precision has steps of 2 at the first sigma."""
    scheduler.set_timesteps(sampling.steps, device=noise.device)
    latents = noise.float() * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        noisy = scheduler.scale_model_input(latents, t)
        velocity = predict(unet, noisy, t, conditions)
        if sampling.guidance != 1:
            unguided = predict(unet, noisy, t, unconditional(conditions))
            velocity = unguided + sampling.guidance * (velocity - unguided)
        latents = scheduler.step(velocity, t, latents).prev_sample
    return latents


def predict(
    unet: torch.nn.Module,
    noisy: Tensor,  # [B, T, 4, h, w], scaled to unit variance
    timestep: Tensor,  # [] or [B], 0.25 * ln(sigma)
    conditions: Conditions,
) -> Tensor:  # [B, T, 4, h, w] float32, velocity
    """One pass of the network."""
    kind = next(unet.parameters()).dtype
    stacked = torch.cat([noisy, conditions.latents, conditions.mask], dim=2).to(kind)
    embedding, ids = conditions.embedding.to(kind), conditions.time_ids.to(kind)
    velocity: Tensor = unet(stacked, timestep, embedding, added_time_ids=ids, return_dict=False)[0]
    return velocity.float()


def unconditional(conditions: Conditions) -> Conditions:
    """Nothing given: zeros for the latents, the mask and the embedding; the time ids stay."""
    latents, mask, embedding = (torch.zeros_like(given) for given in conditions[:3])
    return Conditions(latents, mask, embedding, conditions.time_ids)


def encode(
    vae: AutoencoderKLTemporalDecoder,
    frames: Tensor,  # [T, 3, H, W] in [-1, 1]
) -> Tensor:  # [T, 4, H/8, W/8] float32, not scaled
    """The most likely latents (the posterior's mode)."""
    packed = F.pixel_unshuffle(frames, patch_px(vae)).to(vae.dtype)
    parts = (vae.encode(part).latent_dist.mode() for part in packed.split(ENCODE_FRAMES))
    return torch.cat([part.float() for part in parts])


def decode(
    vae: AutoencoderKLTemporalDecoder,
    latents: Tensor,  # [T, 4, h, w], scaled
    frames_at_once: int,
) -> Tensor:  # [T, 3, 8 * h, 8 * w] float32, about [-1, 1]
    """Latents to pictures."""
    plain = (latents / vae.config.scaling_factor).to(vae.dtype)
    parts = (vae.decode(part, num_frames=len(part)).sample for part in plain.split(frames_at_once))
    return F.pixel_shuffle(torch.cat([part.float() for part in parts]), patch_px(vae))


def patch_px(vae: AutoencoderKLTemporalDecoder) -> int:
    """The side of the patches the autoencoder sees as one pixel of many channels; 1 in the release."""
    return math.isqrt(vae.config.in_channels // 3)


def embed(
    image_encoder: CLIPVisionModelWithProjection,
    frames: Tensor,  # [N, 3, H, W] in [0, 1]
) -> Tensor:  # [N, D] float32
    """What CLIP sees in a picture."""
    small = resize_for_clip(to_signed(frames)) / 2 + 0.5
    mean, std = (small.new_tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    embedding: Tensor = image_encoder(((small - mean) / std).to(image_encoder.dtype)).image_embeds
    return embedding.float()


def resize_for_clip(
    frames: Tensor,  # [N, 3, H, W]
) -> Tensor:  # [N, 3, 224, 224]
    """Blur as far as each side shrinks, then bicubic with aligned corners: as SVD saw its pictures."""
    blurred = _blur(_blur(frames, 3), 2)
    return F.interpolate(blurred, (CLIP_SIDE_PX, CLIP_SIDE_PX), mode="bicubic", align_corners=True)


def _blur(frames: Tensor, axis: int) -> Tensor:
    factor = frames.shape[axis] / CLIP_SIDE_PX
    sigma = max((factor - 1) / 2, 0.001)
    reach = int(max(4 * sigma, 3)) // 2
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32, device=frames.device)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    shape = [1, 1, -1, 1] if axis == 2 else [1, 1, 1, -1]
    weights = (kernel / kernel.sum()).view(shape).expand(frames.shape[1], 1, -1, -1)
    edges = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)
    return F.conv2d(F.pad(frames, edges, mode="reflect"), weights, groups=frames.shape[1])


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


def to_signed(frames: Tensor) -> Tensor:
    return frames * 2 - 1


def timestep_of(sigma: Tensor) -> Tensor:
    """What the network is told of a sigma."""
    return 0.25 * sigma.log()


def scaling_factor_of(latents: Tensor) -> float:
    """The factor that gives latents a standard deviation of 1."""
    deviation = float(latents.double().std())
    if not math.isfinite(deviation) or deviation == 0:
        raise ValueError(f"latents of standard deviation {deviation} can not be scaled")
    return 1 / deviation
