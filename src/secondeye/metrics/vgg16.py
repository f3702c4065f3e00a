"""The part of VGG16 (Simonyan, Zisserman 2015) that sees: what it makes of pictures, stage by stage.

Its weights are safetensors from a folder or Hugging Face, named as torchvision and timm name them.
"""

from collections.abc import Callable
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from secondeye.system.errors import UserError
from secondeye.system.files import hash_file

Network = dict[str, Tensor]  # weights and biases, float32, by name

FILE = "model.safetensors"
# Convolutions of each stage: (number in the name, channels it makes).
STAGES = (
    ((0, 64), (2, 64)),
    ((5, 128), (7, 128)),
    ((10, 256), (12, 256), (14, 256)),
    ((17, 512), (19, 512), (21, 512)),
    ((24, 512), (26, 512), (28, 512)),
)
_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours


def load_network(
    weights: Path | str,  # folder with model.safetensors, or a Hugging Face id
    device: str,
) -> Network:
    """Load the convolutions; Refusal where the weights can not be had, or are not those of VGG16."""
    file, wanted = _find_file(weights), _shapes()
    network = _read(file, wanted)
    for name, shape in wanted.items():
        if name not in network or tuple(network[name].shape) != shape:
            has = f"is {list(network[name].shape)}" if name in network else "is missing"
            raise UserError(f"{file}: these are not VGG16's weights: {name} must be {list(shape)}, {has}")
    return {name: tensor.float().to(device) for name, tensor in network.items()}


def hash_network(weights: Path | str) -> str:
    """A hash of the file that `load_network` reads; Refusal where it can not be had."""
    return hash_file(_find_file(weights))


def see(
    network: Network,
    pictures: Tensor,  # [N, 3, h, w] in [0, 1]; sides of at least 16 px
    pool: Callable[[Tensor], Tensor],  # halves the sides between stages
) -> list[Tensor]:  # [N, C, h', w'] of each stage, at least 0
    """What the network makes of pictures at the end of each stage."""
    mean, spread = (pictures.new_tensor(values)[:, None, None] for values in (_MEAN, _SPREAD))
    x = (pictures - mean) / spread
    seen: list[Tensor] = []
    for stage in STAGES:
        x = pool(x) if seen else x
        for number, _ in stage:
            weight, bias = _names(number)
            x = F.relu(F.conv2d(x, network[weight], network[bias], padding=1))
        seen.append(x)
    return seen


def _find_file(weights: Path | str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if Path(weights).is_dir():
        if not (Path(weights) / FILE).is_file():
            raise UserError(f"{weights}: {FILE} is missing; the folder must hold VGG16's weights")
        return Path(weights) / FILE
    try:
        return Path(hf_hub_download(str(weights), FILE))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise UserError(
            f"{weights} is neither a folder with VGG16's {FILE} nor to be had from Hugging Face: where there "
            f"is a network use `hf download timm/vgg16.tv_in1k {FILE}`, or do without LPIPS and DISTS"
        ) from error


def _read(file: Path, wanted: dict[str, tuple[int, ...]]) -> Network:
    """What the file has of the wanted tensors; the rest of it, such as the classifier, is not read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as tensors:
            return {name: tensors.get_tensor(name) for name in wanted.keys() & tensors.keys()}
    except SafetensorError as error:
        raise UserError(f"{file}: can not be read ({error}); fetch it again") from error


def _shapes() -> dict[str, tuple[int, ...]]:
    """Of every weight and bias, by its name."""
    shapes: dict[str, tuple[int, ...]] = {}
    before = 3
    for number, channels in (layer for stage in STAGES for layer in stage):
        weight, bias = _names(number)
        shapes |= {weight: (channels, before, 3, 3), bias: (channels,)}
        before = channels
    return shapes


def _names(number: int) -> tuple[str, str]:
    return f"features.{number}.weight", f"features.{number}.bias"
