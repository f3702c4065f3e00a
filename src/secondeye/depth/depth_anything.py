"""Depth Anything V2 (Yang et al., arXiv 2406.09414) through transformers, made steady over the shot.

The weights are safetensors from a local folder or the local Hugging Face cache, fetched there when they are
missing; no code of the model's repository is run. Preparing the picture follows the values in the
model's preprocessor_config.json (transformers' DPTImageProcessor, which would want Pillow and torchvision).
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from secondeye.depth import DepthEstimate, DepthEstimator
from secondeye.depth.temporal_smoothing import smooth_over_time
from secondeye.imaging.arrays import resize
from secondeye.system.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MODEL = "depth-anything/Depth-Anything-V2-Small-hf"  # Apache-2.0; Base and Large are CC-BY-NC-4.0
FILES = ("config.json", "preprocessor_config.json", "model.safetensors")
BATCH_FRAMES = 4
NEAREST_M = 0.1  # a metric model's depths below this are not told apart
LUMA = (0.299, 0.587, 0.114)  # BT.601


class Preparation(NamedTuple):
    """What the network was trained to see."""

    height: int  # px, of which the picture keeps its aspect
    width: int
    multiple: int  # px: both sides of the input are multiples of the patch
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def load_depth_anything(
    model: str = MODEL,  # folder, or name in the local Hugging Face cache
    device: str = "cpu",
) -> DepthEstimator:
    """Load a relative or metric Depth Anything model; Refusal where files are missing or of another model."""
    folder = find_folder(model)
    network, preparation = _load_network(folder, device), _read_preparation(folder)
    metric = network.config.depth_estimation_type == "metric"

    def infer(frames: Tensor) -> Tensor:  # [t, 3, H, W] -> [t, 1, h, w]
        with torch.inference_mode():
            depth = network(prepare(frames.to(device), preparation)).predicted_depth[:, None].float()
        # The relative head gives inverse depth, the metric head metres.
        return 1 / depth.clamp_min(NEAREST_M) if metric else depth

    def estimate(windows: Iterable[Tensor]) -> Iterator[DepthEstimate]:
        for depth in smooth_over_time(_each_frame(windows, infer)):
            yield DepthEstimate(torch.from_numpy(depth)[None, None], 1.0)

    return estimate


def is_cached(model: str = MODEL) -> bool:
    """Whether the model's files are in the local Hugging Face cache. Never touches the network."""
    from huggingface_hub import try_to_load_from_cache

    return all(isinstance(try_to_load_from_cache(model, name), str) for name in FILES)


def find_folder(model: str) -> Path:
    """Folder with the model's files, fetched from Hugging Face where they are not here; else Refusal."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if Path(model).is_dir():
        missing = [name for name in FILES if not (Path(model) / name).is_file()]
        if missing:
            raise UserError(f"{model} lacks {', '.join(missing)}: it must be a complete model folder")
        return Path(model)
    try:
        return Path(snapshot_download(model, allow_patterns=list(FILES), local_files_only=is_cached(model)))
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise UserError(
            f"the weights of {model} are not in the local Hugging Face cache and can not be fetched; where "
            f"there is a network use `hf download {model}`, or use --depth motion, which needs none"
        ) from error


def prepare(
    frames: Tensor,  # [t, 3, H, W] in [0, 1]
    preparation: Preparation,
) -> Tensor:  # [t, 3, h, w]
    """Resize to the network's size, keeping the aspect up to its patch, and normalise the colours."""
    height, width = frames.shape[2:]
    # As DPTImageProcessor: of the two scales the one that changes the picture less.
    scale = min(preparation.height / height, preparation.width / width, key=lambda s: abs(1 - s))
    patches = [max(1, round(side * scale / preparation.multiple)) for side in (height, width)]
    size = [count * preparation.multiple for count in patches]
    small = F.interpolate(frames, size, mode="bicubic", align_corners=False, antialias=True)
    mean, std = (small.new_tensor(values)[:, None, None] for values in (preparation.mean, preparation.std))
    return (small - mean) / std


def _load_network(folder: Path, device: str) -> "PreTrainedModel":
    from transformers import AutoModelForDepthEstimation

    network, report = AutoModelForDepthEstimation.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, output_loading_info=True
    )
    if not hasattr(network.config, "depth_estimation_type"):
        raise UserError(f"{folder} holds a {network.config.model_type} model, not Depth Anything")
    # transformers would fill what the file lacks with random numbers.
    if report["missing_keys"]:
        raise UserError(
            f"{folder}/{FILES[2]} does not fit {FILES[0]}, it lacks {sorted(report['missing_keys'])[:3]}"
        )
    return network.to(device).eval()


def _read_preparation(folder: Path) -> Preparation:
    values: dict[str, Any] = json.loads((folder / FILES[1]).read_text())
    height, width = values["size"]["height"], values["size"]["width"]
    return Preparation(
        height, width, values["ensure_multiple_of"], tuple(values["image_mean"]), tuple(values["image_std"])
    )


def _each_frame(
    windows: Iterable[Tensor], infer: Callable[[Tensor], Tensor]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (depth, grey picture) of every frame, at the network's size or the film's if that is smaller."""
    for window in windows:
        for frames in window.split(BATCH_FRAMES):
            depth = infer(frames)
            size = min(tuple(depth.shape[2:]), tuple(frames.shape[2:]))
            depth = resize(depth, *size).cpu()
            grey = (resize(frames, *size).cpu() * torch.tensor(LUMA)[:, None, None]).sum(1)
            yield from zip(depth[:, 0].numpy(), (grey * 255).round().byte().numpy(), strict=True)
