"""Folders of weights for the diffusion pipeline: safetensors in diffusers' layout, ours or the release's."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from diffusers.utils import logging
from transformers import CLIPVisionModelWithProjection
from transformers.utils import logging as transformers_logging

from secondeye.files import hash_folder
from secondeye.inpaint.pipeline import IN_CHANNELS, StereoInpaintPipeline
from secondeye.refusal import Refusal

NETWORK_FOLDERS = ("StereoCrafter/unet_diffusers", "StereoCrafter")  # where releases put the network
SVD_FILES = ("model_index.json", "*/*.json", "*/*.fp16.safetensors")  # all that is read of it
SVD_PARTS = ("image_encoder", "scheduler", "unet", "vae")
SVD = "stable-video-diffusion-img2vid-xt-1-1"


def load_pipeline(folder: Path, device: str) -> StereoInpaintPipeline:
    """Load what training saved, or a folder that holds the released pair; Refusal where neither is there.

    The released pair: Stable Video Diffusion's folder and StereoCrafter/ beside it. The autoencoder stays in
    float32, the rest is float16 on a GPU.
    """
    base, network = _find_folders(folder)
    _require_network(network)
    kind = torch.float32 if device == "cpu" else torch.float16
    pipeline = StereoInpaintPipeline(
        load_module(AutoencoderKLTemporalDecoder, base / "vae", torch.float32),
        load_image_encoder(base / "image_encoder", kind),
        load_module(UNetSpatioTemporalConditionModel, network, kind),
        load_scheduler(base / "scheduler"),
    )
    return pipeline.to(device)


def load_widened(initial: str) -> StereoInpaintPipeline:
    """Stable Video Diffusion, from a folder or of a Hugging Face id, with a channel for the mask; in float32.

    The new channel's weights are zero, so that at first the mask changes nothing. Refusal where the model can
    not be had, or has a mask's channel already.
    """
    folder = _find_svd(initial)
    narrow = load_module(UNetSpatioTemporalConditionModel, folder / "unet", torch.float32)
    if narrow.conv_in.in_channels != IN_CHANNELS - 1:
        raise Refusal(
            f"{folder}/unet: training begins with a network of {IN_CHANNELS - 1} input channels, as Stable "
            f"Video Diffusion's; this one has {narrow.conv_in.in_channels}"
        )
    return StereoInpaintPipeline(
        load_module(AutoencoderKLTemporalDecoder, folder / "vae", torch.float32),
        load_image_encoder(folder / "image_encoder", torch.float32),
        widen(narrow),
        load_scheduler(folder / "scheduler"),
    )


def hash_svd(initial: str) -> str:
    """A hash of what `load_widened` loads; Refusal where the model can not be had."""
    folder = _find_svd(initial)
    parts = "".join(hash_folder(folder / part) for part in SVD_PARTS)
    return hashlib.sha256(parts.encode()).hexdigest()


def widen(narrow: Any) -> Any:
    """The same network with one more input channel, which it ignores."""
    network = UNetSpatioTemporalConditionModel.from_config({**narrow.config, "in_channels": IN_CHANNELS})
    weights = narrow.state_dict()
    first = weights["conv_in.weight"]  # [C, 8, 3, 3]
    weights["conv_in.weight"] = torch.cat([first, torch.zeros_like(first[:, :1])], dim=1)
    network.load_state_dict(weights)
    return network.eval()


def _find_svd(initial: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if (Path(initial) / "model_index.json").is_file():
        return Path(initial)
    try:
        return Path(snapshot_download(initial, allow_patterns=list(SVD_FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise Refusal(
            f"{initial} is neither a folder with model_index.json nor to be had from Hugging Face: accept "
            f"the model's licence there and use `hf download {initial}`, or name the folder it is in"
        ) from error


def _find_folders(folder: Path) -> tuple[Path, Path]:
    """The folder in diffusers' layout, and the one with the network."""
    base = folder if (folder / "model_index.json").is_file() else folder / SVD
    if not (base / "model_index.json").is_file():
        raise Refusal(
            f"{folder}: no model_index.json here or in {SVD}/; name a folder that training wrote, "
            f"or one that holds {SVD}/ and StereoCrafter/"
        )
    released = [folder / name for name in NETWORK_FOLDERS] if base != folder else []
    networks = [network for network in released if (network / "config.json").is_file()]
    return base, networks[0] if networks else base / "unet"


def _require_network(folder: Path) -> None:
    channels = _read_config(folder).get("in_channels")
    if channels != IN_CHANNELS:
        raise Refusal(
            f"{folder}: the network has {channels} input channels, stereo inpainting needs {IN_CHANNELS}; "
            "plain Stable Video Diffusion has 8 and can not be used, StereoCrafter's can"
        )


def load_module(module_type: Any, folder: Path, dtype: torch.dtype) -> Any:
    """One of diffusers' modules in eval mode; Refusal where its safetensors do not fit."""
    variant = _variant_of(folder, "diffusion_pytorch_model")
    logging.disable_progress_bar()
    module, report = module_type.from_pretrained(
        folder,
        variant=variant,
        use_safetensors=True,
        local_files_only=True,
        torch_dtype=dtype,
        output_loading_info=True,
    )
    _require_all(folder, report["missing_keys"])
    return module.eval()


def load_image_encoder(folder: Path, dtype: torch.dtype) -> Any:
    """CLIP's picture half in eval mode; Refusal where its safetensors do not fit."""
    variant = _variant_of(folder, "model")
    transformers_logging.disable_progress_bar()
    encoder, report = CLIPVisionModelWithProjection.from_pretrained(
        folder,
        variant=variant,
        use_safetensors=True,
        local_files_only=True,
        dtype=dtype,
        output_loading_info=True,
    )
    _require_all(folder, report["missing_keys"])
    return encoder.eval()


def load_scheduler(folder: Path) -> EulerDiscreteScheduler:
    """The schedule a model was trained for."""
    if not (folder / "scheduler_config.json").is_file():
        raise Refusal(f"{folder}: scheduler_config.json is missing; the folder must be a complete model")
    return EulerDiscreteScheduler.from_pretrained(folder)


def _variant_of(folder: Path, stem: str) -> str | None:
    """None for plain weights, fp16 where only those are there."""
    if any((folder / f"{stem}{end}").is_file() for end in (".safetensors", ".safetensors.index.json")):
        return None
    if (folder / f"{stem}.fp16.safetensors").is_file():
        return "fp16"
    raise Refusal(f"{folder}: {stem}.safetensors is missing; the folder must be a complete model")


def _require_all(folder: Path, missing: list[str]) -> None:
    # The libraries would fill what the file lacks with random numbers.
    if missing:
        raise Refusal(f"{folder}: the weights do not fit config.json, they lack {sorted(missing)[:3]}")


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise Refusal(f"{path}: there is no such file; the folder must be a complete model")
    config: dict[str, Any] = json.loads(path.read_text())
    return config
