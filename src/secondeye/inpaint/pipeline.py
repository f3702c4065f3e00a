"""Stereo video inpainting by diffusion (StereoCrafter, arXiv 2409.07447, section 3.3), on diffusers' modules.

Stable Video Diffusion with one more input channel: beside the noisy latents and those of the warped view the
network sees where the holes are. With five more it sees the left view too, and paints at once, from no noise
(M2SVid, arXiv 2505.16565). `StereoInpaintPipeline` is what is loaded and saved; what it does are functions on
tensors. Pictures are [T, 3, H, W] in [0, 1] outside, in [-1, 1] inside.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from safetensors import SafetensorError
from torch import Tensor
from transformers import CLIPVisionModelWithProjection
from transformers.utils import logging

from secondeye.imaging.arrays import require_frames, require_plane, require_same_size
from secondeye.inpaint.autoencoder import LATENT_PX, decode, decode_tiles, encode, patch_px, to_signed
from secondeye.inpaint.image_embedding import CLIP_MEAN, CLIP_SIDE_PX, CLIP_STD, embed
from secondeye.inpaint.sampling import Conditions, SamplingConfig, denoise, denoise_one_step
from secondeye.inpaint.tiles import Tile
from secondeye.inpaint.time_convolution import flatten_time_convolutions
from secondeye.system.errors import UserError

LATENT_CHANNELS = 4
SIDE_MULTIPLE_PX = 64  # three halvings of the latents
IN_CHANNELS = 2 * LATENT_CHANNELS + 1  # noisy latents, latents of the given frames, mask
ONE_STEP_CHANNELS = 3 * LATENT_CHANNELS + 1  # zeros, latents of the left view, of the given frames, mask
REQUIRED_SCHEDULER = {  # of what is in a scheduler's config; times are 0.25 ln(sigma)
    "_class_name": "EulerDiscreteScheduler",
    "prediction_type": "v_prediction",
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
}
OVERLAP_MASKS = ("kept", "cleared")  # of frames painted before, given again: as it was, or no holes


class InpaintOutput(NamedTuple):
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
        if channels not in (IN_CHANNELS, ONE_STEP_CHANNELS):
            raise UserError(
                f"the network in unet/ has {channels} input channels, stereo inpainting needs {IN_CHANNELS}, "
                f"or {ONE_STEP_CHANNELS} for one step: this is not an inpainting network (plain Stable Video "
                "Diffusion has 8)"
            )
        require_scheduler({**scheduler.config, "_class_name": type(scheduler).__name__}, "the scheduler")
        _require_sizes(unet, vae)
        _require_fitting(unet, vae, image_encoder)
        if overlap_mask not in OVERLAP_MASKS:
            raise UserError(f"overlap_mask must be one of {', '.join(OVERLAP_MASKS)}, got {overlap_mask!r}")
        flatten_time_convolutions(vae)
        flatten_time_convolutions(unet)
        self.register_modules(vae=vae, image_encoder=image_encoder, unet=unet, scheduler=scheduler)
        self.register_to_config(overlap_mask=overlap_mask)

    @property
    def one_step(self) -> bool:
        """Whether the network paints at once, and is told of the left view."""
        return bool(self.unet.conv_in.in_channels == ONE_STEP_CHANNELS)

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
        frames: Tensor,  # [T, 3, H, W] in [0, 1]; H and W are multiples of 8, large networks want 64
        holes: Tensor,  # [T, 1, H, W] float32, at least 0.5 where there is a hole
        *,
        sampling: SamplingConfig,
        left: Tensor | None = None,  # [T, 3, H, W] in [0, 1], what the first eye saw; for one step
        # On the CPU; not for one step, which draws no numbers, nor where noise is given and none is added.
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,  # [1, T, 4, H/8, W/8] of standard deviation 1; drawn when None
        tiles: Sequence[Tile] | None = None,  # of equal sizes, in latents; None is one of all
    ) -> InpaintOutput:
        """Paint whole frames, holes and all; outside of the tiles they stay as given.

        Raises ValueError for arrays of another shape, and where left or generator is needed and missing.
        """
        require_frames(frames)
        latents = self.sample_latents(
            frames, holes, sampling=sampling, left=left, generator=generator, noise=noise, tiles=tiles
        )
        if tiles is None:
            decoded = decode(self.vae, latents, sampling.decode_frames, sampling.even_groups)
        else:
            decoded = to_signed(frames).to(latents.device)
            decode_tiles(self.vae, latents, sampling.decode_frames, tiles, decoded)
        self.maybe_free_model_hooks()
        return InpaintOutput(latents.cpu(), (decoded / 2 + 0.5).clamp(0, 1).cpu())

    @torch.no_grad()
    def sample_latents(
        self,
        frames: Tensor,  # [T, 3, H, W] in [0, 1]; H and W are multiples of 8
        holes: Tensor,  # [T, 1, H, W] float32, at least 0.5 where there is a hole
        *,
        sampling: SamplingConfig,
        left: Tensor | None = None,  # [T, 3, H, W] in [0, 1], what the first eye saw; for one step
        generator: torch.Generator | None = None,  # on the CPU; not for one step, which draws no numbers
        noise: Tensor | None = None,  # [1, T, 4, H/8, W/8] of standard deviation 1; drawn when None
        tiles: Sequence[Tile] | None = None,  # of equal sizes, in latents; None is one of all
    ) -> Tensor:  # [T, 4, H/8, W/8] float32, scaled; on the network's device
        """The latents of painted frames.

        Raises ValueError for arrays of another shape, and where left or generator is needed and missing.
        """
        require_frames(frames)
        require_plane(holes, "holes")
        require_same_size(frames, holes, "holes")
        if frames.shape[2] % LATENT_PX or frames.shape[3] % LATENT_PX:
            raise ValueError(f"sides must be multiples of {LATENT_PX}, got {list(frames.shape)}")
        if self.one_step:
            return self._sample_one_step(frames, holes, sampling, left, tiles)
        if generator is None and (noise is None or sampling.noise_share):
            raise ValueError(
                "a network of many steps needs a generator, so that the picture can be had again"
            )
        if noise is not None and tuple(noise.shape) != latent_shape(frames):
            raise ValueError(f"noise must be {list(latent_shape(frames))}, got {list(noise.shape)}")
        # The release's order of random numbers: the frames' noise, even where it counts nothing, then this.
        added = 0.0 if generator is None else torch.randn(frames.shape, generator=generator)
        added = sampling.noise_share * added
        if noise is None:
            noise = torch.randn(latent_shape(frames), generator=generator)
        given = self._conditions(to_signed(frames) + added, frames[:1], holes, sampling)
        return denoise(self.unet, self.scheduler, noise.to(given.mask.device), given, sampling, tiles)[0]

    def _sample_one_step(
        self,
        frames: Tensor,
        holes: Tensor,
        sampling: SamplingConfig,
        left: Tensor | None,
        tiles: Sequence[Tile] | None,
    ) -> Tensor:
        if left is None:
            raise ValueError("a one-step network sees the left view beside the warped one: left is missing")
        require_same_size(frames, left, "left")
        require_frames(left)
        sampling = replace(sampling, noise_share=0.0)
        given = self._conditions(to_signed(frames), frames[:1], holes, sampling)
        told = encode(self.vae, to_signed(left).to(given.mask.device))[None]
        return denoise_one_step(self.unet, given._replace(left=told), sampling.guidance, tiles)[0]

    def _conditions(
        self,
        frames: Tensor,  # [T, 3, H, W] in [-1, 1]
        first: Tensor,  # [1, 3, H, W] in [0, 1]
        holes: Tensor,
        sampling: SamplingConfig,
    ) -> Conditions:
        device = self._execution_device
        return Conditions(
            encode(self.vae, frames.to(device))[None],
            latent_mask(holes.to(device), sampling.keep_thin_holes)[None],
            embed(self.image_encoder, first.to(device))[None],
            time_ids(1, sampling, device),
        )

    def to(self, *args: Any, **kwargs: Any) -> "StereoInpaintPipeline":
        """As DiffusionPipeline's, but the autoencoder stays float32, since it overflows in float16.

        Raises ValueError where weights in fp8 are to be computed with in another type.
        """
        dtype = kwargs.pop("dtype", None) or next((a for a in args if isinstance(a, torch.dtype)), None)
        if dtype and any(weights.dtype == torch.float8_e4m3fn for weights in self.unet.parameters()):
            raise ValueError("weights in fp8 are computed with in the torch_dtype they were loaded with")
        super().to(*(a for a in args if not isinstance(a, torch.dtype)), **kwargs)
        if dtype:
            self.unet.to(dtype)
            self.image_encoder.to(dtype)
        return self

    def save_pretrained(self, save_directory: Any, **options: Any) -> None:
        """As DiffusionPipeline's, and what the released layout has besides: feature_extractor/.

        Raises ValueError where it would push too (`push_to_hub` saves and pushes), or where the network's
        weights are in 8 bits; Refusal where the folder can not be written, or the disk is full.
        """
        if options.pop("push_to_hub", False):
            raise ValueError("save_pretrained does not push; call push_to_hub, which saves what it pushes")
        if not options.get("safe_serialization", True):
            raise ValueError("files are safetensors; safe_serialization=False would write pickles")
        if any(weights.element_size() == 1 for weights in self.unet.parameters()):
            raise ValueError(
                "the network's weights are in 8 bits; save the pipeline before they are, or plain"
            )
        logging.disable_progress_bar()
        try:
            super().save_pretrained(save_directory, **options)
            _write_feature_extractor(Path(save_directory))
        except (OSError, SafetensorError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{save_directory}: the weights can not be written ({reason}); free some disk or name "
                "another folder"
            ) from error


def require_scheduler(
    config: Mapping[str, Any],  # of a scheduler, its class's name included
    where: str,  # it comes from
) -> None:
    """Refuse a schedule that this network is not trained for."""
    wrong = [
        f"{name} is {config.get(name)}"
        for name, value in REQUIRED_SCHEDULER.items()
        if config.get(name) != value
    ]
    if wrong:
        wanted = ", ".join(f"{name} {value}" for name, value in REQUIRED_SCHEDULER.items())
        raise UserError(
            f"{where}: {', '.join(wrong)}; stereo inpainting needs {wanted.removeprefix('_class_name ')}, "
            "Stable Video Diffusion's own"
        )


def _require_sizes(unet: Any, vae: Any) -> None:
    """Refuse configs that do not say how much the network sees at once, or how latents are scaled."""
    for part, module, name in (
        ("unet", unet, "num_frames"),
        ("unet", unet, "sample_size"),
        ("vae", vae, "scaling_factor"),
    ):
        value = module.config.get(name)
        if not isinstance(value, int | float) or value <= 0:
            raise UserError(f"{part}/config.json: {name} must be above 0, got {value}; get the file again")


def _require_fitting(unet: Any, vae: Any, image_encoder: Any) -> None:
    """Refuse modules of different models, which would fail at the first picture."""
    shrinks = 2 ** (len(vae.config.block_out_channels) - 1) * patch_px(vae)
    for what, has, needs in (
        (
            "numbers in what image_encoder says",
            image_encoder.config.projection_dim,
            unet.config.cross_attention_dim,
        ),
        ("channels in vae's latents", vae.config.latent_channels, LATENT_CHANNELS),
        ("px in a latent of vae", shrinks, LATENT_PX),
    ):
        if has != needs:
            raise UserError(f"the modules do not fit each other: {has} {what}, the network needs {needs}")


def _write_feature_extractor(folder: Path) -> None:
    """What the released layout says of pictures for CLIP; nothing here reads it."""
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


def clear_holes(
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


def time_ids(batch: int, sampling: SamplingConfig, device: torch.device | str) -> Tensor:  # [batch, 3]
    """Rate less one, as Stable Video Diffusion was told it, how much moves, and the noise added."""
    told = [sampling.fps - 1, sampling.motion, sampling.noise_share]
    return torch.tensor([told], device=device).expand(batch, -1)


def latent_shape(frames: Tensor) -> tuple[int, ...]:
    """[1, T, 4, H/8, W/8] of frames [T, 3, H, W]."""
    count, _, height, width = frames.shape
    return (1, count, LATENT_CHANNELS, height // LATENT_PX, width // LATENT_PX)


def scaling_factor_of(latents: Tensor) -> float:
    """The factor that gives latents a standard deviation of 1."""
    deviation = float(latents.double().std())
    if not math.isfinite(deviation) or deviation == 0:
        raise ValueError(f"latents of standard deviation {deviation} can not be scaled")
    return 1 / deviation
