"""Depth Anything V2 (Yang et al., arXiv 2406.09414) through transformers, smoothed over the shot.

Weights are safetensors from a folder or the local Hugging Face cache, downloaded if they are missing; no code
of the model's repository is run. Preprocessing follows the model's preprocessor_config.json (transformers'
own DPTImageProcessor would need Pillow and torchvision).
"""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from secondeye.depth.interface import DepthEstimate, DepthEstimator, DepthState
from secondeye.depth.temporal_smoothing import smooth, smoothed_frame
from secondeye.imaging.arrays import resize, to_float_frames
from secondeye.imaging.optical_flow import to_gray
from secondeye.system.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MODEL = "depth-anything/Depth-Anything-V2-Small-hf"  # Apache-2.0; Base and Large are CC-BY-NC-4.0
FILES = ("config.json", "preprocessor_config.json", "model.safetensors")
BATCH_FRAMES = 4  # counted from the shot's start, so that results do not depend on the windows
MIN_DEPTH_M = 0.1  # a metric model's depths are clipped here before they are inverted


class Preprocessing(NamedTuple):
    """Size and colour normalisation that the network was trained with."""

    height: int  # px of the input; one side is fitted, the other follows from the frame's aspect
    width: int
    multiple: int  # px, the side of a patch: both sides of the input are multiples of it
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def load_depth_anything(
    model: str = MODEL,  # folder, or Hugging Face id
    device: str = "cpu",
) -> DepthEstimator:
    """Load a relative or metric Depth Anything model; UserError if files are missing or do not fit."""
    folder = find_folder(model)
    network, preprocessing = _load_network(folder, device), _read_preprocessing(folder)
    metric = network.config.depth_estimation_type == "metric"

    def infer(frames: Tensor) -> Tensor:  # [t, 3, H, W] -> [t, 1, h, w]
        with torch.inference_mode():
            depth = network(preprocess(frames.to(device), preprocessing)).predicted_depth[:, None].float()
        # The relative head predicts inverse depth, the metric head metres.
        return 1 / depth.clamp_min(MIN_DEPTH_M) if metric else depth

    def estimate(windows: Iterable[Tensor], state: DepthState | None = None) -> Iterator[DepthEstimate]:
        smoothed = None if state is None else smoothed_frame(state.tensors)
        start, skip = (0, 0) if state is None else (state.next_frame, state.next_frame - state.first_frame)
        frames = islice(_infer_frames(windows, infer), skip, None)
        for number, (depth, gray) in enumerate(frames, start + 1):
            smoothed = smooth(depth, gray, smoothed)
            after = DepthState(number, number - number % BATCH_FRAMES, smoothed.tensors())
            yield DepthEstimate(torch.from_numpy(smoothed.depth)[None, None], 1.0, after)

    return estimate


def is_cached(model: str = MODEL) -> bool:
    """Return whether the model is in the local Hugging Face cache, without network access."""
    from huggingface_hub import try_to_load_from_cache

    return all(isinstance(try_to_load_from_cache(model, name), str) for name in FILES)


def find_folder(model: str) -> Path:
    """Return the folder of the model's files, downloaded if necessary; UserError if that fails."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if Path(model).is_dir():
        missing = [name for name in FILES if not (Path(model) / name).is_file()]
        if missing:
            raise UserError(f"{model}: missing {', '.join(missing)}; the folder must be a complete model")
        return Path(model)
    try:
        return Path(snapshot_download(model, allow_patterns=list(FILES), local_files_only=is_cached(model)))
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise UserError(
            f"{model}: not in the local Hugging Face cache and cannot be downloaded; connect to the internet "
            f"and run `hf download {model}`, or use --depth motion, which needs no weights"
        ) from error


def preprocess(
    frames: Tensor,  # [t, 3, H, W] in [0, 1]
    preprocessing: Preprocessing,
) -> Tensor:  # [t, 3, h, w]
    """Resize to the network's size, keeping the aspect up to the patch size, and normalise colours."""
    height, width = frames.shape[2:]
    # As DPTImageProcessor: of the two scales the one closer to 1.
    scale = min(preprocessing.height / height, preprocessing.width / width, key=lambda s: abs(1 - s))
    patches = [max(1, round(side * scale / preprocessing.multiple)) for side in (height, width)]
    size = [count * preprocessing.multiple for count in patches]
    small = F.interpolate(frames, size, mode="bicubic", align_corners=False, antialias=True)
    mean, std = (
        small.new_tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std)
    )
    return (small - mean) / std


def _load_network(folder: Path, device: str) -> "PreTrainedModel":
    from transformers import AutoModelForDepthEstimation

    network, report = AutoModelForDepthEstimation.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, output_loading_info=True
    )
    if not hasattr(network.config, "depth_estimation_type"):
        kind = network.config.model_type
        raise UserError(f"{folder}: a {kind} model, not Depth Anything; name a folder of Depth Anything")
    # transformers initialises missing weights at random.
    if missing := sorted(report["missing_keys"])[:3]:
        raise UserError(
            f"{folder}/{FILES[2]}: does not fit {FILES[0]}, missing {missing}; get "
            "both files again, from one model"
        )
    return network.to(device).eval()


def _read_preprocessing(folder: Path) -> Preprocessing:
    values: dict[str, Any] = json.loads((folder / FILES[1]).read_text())
    height, width = values["size"]["height"], values["size"]["width"]
    return Preprocessing(
        height, width, values["ensure_multiple_of"], tuple(values["image_mean"]), tuple(values["image_std"])
    )


def _infer_frames(
    windows: Iterable[Tensor], infer: Callable[[Tensor], Tensor]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (depth, gray frame) of every frame, at the network's size or the film's if that is smaller."""
    stream = (frame for window in windows for frame in to_float_frames(window))
    while batch := list(islice(stream, BATCH_FRAMES)):
        frames = torch.stack(batch)
        depth = infer(frames)
        size = min(tuple(depth.shape[2:]), tuple(frames.shape[2:]))
        depth = resize(depth, *size).cpu()
        yield from zip(depth[:, 0].numpy(), to_gray(resize(frames, *size).cpu()), strict=True)
