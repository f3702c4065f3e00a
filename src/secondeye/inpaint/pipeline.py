"""Stereo video inpainting by diffusion (StereoCrafter, arXiv 2409.07447, section 3.3), on diffusers' modules.

The network is Stable Video Diffusion's with more input channels: one (the mask) besides the noisy latents and
those of the warped view, or five (the mask and the left view's latents) for a network that inpaints in one
step (M2SVid, arXiv 2505.16565). `StereoInpaintPipeline` loads, saves and runs them; the steps are functions
on tensors in the modules beside this one. Frames are [T, 3, H, W] in [0, 1] outside, in [-1, 1] inside.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from diffusers import (
    AutoencoderKLTemporalDecoder,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    UNetSpatioTemporalConditionModel,
)
from safetensors import SafetensorError
from torch import Tensor
from transformers import CLIPVisionModelWithProjection
from transformers.utils import logging

from secondeye.imaging.arrays import (
    frame_size,
    require_images,
    require_plane,
    require_same_size,
    to_float_frames,
)
from secondeye.inpaint.autoencoder import (
    ENCODE_FRAMES,
    LATENT_PX,
    decode,
    decode_tiles,
    encode_tiles,
    group_sizes,
    signed_frames,
)
from secondeye.inpaint.conditions import Conditions, latent_mask, time_ids
from secondeye.inpaint.denoising import denoise, denoise_one_step
from secondeye.inpaint.image_embedding import CLIP_MEAN, CLIP_SIDE_PX, CLIP_STD, embed
from secondeye.inpaint.module_checks import (
    LATENT_CHANNELS,
    ONE_STEP_CHANNELS,
    require_compatible,
    require_input_channels,
    require_scheduler,
    require_sizes,
    require_training_conventions,
)
from secondeye.inpaint.pretrained import load_components
from secondeye.inpaint.sampling_config import SamplingConfig
from secondeye.inpaint.tiles import Tile
from secondeye.inpaint.time_convolution import flatten_time_convolutions
from secondeye.system.errors import UserError


class InpaintOutput(NamedTuple):
    latents: Tensor  # [T, 4, H/8, W/8] float32, scaled
    frames: Tensor  # [T, 3, H, W] float32 in [0, 1]


class StereoInpaintPipeline(DiffusionPipeline):
    """Stereo inpainting pipeline in diffusers' folder layout; UserError for modules that do not fit."""

    model_cpu_offload_seq = "image_encoder->unet->vae"

    def __init__(
        self,
        vae: AutoencoderKLTemporalDecoder,
        image_encoder: CLIPVisionModelWithProjection,
        unet: UNetSpatioTemporalConditionModel,
        scheduler: EulerDiscreteScheduler,
        # As the network was trained; both are written to model_index.json:
        overlap_mask: str = "kept",  # one of OVERLAP_MASKS
        conditioning: str = "warp",  # one of CONDITIONINGS
    ) -> None:
        super().__init__()
        require_input_channels(unet.conv_in.in_channels, "unet")
        require_scheduler({**scheduler.config, "_class_name": type(scheduler).__name__}, "the scheduler")
        require_sizes(unet, vae)
        require_compatible(unet, vae, image_encoder)
        require_training_conventions(overlap_mask, conditioning)
        flatten_time_convolutions(vae)
        flatten_time_convolutions(unet)
        self.register_modules(vae=vae, image_encoder=image_encoder, unet=unet, scheduler=scheduler)
        self.register_to_config(overlap_mask=overlap_mask, conditioning=conditioning)

    @property
    def one_step(self) -> bool:
        """Whether the network inpaints in one step and takes the left view."""
        return bool(self.unet.conv_in.in_channels == ONE_STEP_CHANNELS)

    @property
    def execution_device(self) -> torch.device:
        """Where the modules run, also while they are offloaded."""
        device: torch.device = self._execution_device
        return device

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **options: Any) -> Self:
        """Load a saved pipeline, or Stable Video Diffusion with `unet=` StereoCrafter's.

        The source is a folder or a Hugging Face id; the options are those of `pretrained.load_components`.
        """
        return cls(**load_components(pretrained_model_name_or_path, **options))

    @torch.no_grad()
    def __call__(
        self,
        frames: Tensor,  # as for `sample_latents`, as are all but the last
        holes: Tensor,
        *,
        sampling: SamplingConfig,
        left: Tensor | None = None,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
        tiles: Sequence[Tile] | None = None,  # of equal size, in latents; None is the whole frame
    ) -> InpaintOutput:
        """Inpaint whole frames, in holes and elsewhere; outside of the tiles they are returned unchanged.

        Raises ValueError for arrays of the wrong shape and for a missing `left` or `generator`.
        """
        latents = self.sample_latents(
            frames, holes, sampling=sampling, left=left, generator=generator, noise=noise, tiles=tiles
        )
        decoded = torch.cat(list(self.decode_groups(latents, frames, sampling, tiles)))
        return InpaintOutput(latents.cpu(), decoded)

    @torch.no_grad()
    def sample_latents(
        self,
        # Warped, [T, 3, H, W] in [0, 1] or uint8 [T, H, W, 3]; H, W multiples of 8, of 64 for large networks.
        frames: Tensor,
        holes: Tensor,  # bool [T, 1, H, W]; or float32, at least 0.5 where there is a hole
        *,
        sampling: SamplingConfig,
        left: Tensor | None = None,  # in either form of `frames`; required by one-step networks
        # On the CPU. Not needed by one-step networks, nor if noise is given and noise_share is 0.
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,  # [1, T, 4, H/8, W/8] of standard deviation 1; drawn if None
        tiles: Sequence[Tile] | None = None,  # of equal size, in latents; None is the whole frame
    ) -> Tensor:  # [T, 4, H/8, W/8] float32, scaled; on the network's device
        """Sample the latents of the inpainted frames; outside of the tiles they mean nothing.

        Raises ValueError for arrays of the wrong shape and for a missing `left` or `generator`.
        """
        require_images(frames)
        if holes.dtype != torch.bool:
            require_plane(holes, "holes")
        require_same_size(frames, holes, "holes")
        if any(side % LATENT_PX for side in frame_size(frames)):
            raise ValueError(f"sides must be multiples of {LATENT_PX}, got {list(frames.shape)}")
        if self.one_step:
            return self._sample_one_step(frames, holes, sampling, left, tiles)
        if generator is None and (noise is None or sampling.noise_share):
            raise ValueError("a network of many steps needs a generator, so that results are reproducible")
        if noise is not None and tuple(noise.shape) != latent_shape(frames):
            raise ValueError(f"noise must be {list(latent_shape(frames))}, got {list(noise.shape)}")
        noisy = frames
        if generator is not None:
            # The release's order of random draws: noise of the frames, even if its weight is 0, then of
            # latents.
            added = torch.randn(len(frames), 3, *frame_size(frames), generator=generator)
            if sampling.noise_share:
                noisy = to_float_frames(frames) + sampling.noise_share / 2 * added.to(frames.device)
        if noise is None:
            noise = torch.randn(latent_shape(frames), generator=generator)
        conditions = self._conditions(noisy, frames[:1], holes, sampling, tiles)
        noise = noise.to(conditions.mask.device)
        return denoise(self.unet, self.scheduler, noise, conditions, sampling, tiles)[0]

    @torch.no_grad()
    def decode_groups(
        self,
        latents: Tensor,  # [T, 4, H/8, W/8] float32, scaled
        frames: Tensor,  # in either form: returned outside of the tiles
        sampling: SamplingConfig,
        tiles: Sequence[Tile] | None = None,
        first: int = 0,  # frames before are not needed; they are decoded only as context of others
    ) -> Iterator[Tensor]:  # [t, 3, H, W] in [0, 1], on the device of `frames`
        """Decode latents group by group and, inside of a group, tile by tile."""
        stop = 0
        for size in group_sizes(len(latents), sampling.decode_frames, sampling.even_groups):
            start, stop = stop, stop + size
            if stop <= first:
                continue
            group = latents[start:stop]
            if tiles is None:
                decoded = decode(self.vae, group, size)
            else:
                decoded = signed_frames(frames[start:stop].to(group.device))
                decode_tiles(self.vae, group, size, tiles, decoded)
            yield decoded[max(0, first - start) :].div_(2).add_(0.5).clamp_(0, 1).to(frames.device)
            del decoded  # or it would be kept while the next group is decoded
        self.maybe_free_model_hooks()

    def _sample_one_step(
        self,
        frames: Tensor,
        holes: Tensor,
        sampling: SamplingConfig,
        left: Tensor | None,
        tiles: Sequence[Tile] | None,
    ) -> Tensor:
        if left is None:
            raise ValueError("a one-step network takes the left view besides the warped one: left is missing")
        require_same_size(frames, left, "left")
        require_images(left)
        sampling = replace(sampling, noise_share=0.0)
        conditions = self._conditions(frames, frames[:1], holes, sampling, tiles)
        conditions = conditions._replace(left=self._encode(left, sampling, tiles))
        return denoise_one_step(self.unet, conditions, sampling.guidance, tiles)[0]

    def _conditions(
        self,
        frames: Tensor,  # in either form
        first: Tensor,  # the first frame, without added noise
        holes: Tensor,
        sampling: SamplingConfig,
        tiles: Sequence[Tile] | None,
    ) -> Conditions:
        device = self.execution_device
        masks = [
            latent_mask(part.to(device), sampling.keep_thin_holes) for part in holes.split(ENCODE_FRAMES)
        ]
        return Conditions(
            self._encode(frames, sampling, tiles),
            torch.cat(masks)[None],
            embed(self.image_encoder, to_float_frames(first.to(device)))[None],
            time_ids(1, sampling, device),
        )

    def _encode(
        self, frames: Tensor, sampling: SamplingConfig, tiles: Sequence[Tile] | None
    ) -> Tensor:  # [1, T, 4, H/8, W/8]
        tiles = tiles or [Tile(0, 0, *latent_shape(frames)[3:])]
        groups = min(ENCODE_FRAMES, sampling.decode_frames)
        return encode_tiles(self.vae, frames, groups, tiles, self.execution_device)[None]

    def compile_networks(self) -> None:
        """Compile the network and the decoder at their first use, for the sizes that they are given."""
        self.unet.compile()
        self.vae.decoder.compile()

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move or cast as DiffusionPipeline does, but keep the autoencoder in float32: float16 overflows.

        Raises ValueError for a cast of a network stored in fp8.
        """
        dtype = kwargs.pop("dtype", None) or next((a for a in args if isinstance(a, torch.dtype)), None)
        if dtype and any(weights.dtype == torch.float8_e4m3fn for weights in self.unet.parameters()):
            raise ValueError("a network stored in fp8 keeps the torch_dtype it was loaded with")
        super().to(*(a for a in args if not isinstance(a, torch.dtype)), **kwargs)
        if dtype:
            self.unet.to(dtype)
            self.image_encoder.to(dtype)
        return self

    def save_pretrained(self, save_directory: Any, **options: Any) -> None:
        """Save as DiffusionPipeline does, with feature_extractor/ as in the released layout.

        Raises ValueError for push_to_hub=True (the method `push_to_hub` saves and pushes), for pickles and
        for 8-bit weights; UserError if the folder cannot be written.
        """
        if options.pop("push_to_hub", False):
            raise ValueError("save_pretrained does not push; call push_to_hub, which saves and pushes")
        if not options.get("safe_serialization", True):
            raise ValueError("only safetensors are written; safe_serialization=False would write pickles")
        if any(weights.element_size() == 1 for weights in self.unet.parameters()):
            raise ValueError("the network is stored in 8 bits; load it with storage='plain' to save it")
        logging.disable_progress_bar()
        try:
            super().save_pretrained(save_directory, **options)
            _write_feature_extractor(Path(save_directory))
        except (OSError, SafetensorError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{save_directory}: the weights cannot be written ({reason}); free some disk or name "
                "another folder"
            ) from error


def latent_shape(frames: Tensor) -> tuple[int, int, int, int, int]:
    """Return [1, T, 4, H/8, W/8] for frames [T, 3, H, W] or uint8 [T, H, W, 3]."""
    height, width = frame_size(frames)
    return (1, len(frames), LATENT_CHANNELS, height // LATENT_PX, width // LATENT_PX)


def _write_feature_extractor(folder: Path) -> None:
    """Write CLIP's preprocessing config, which other programs expect in this layout."""
    index = json.loads((folder / "model_index.json").read_text())
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    (folder / "feature_extractor").mkdir(exist_ok=True)
    config = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": CLIP_SIDE_PX},
        "crop_size": {"height": CLIP_SIDE_PX, "width": CLIP_SIDE_PX},
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
    }
    path = folder / "feature_extractor" / "preprocessor_config.json"
    path.write_text(json.dumps(config, indent=2) + "\n")
