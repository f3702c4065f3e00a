"""Folders of weights for the diffusion pipeline: safetensors in diffusers' layout, ours or the release's."""

import hashlib
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
from secondeye.inpaint.pipeline import (
    IN_CHANNELS,
    LATENT_CHANNELS,
    ONE_STEP_CHANNELS,
    StereoInpaintPipeline,
)
from secondeye.inpaint.quantization import STORAGES, store
from secondeye.system.errors import UserError
from secondeye.system.files import hash_folder

NETWORK_FOLDERS = ("unet_diffusers", "", "unet")  # where a release, or a saved pipeline, has the network
NETWORK_FILES = ("model_index.json", "config.json", "diffusion_pytorch_model*", "unet_diffusers/*", "unet/*")
SVD_FILES = ("model_index.json", "*/*.json", "*/*.fp16.safetensors")  # all that is read of it
SVD_PARTS = ("image_encoder", "scheduler", "unet", "vae")
SVD = "stable-video-diffusion-img2vid-xt-1-1"
RELEASE = "StereoCrafter"
SVD_CHANNELS = 2 * LATENT_CHANNELS
HUB_OPTIONS = {  # of snapshot_download
    *("revision", "token", "cache_dir", "local_files_only", "force_download", "proxies", "etag_timeout"),
    *("local_dir", "max_workers", "endpoint", "library_name", "library_version", "user_agent", "headers"),
}


def load_pipeline(folder: Path, device: str) -> StereoInpaintPipeline:
    """Load what training saved, or a folder that holds the released pair; Refusal where neither is there.

    The released pair: Stable Video Diffusion's folder and StereoCrafter/ beside it. The autoencoder stays in
    float32, the rest is float16 on a GPU. Whoever judges or shows pictures finds what no numbers are in them.
    """
    kind = torch.float32 if device == "cpu" else torch.float16
    if (folder / "model_index.json").is_file() or not (folder / SVD / "model_index.json").is_file():
        pair: tuple[Path, Path | None] = (folder, None)
    else:
        pair = (folder / SVD, folder / RELEASE if (folder / RELEASE).is_dir() else None)
    base, network = pair
    if not (base / "model_index.json").is_file():
        raise UserError(
            f"{folder}: no model_index.json here or in {SVD}/; name a folder that training wrote, "
            f"or one that holds {SVD}/ and {RELEASE}/"
        )
    return load_pretrained(base, unet=network, torch_dtype=kind, finite=False).to(device)


def load_pretrained(
    source: str | Path,
    *,
    unet: Any = None,  # folder, Hugging Face id, or the module; None is source's own
    vae: Any = None,  # modules in place of source's
    image_encoder: Any = None,
    scheduler: Any = None,
    torch_dtype: torch.dtype = torch.float32,  # of the network and CLIP; the autoencoder overflows in fp16
    variant: str | None = None,  # of source's names, "fp16"; None takes plain ones first, then fp16
    storage: str = "plain",  # one of STORAGES: of the network's weights, in a half or a quarter of the memory
    quantization_config: Any = None,  # diffusers' own, for what it can do with other libraries installed
    overlap_mask: str | None = None,  # None is what the folder says, "kept" where it says nothing
    finite: bool = True,  # refuse weights that are not
    use_safetensors: bool = True,
    **hub: Any,  # revision, token, cache_dir, local_files_only: as snapshot_download takes them
) -> StereoInpaintPipeline:
    """Modules from a folder or Hugging Face, as a pipeline in eval mode on the CPU; Refusal with one line.

    Raises ValueError for an unknown storage, or where pickles are asked for.
    """
    if storage not in STORAGES or not use_safetensors:
        raise ValueError(f"storage must be one of {', '.join(STORAGES)}, and files safetensors")
    if not isinstance(torch_dtype, torch.dtype):
        raise ValueError(f"torch_dtype must be a torch.dtype, got {torch_dtype!r}")
    if unknown := sorted(hub.keys() - HUB_OPTIONS):
        known = ", ".join(sorted(HUB_OPTIONS))
        raise TypeError(f"from_pretrained takes no {', '.join(unknown)}; of the hub's it takes {known}")
    base = _find_pipeline(str(source), unet is None, hub)
    told = base
    if unet is None or isinstance(unet, str | Path):
        folder = _find_network(base / "unet" if unet is None else unet, hub)
        told = base if unet is None else folder.parent
        _require_network(folder)
        options = {} if quantization_config is None else {"quantization_config": quantization_config}
        own = (
            variant if unet is None else None
        )  # the released network has no variant, and what it goes with has
        unet = load_module(UNetSpatioTemporalConditionModel, folder, torch_dtype, own, **options)
    pipeline = StereoInpaintPipeline(
        vae or load_module(AutoencoderKLTemporalDecoder, base / "vae", torch.float32, variant),
        image_encoder or load_image_encoder(base / "image_encoder", torch_dtype, variant),
        unet,
        scheduler or load_scheduler(base / "scheduler"),
        overlap_mask or _overlap_mask_of(told),
    )
    if finite:
        require_finite(_networks_of(pipeline), source)
    store(pipeline.unet, storage)
    return pipeline


