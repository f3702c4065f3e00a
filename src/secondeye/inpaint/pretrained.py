"""Load all modules of a pipeline from a folder or from Hugging Face, in diffusers' layout."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel

from secondeye.inpaint.loading import (
    load_image_encoder,
    load_module,
    load_scheduler,
    read_json,
    require_finite,
)
from secondeye.inpaint.module_checks import require_input_channels
from secondeye.inpaint.quantization import STORAGES, quantize
from secondeye.system.errors import UserError
from secondeye.system.hub import IsComplete, find_model

NETWORK_FOLDERS = ("unet_diffusers", "", "unet")  # of a release or of a saved pipeline
NETWORK_FILES = ("model_index.json", "config.json", "diffusion_pytorch_model*", "unet_diffusers/*", "unet/*")
OUR_CLASS = "StereoInpaintPipeline"  # _class_name in model_index.json of a folder that training wrote
SVD_FILES = ("model_index.json", "*/*.json", "*/*.fp16.safetensors")  # of Stable Video Diffusion


def load_components(
    source: str | Path,
    *,
    unet: Any = None,  # folder, Hugging Face id or module; None is the one of `source`
    vae: Any = None,  # modules that replace those of `source`
    image_encoder: Any = None,
    scheduler: Any = None,
    torch_dtype: torch.dtype = torch.float32,  # of the network and CLIP; the autoencoder overflows in fp16
    variant: str | None = None,  # in the file names of `source`, "fp16"; None prefers plain files to fp16
    storage: str = "plain",  # one of STORAGES: int8 and fp8 take a half or a quarter of the memory
    quantization_config: Any = None,  # diffusers' own, for other quantisation libraries
    overlap_mask: str | None = None,  # None is the one in model_index.json, "kept" if there is none
    conditioning: str | None = None,  # None: as stored, else "warp" for a folder of ours, "splat" for others
    finite: bool = True,  # refuse weights with NaN or inf
    use_safetensors: bool = True,
    **hub: Any,  # revision, token, cache_dir, local_files_only, ...: options of snapshot_download
) -> dict[str, Any]:
    """Return the arguments of StereoInpaintPipeline, modules in eval mode on the CPU.

    Raises UserError if they cannot be loaded, ValueError for an unknown storage and for pickles.
    """
    if storage not in STORAGES or not use_safetensors:
        raise ValueError(f"storage must be one of {', '.join(STORAGES)}, and files safetensors")
    if not isinstance(torch_dtype, torch.dtype):
        raise ValueError(f"torch_dtype must be a torch.dtype, got {torch_dtype!r}")
    base = find_pipeline(str(source), with_network=unet is None, hub=hub)
    config_folder = base
    if unet is None or isinstance(unet, str | Path):
        folder = find_network(base / "unet" if unet is None else unet, hub=hub)
        require_input_channels(read_json(folder / "config.json").get("in_channels"), folder)
        options = {} if quantization_config is None else {"quantization_config": quantization_config}
        if unet is not None:  # the variant is that of `source`: StereoCrafter's network has none
            config_folder, unet_variant = folder.parent, None
        else:
            unet_variant = variant
        unet = load_module(UNetSpatioTemporalConditionModel, folder, torch_dtype, unet_variant, **options)
    components = {
        "vae": vae or load_module(AutoencoderKLTemporalDecoder, base / "vae", torch.float32, variant),
        "image_encoder": image_encoder or load_image_encoder(base / "image_encoder", torch_dtype, variant),
        "unet": unet,
        "scheduler": scheduler or load_scheduler(base / "scheduler"),
        **_training_conventions(config_folder, overlap_mask, conditioning),
    }
    if finite:
        require_finite(components, source)
    quantize(unet, storage)
    return components


def find_pipeline(
    source: str,  # folder, or Hugging Face id
    *,
    with_network: bool = True,
    remedy: str = "name a folder that holds it",  # beside the download, for the error
    hub: dict[str, Any] | None = None,
) -> Path:
    """Return the folder of a pipeline, downloaded if it is a Hugging Face id; UserError if there is none."""
    hub = hub or {}
    _require_hub_options(hub)
    if (Path(source) / "model_index.json").is_file():
        return Path(source)
    parts = ["vae", "image_encoder", *["unet"] * with_network]

    def is_complete(folder: Path) -> bool:
        return all(list(folder.glob(f"{part}/*.safetensors")) for part in parts)

    hub = hub | {"ignore_patterns": [] if with_network else ["unet/*"]}
    folder = _find_model(source, SVD_FILES, remedy, is_complete, hub)
    if not is_complete(folder):  # a pipeline saved here has no fp16 files
        folder = _find_model(source, (*SVD_FILES, "*/*.safetensors"), remedy, is_complete, hub)
    return folder


def find_network(
    source: str | Path,  # folder, or Hugging Face id
    *,
    remedy: str = "name a folder that holds it",  # beside the download, for the error
    hub: dict[str, Any] | None = None,
) -> Path:
    """Return the folder of a network's config and weights, downloaded if it is a Hugging Face id.

    Raises UserError if it cannot be downloaded.
    """
    folder = Path(source)
    if not folder.is_dir() and isinstance(source, str):
        folder = _find_model(source, NETWORK_FILES, remedy, _has_network, hub or {})
    return _network_folder(folder)


def _network_folder(folder: Path) -> Path:
    found = [folder / name for name in NETWORK_FOLDERS if (folder / name / "config.json").is_file()]
    return found[0] if found else folder


def _has_network(folder: Path) -> bool:
    return bool(list(_network_folder(folder).glob("diffusion_pytorch_model*.safetensors")))


def _require_hub_options(hub: dict[str, Any]) -> None:
    """Raise TypeError for options that snapshot_download does not take, also if nothing is downloaded."""
    from huggingface_hub import snapshot_download

    inspect.signature(snapshot_download).bind("", allow_patterns=None, ignore_patterns=None, **hub)


def _find_model(
    source: str, patterns: Sequence[str], remedy: str, is_complete: IsComplete, hub: dict[str, Any]
) -> Path:
    if Path(source).is_dir() or Path(source).is_absolute():
        raise UserError(f"{source}: model_index.json is missing; name the folder of a complete model")
    remedy = f"accept the model's licence on Hugging Face and run `hf download {source}`, or {remedy}"
    return find_model(source, patterns, remedy, is_complete=is_complete, **hub)


def _training_conventions(folder: Path, overlap_mask: str | None, conditioning: str | None) -> dict[str, str]:
    """Return how the network was trained, as given or as model_index.json says.

    Without model_index.json, or in another program's, the network is a released one.
    """
    path = folder / "model_index.json"
    index = read_json(path) if path.is_file() else {}
    ours = index.get("_class_name") == OUR_CLASS
    return {
        "overlap_mask": overlap_mask or str(index.get("overlap_mask", "kept")),
        "conditioning": conditioning or str(index.get("conditioning", "warp" if ours else "splat")),
    }
