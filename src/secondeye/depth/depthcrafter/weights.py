"""Load DepthCrafter from a folder or from Hugging Face."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder

from secondeye.depth.depthcrafter.network import DepthNetwork
from secondeye.depth.depthcrafter.pipeline import DepthCrafterPipeline
from secondeye.inpaint.loading import load_image_encoder, load_module, load_scheduler, read_json
from secondeye.inpaint.module_checks import SVD_CHANNELS
from secondeye.inpaint.pretrained import find_network, find_pipeline
from secondeye.system.errors import UserError
from secondeye.system.files import hash_folder

NETWORK, SVD = "tencent/DepthCrafter", "stabilityai/stable-video-diffusion-img2vid-xt"
NETWORK_FOLDER = "DepthCrafter"  # inside of a folder of weights, as released
SVD_PARTS = ("image_encoder", "scheduler", "vae")
LICENCES = "DepthCrafter (research and education only), Stability AI Community"
SVD_FOLDERS = ("stable-video-diffusion-img2vid-xt", "stable-video-diffusion-img2vid-xt-1-1")


def load_pipeline(
    folder: Path | None,  # with NETWORK_FOLDER and one of SVD_FOLDERS; None: from Hugging Face
    device: str,
    offload: bool = False,  # only the module that runs is on the GPU
) -> DepthCrafterPipeline:
    """Load all modules; the autoencoder in float32, the others in float16 on a GPU.

    Raises UserError if they cannot be loaded, do not fit each other, and for `offload` without a GPU.
    """
    if offload and device == "cpu":
        raise UserError("offloading keeps parts of the network off a GPU, and there is none: leave it out")
    dtype = torch.float32 if device == "cpu" else torch.float16
    network, base = _find(folder)
    channels = read_json(network / "config.json").get("in_channels")
    if channels != SVD_CHANNELS:
        raise UserError(
            f"{network}: the network has {channels} input channels, DepthCrafter's has {SVD_CHANNELS}; name "
            "the folder of its weights"
        )
    modules: dict[str, Any] = {
        "vae": load_module(AutoencoderKLTemporalDecoder, base / "vae", torch.float32),
        "image_encoder": load_image_encoder(base / "image_encoder", dtype),
        "unet": load_module(DepthNetwork, network, dtype),
        "scheduler": load_scheduler(base / "scheduler"),
    }
    pipeline = DepthCrafterPipeline(**modules)
    if not offload:
        return pipeline.to(device)
    pipeline.enable_model_cpu_offload(device=device)
    return pipeline


def identify(folder: Path | None) -> tuple[str, str]:
    """Return the hash of all weights that are used, downloaded if they are missing, and their licences.

    Raises UserError as `load_pipeline` does.
    """
    network, base = _find(folder)
    parts = [hash_folder(part) for part in (network, *(base / name for name in SVD_PARTS))]
    return hashlib.sha256("".join(parts).encode()).hexdigest(), LICENCES


def _find(folder: Path | None) -> tuple[Path, Path]:
    """Return the folders of the network and of Stable Video Diffusion."""
    if folder is None:
        remedy = "name a folder with both, as --depth depthcrafter:FOLDER"
        return find_network(NETWORK, remedy=remedy), find_pipeline(SVD, with_network=False, remedy=remedy)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name the one with the weights of DepthCrafter")
    found = [folder / name for name in SVD_FOLDERS if (folder / name / "model_index.json").is_file()]
    if not (folder / NETWORK_FOLDER / "config.json").is_file() or not found:
        raise UserError(
            f"{folder}: must hold the weights of {NETWORK} in {NETWORK_FOLDER}/ and of {SVD} in "
            f"{SVD_FOLDERS[0]}/"
        )
    return folder / NETWORK_FOLDER, found[0]