def _networks_of(pipeline: StereoInpaintPipeline) -> dict[str, Any]:
    return {name: pipeline.components[name] for name in ("unet", "vae", "image_encoder")}


def load_widened(initial: str, in_channels: int = IN_CHANNELS) -> StereoInpaintPipeline:
    """Stable Video Diffusion, from a folder or of a Hugging Face id, with more input channels; in float32.

    See `widen`. Refusal where the model can not be had, or has more channels already.
    """
    folder = _find_svd(initial)
    narrow = load_module(UNetSpatioTemporalConditionModel, folder / "unet", torch.float32)
    if narrow.conv_in.in_channels != SVD_CHANNELS:
        raise UserError(
            f"{folder}/unet: training begins with a network of {SVD_CHANNELS} input channels, as Stable "
            f"Video Diffusion's; this one has {narrow.conv_in.in_channels}"
        )
    pipeline = StereoInpaintPipeline(
        load_module(AutoencoderKLTemporalDecoder, folder / "vae", torch.float32),
        load_image_encoder(folder / "image_encoder", torch.float32),
        widen(narrow, in_channels),
        load_scheduler(folder / "scheduler"),
    )
    require_finite(_networks_of(pipeline), folder)
    return pipeline


def hash_svd(initial: str) -> str:
    """A hash of what `load_widened` loads; Refusal where the model can not be had."""
    folder = _find_svd(initial)
    parts = "".join(hash_folder(folder / part) for part in SVD_PARTS)
    return hashlib.sha256(parts.encode()).hexdigest()


def widen(
    narrow: Any,  # of SVD_CHANNELS: noisy latents, and those of the picture that a clip begins with
    in_channels: int,  # IN_CHANNELS or ONE_STEP_CHANNELS
) -> Any:
    """The same network told of more: the warped view in the picture's place, and the mask, which it ignores.

    For one step the left view and the warped one share the picture's weights, half each, as M2SVid begins: of
    two equal views the network makes what it made of one.
    """
    network = UNetSpatioTemporalConditionModel.from_config({**narrow.config, "in_channels": in_channels})
    weights = narrow.state_dict()
    noisy, picture = weights["conv_in.weight"].split(LATENT_CHANNELS, dim=1)  # [C, 4, 3, 3] each
    views = in_channels // LATENT_CHANNELS - 1
    mask = torch.zeros_like(picture[:, :1])
    weights["conv_in.weight"] = torch.cat([noisy, *[picture / views] * views, mask], dim=1)
    network.load_state_dict(weights)
    return network.eval()


def _find_svd(initial: str) -> Path:
    return _find_pipeline(initial, True, {})


def _find_pipeline(source: str, with_network: bool, hub: dict[str, Any]) -> Path:
    if (Path(source) / "model_index.json").is_file():
        return Path(source)
    left_out = [] if with_network else ["unet/*"]
    folder = _download(source, SVD_FILES, hub, left_out)
    if not list(folder.glob("vae/*.safetensors")):  # saved here, not released: there is no half precision
        folder = _download(source, (*SVD_FILES, "*/*.safetensors"), hub, left_out)
    return folder


def _find_network(source: str | Path, hub: dict[str, Any]) -> Path:
    folder = Path(source)
    if not folder.is_dir() and isinstance(source, str):
        folder = _download(source, NETWORK_FILES, hub, [])
    found = [folder / name for name in NETWORK_FOLDERS if (folder / name / "config.json").is_file()]
    return found[0] if found else folder


def _download(source: str, patterns: Sequence[str], hub: dict[str, Any], left_out: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if Path(source).is_dir() or Path(source).is_absolute():
        raise UserError(f"{source}: has no model_index.json; name the folder of a whole model")
    try:
        return Path(
            snapshot_download(source, allow_patterns=list(patterns), ignore_patterns=list(left_out), **hub)
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise UserError(
            f"{source} is neither a folder with model_index.json nor to be had from Hugging Face: accept "
            f"the model's licence there and use `hf download {source}`, or name the folder it is in"
        ) from error


def _overlap_mask_of(folder: Path) -> str:
    path = folder / "model_index.json"
    index = read_json(path) if path.is_file() else {}
    return str(index.get("overlap_mask", "kept"))


def _require_network(folder: Path) -> None:
    channels = read_json(folder / "config.json").get("in_channels")
    if channels not in (IN_CHANNELS, ONE_STEP_CHANNELS):
        raise UserError(
            f"{folder}: the network has {channels} input channels, stereo inpainting needs {IN_CHANNELS}, or "
            f"{ONE_STEP_CHANNELS} for one step; plain Stable Video Diffusion has {SVD_CHANNELS} and can not "
            "be used, StereoCrafter's can"
        )
