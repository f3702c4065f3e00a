"""DepthCrafter's modules and what is computed with them: encode frames, sample a window, decode depth.

All modules but the network are Stable Video Diffusion's, and so are their conventions: see `inpaint`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKLTemporalDecoder, DiffusionPipeline, EulerDiscreteScheduler
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from secondeye.depth.depthcrafter.network import DepthNetwork
from secondeye.inpaint.autoencoder import decode, encode, to_signed
from secondeye.inpaint.conditions import Conditions
from secondeye.inpaint.denoising import guided_velocity
from secondeye.inpaint.image_embedding import embed
from secondeye.inpaint.module_checks import require_compatible, require_scheduler
from secondeye.inpaint.time_convolution import flatten_time_convolutions

GROUP_FRAMES = 8  # encoded, and decoded, together
NOISE_SHARE = 0.02  # standard deviation of the noise added to the frames, which are in [-1, 1]
TIME_IDS = (7.0, 127.0, NOISE_SHARE)  # frame rate (of Stable Video Diffusion: less 1), motion, added noise


class EncodedFrames(NamedTuple):
    """What the network is given of each frame."""

    latents: Tensor  # [T, 4, h, w] float32, not scaled
    embeddings: Tensor  # [T, D] float32


class DepthCrafterPipeline(DiffusionPipeline):
    """The modules; UserError if they do not fit each other."""

    model_cpu_offload_seq = "image_encoder->unet->vae"

    def __init__(
        self,
        vae: AutoencoderKLTemporalDecoder,
        image_encoder: CLIPVisionModelWithProjection,
        unet: DepthNetwork,
        scheduler: EulerDiscreteScheduler,
    ) -> None:
        super().__init__()
        require_scheduler({**scheduler.config, "_class_name": type(scheduler).__name__}, "the scheduler")
        require_compatible(unet, vae, image_encoder)
        flatten_time_convolutions(vae)
        flatten_time_convolutions(unet)
        self.register_modules(vae=vae, image_encoder=image_encoder, unet=unet, scheduler=scheduler)

    @property
    def execution_device(self) -> torch.device:
        """Where the modules run, also while they are offloaded."""
        device: torch.device = self._execution_device
        return device

    @torch.no_grad()
    def encode(
        self,
        frames: Tensor,  # [T, 3, H, W] in [0, 1], T at most GROUP_FRAMES; sides multiples of 64
        noise: Tensor,  # [T, 3, H, W] of standard deviation 1
    ) -> EncodedFrames:  # on the CPU
        """Encode a group of frames; embeddings are of the frames without noise, as in the release."""
        frames, noise = frames.to(self.execution_device), noise.to(self.execution_device)
        embeddings = embed(self.image_encoder, frames)
        latents = encode(self.vae, to_signed(frames) + NOISE_SHARE * noise, GROUP_FRAMES)
        return EncodedFrames(latents.cpu(), embeddings.cpu())

    @torch.no_grad()
    def sample(
        self,
        encoded: EncodedFrames,
        noise: Tensor,  # [T, 4, h, w] of standard deviation 1
        previous: Tensor | None,  # [t, 4, h, w], latents of the first frames from the window before
        *,
        steps: int,
        guidance: float,  # above 1 it costs a second pass; none up to 1
        on_step: Callable[[], object],  # called after each step of denoising
    ) -> Tensor:  # [T, 4, h, w] float32, scaled; on the CPU
        """Sample the latents of one window. In its first frames the noise is added to what is known.

        Unlike the release, latents are float32 whatever the network is: float16 is coarse at the first sigma.
        """
        device = self.execution_device
        conditions = Conditions(
            encoded.latents[None].to(device),
            encoded.latents[None, :, :0].to(device),  # no mask: no channels
            encoded.embeddings[None].to(device),
            torch.tensor([TIME_IDS], device=device),
        )
        self.scheduler.set_timesteps(steps, device=device)
        latents = noise[None].to(device) * self.scheduler.init_noise_sigma
        if previous is not None and len(previous):
            count = len(previous)
            known = previous[None].to(device)
            latents[:, :count] = known + noise[None, :count].to(device) * self.scheduler.sigmas[0]
        for t in self.scheduler.timesteps:
            noisy = self.scheduler.scale_model_input(latents, t)
            velocity = guided_velocity(self.unet, noisy, t, conditions, guidance)
            latents = self.scheduler.step(velocity, t, latents).prev_sample
            on_step()
        return latents[0].float().cpu()

    @torch.no_grad()
    def decode(
        self,
        latents: Tensor,  # [T, 4, h, w], scaled, T at most GROUP_FRAMES
    ) -> Tensor:  # [T, 1, 8 * h, 8 * w] in [0, 1], larger is nearer; on the CPU
        """Decode a group of latents to depth: the mean of the three channels."""
        decoded = decode(self.vae, latents.to(self.execution_device), GROUP_FRAMES)
        depth: Any = (decoded / 2 + 0.5).clamp(0, 1).mean(1, keepdim=True)
        return depth.cpu()
