"""Any depth network of transformers, one frame at a time, smoothed over the shot.

Weights are safetensors from a folder or the Hugging Face cache, downloaded if they are missing; no code of
the model's repository is run. The configuration says what a network predicts: inverse depth or metres.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from secondeye.depth.frame_by_frame import Infer, frame_by_frame, map_size, one_frame
from secondeye.depth.hub import CONFIG, PREPROCESSOR, find_folder, weight_files
from secondeye.depth.interface import DepthEstimator
from secondeye.depth.metres import invert_metres
from secondeye.depth.preprocessing import Preprocessing, read_preprocessing
from secondeye.imaging.arrays import resize
from secondeye.system.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DEPTH_ANYTHING_V2 = "depth-anything/Depth-Anything-V2-Small-hf"  # Apache-2.0; Base, Large are CC-BY-NC-4.0
SUPPORTED = (
    "depth_anything",
    "depth_pro",
    "dpt",
    "glpn",
    "tipsv2_dpt",
    "zoedepth",
)  # model_type of config.json
MAX_BATCH = 16
BATCH_SHARE = 0.1  # of a GPU's memory, for the frames of one batch; an inpainter may be on it as well
# Of one frame in float32; with random weights Depth Anything Small took 930, Base 1310, DPT Large 3110.
INPUT_PIXEL_BYTES = 3500
WEIGHT_COPIES = 2  # of files in float16, which are computed in float32 on the CPU

_REFUSED = {
    "prompt_depth_anything": "needs the depth of a sensor beside every frame",
    "chmv2": "predicts the height of trees in aerial images, not depth",
}
_UNUSED = re.compile(r"fusion_stage\.layers\.0\.residual_layer1\.")  # released DPT weights do not have them
_MAX_REASON = 200  # characters of a library's message that are quoted


class _Model(NamedTuple):
    """What the files of a model say about it, without its weights."""

    folder: Path
    preprocessing: Preprocessing
    is_metric: bool  # predicts metres; else inverse depth
    options: dict[str, Any]  # of the network


def load_hugging_face(model: str, device: str) -> DepthEstimator:  # folder, or Hugging Face id
    """Load a depth network of transformers; UserError if files are missing or do not fit."""
    described = _describe(find_folder(model))
    network = _load_network(described).to(device).eval()

    def infer(frames: Tensor) -> Tensor:  # [t, 3, H, W] -> [t, 1, h, w]
        return _infer(network, described, frames, device)

    fitting: dict[torch.Size, int] = {}  # by size of the frames, measured once

    def frames_at_once(frame: Tensor) -> int:
        if frame.shape not in fitting:
            fitting[frame.shape] = _frames_at_once(infer, frame)
        return fitting[frame.shape]

    return frame_by_frame(infer, one_frame if device == "cpu" else frames_at_once)


def largest_map(model: str, height: int, width: int) -> int:
    """Return the pixels of the largest map that a model on this machine gives for frames of a size."""
    preprocessing = _describe(find_folder(model)).preprocessing
    rows, columns = map_size(*preprocessing.input_size(height, width), height, width)
    return rows * columns


def network_bytes(model: str, height: int, width: int) -> int:
    """Return what a model on this machine takes on the CPU, weights and one frame; an upper bound."""
    described = _describe(find_folder(model))
    rows, columns = described.preprocessing.input_size(height, width)
    weights = sum((described.folder / name).stat().st_size for name in weight_files(described.folder))
    return WEIGHT_COPIES * weights + INPUT_PIXEL_BYTES * rows * columns


def _describe(folder: Path) -> _Model:
    path = folder / CONFIG
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: not a configuration in JSON ({error}); get the file again") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: must be a JSON object, got {config!r:.40}; get the file again")
    kind = config.get("model_type")
    if kind in _REFUSED:
        raise UserError(f"{folder}: a {kind} model {_REFUSED[kind]}; name another model")
    if kind not in SUPPORTED:
        raise UserError(f"{folder}: a {kind} model is not a depth network; supported: {', '.join(SUPPORTED)}")
    preprocessing = read_preprocessing(folder / PREPROCESSOR, kind)
    # Shots are normalised, so that Depth Pro's field of view, a third of its weights, would change nothing.
    options = {"use_fov_model": False} if kind == "depth_pro" else {}
    return _Model(folder, preprocessing, _is_metric(kind, config), options)


def _is_metric(kind: str, config: dict[str, Any]) -> bool:
    """Return whether a network predicts metres, larger is farther; all others predict inverse depth."""
    match kind:
        case "depth_anything":
            return config.get("depth_estimation_type") == "metric"
        case "dpt":  # DINOv2's heads for indoor and street scenes; those of MiDaS have no projection
            return bool(config.get("add_projection"))
    return kind in ("glpn", "tipsv2_dpt", "zoedepth")


def _load_network(model: _Model) -> "PreTrainedModel":
    from transformers import AutoModelForDepthEstimation

    with _one_line_errors(model.folder):
        network, report = AutoModelForDepthEstimation.from_pretrained(
            model.folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are reported instead
            **model.options,
        )
    for name, actual, wanted in sorted(report["mismatched_keys"])[:1]:
        raise _misfit(model.folder, f"{name} is {list(actual)}, expected {list(wanted)}")
    # transformers initialises missing weights at random.
    if missing := sorted(name for name in report["missing_keys"] if not _UNUSED.search(name))[:3]:
        raise _misfit(model.folder, f"missing {', '.join(missing)}")
    return network


def _infer(network: "PreTrainedModel", model: _Model, frames: Tensor, device: str) -> Tensor:
    size = frames.shape[2:]
    inputs = model.preprocessing.prepare(frames.to(device))
    # Autocast keeps in float32 what overflows in float16: softmax, exponentials, logarithms.
    half = torch.autocast(device, torch.float16, enabled=device != "cpu")
    try:
        with torch.inference_mode(), half:
            output = network(pixel_values=inputs).predicted_depth[:, None]
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{model.folder}: {frames.shape[0]} frames do not fit into the GPU's memory; close other "
            "programs that use it, or name a smaller model"
        ) from error
    depth = output.float()
    if not bool(depth.isfinite().all()):
        raise UserError(f"{model.folder}: returned NaN or inf; get the weights again")
    inverse = invert_metres(depth) if model.is_metric else depth
    return resize(model.preprocessing.crop(inverse, *size), *map_size(*output.shape[2:], *size)).cpu()


def _frames_at_once(infer: Infer, frame: Tensor) -> int:
    """Return how many frames a GPU takes at once: by its memory, and by what one frame needs.

    By its whole memory, not by what is free, so that the same GPU always gives the same bytes.
    """
    infer(frame)  # the first call also allocates what stays
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    infer(frame)
    needed = max(1, torch.cuda.max_memory_allocated() - before)
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return max(1, min(MAX_BATCH, int(BATCH_SHARE * total / needed)))


@contextmanager
def _one_line_errors(folder: Path) -> Iterator[None]:
    """Turn the errors of transformers into a one-line UserError; silence its log and progress bars."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    kinds = (OSError, ValueError, RuntimeError, ImportError, TypeError, KeyError, AttributeError)
    try:
        yield
    except (*kinds, SafetensorError, StrictDataclassError) as error:
        reason = repr(error) if isinstance(error, KeyError) else str(error)
        raise _misfit(folder, " ".join(reason.split())[:_MAX_REASON].rstrip(".")) from error
    finally:
        logging.set_verbosity(level)


def _misfit(folder: Path, reason: str) -> UserError:
    return UserError(
        f"{folder}: the weights do not fit {CONFIG}: {reason}; get all files of the folder again, from one "
        "model"
    )
