"""Pipelines from weight folders: ours, the release's, and Stable Video Diffusion widened for training."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel

from secondeye.inpaint.loading import load_image_encoder, load_module, load_scheduler, require_finite
from secondeye.inpaint.module_checks import IN_CHANNELS, LATENT_CHANNELS, SVD_CHANNELS
from secondeye.inpaint.pipeline import StereoInpaintPipeline
from secondeye.inpaint.pretrained import find_pipeline
from secondeye.system.errors import UserError
from secondeye.system.files import hash_folder

SVD_PARTS = ("image_encoder", "scheduler", "unet", "vae")
SVD = "stable-video-diffusion-img2vid-xt-1-1"
RELEASE = "StereoCrafter"


def load_pipeline(folder: Path, device: str, offload: bool = False) -> StereoInpaintPipeline:
    """Load a trained pipeline, or the released pair: Stable Video Diffusion's folder beside StereoCrafter/.

    The autoencoder is float32, the other modules are float16 on a GPU; with `offload` only the module that
    runs is there. Weights are not checked for NaN: callers check the frames. Raises UserError if the folder
    has neither.
    """
    dtype = torch.float32 if device == "cpu" else torch.float16
    base, network = folder, None
    if not (folder / "model_index.json").is_file() and (folder / SVD / "model_index.json").is_file():
        base, network = folder / SVD, folder / RELEASE if (folder / RELEASE).is_dir() else None
    if not (base / "model_index.json").is_file():
        raise UserError(
            f"{folder}: model_index.json is missing here and in {SVD}/; name a folder that training wrote, "
            f"or one with {SVD}/ and {RELEASE}/"
        )
    pipeline = StereoInpaintPipeline.from_pretrained(base, unet=network, torch_dtype=dtype, finite=False)
    if not offload:
        return pipeline.to(device)
    pipeline.enable_model_cpu_offload(device=device)
    return pipeline


def load_widened(initial: str, in_channels: int = IN_CHANNELS) -> StereoInpaintPipeline:
    """Load Stable Video Diffusion from a folder or Hugging Face id and widen its input; in float32.

    Raises UserError if it cannot be loaded or is widened already.
    """
    folder = find_pipeline(initial)
    unet = load_module(UNetSpatioTemporalConditionModel, folder / "unet", torch.float32)
    if unet.conv_in.in_channels != SVD_CHANNELS:
        raise UserError(
            f"{folder}/unet: training starts from a network of {SVD_CHANNELS} input channels, such as Stable "
            f"Video Diffusion's; this one has {unet.conv_in.in_channels}"
        )
    components = {
        "vae": load_module(AutoencoderKLTemporalDecoder, folder / "vae", torch.float32),
        "image_encoder": load_image_encoder(folder / "image_encoder", torch.float32),
        "unet": widen(unet, in_channels),
        "scheduler": load_scheduler(folder / "scheduler"),
    }
    require_finite(components, folder)
    return StereoInpaintPipeline(**components)


def hash_svd(initial: str) -> str:
    """Return a hash of what `load_widened` loads; UserError if the model is not available."""
    folder = find_pipeline(initial)
    parts = "".join(hash_folder(folder / part) for part in SVD_PARTS)
    return hashlib.sha256(parts.encode()).hexdigest()


def widen(
    unet: Any,  # of SVD_CHANNELS: noisy latents, and those of a clip's first frame
    in_channels: int,  # IN_CHANNELS or ONE_STEP_CHANNELS
) -> Any:
    """Return the network with more input channels: the warped view takes the first frame's weights.

    The mask's weights are zero. For one step the left view and the warped one get half of the first frame's
    weights each, as in M2SVid: for equal views the output is that of the original network.
    """
    with torch.device("meta"):  # it takes the given network's weights, without a copy of them
        network = UNetSpatioTemporalConditionModel.from_config({**unet.config, "in_channels": in_channels})
    weights = unet.state_dict()
    noisy, frame = weights["conv_in.weight"].split(LATENT_CHANNELS, dim=1)  # [C, 4, 3, 3] each
    views = in_channels // LATENT_CHANNELS - 1
    mask = torch.zeros_like(frame[:, :1])
    weights["conv_in.weight"] = torch.cat([noisy, *[frame / views] * views, mask], dim=1)
    network.load_state_dict(weights, assign=True)
    return network.eval()
