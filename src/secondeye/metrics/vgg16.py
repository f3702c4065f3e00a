"""VGG16 features (Simonyan, Zisserman 2015).

Weights are a safetensors file in a local folder or on Hugging Face, with torchvision's and timm's names.
"""

from collections.abc import Callable
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from secondeye.system.errors import UserError
from secondeye.system.files import hash_file

Vgg16 = dict[str, Tensor]  # weights and biases of the convolutions, float32

WEIGHTS_FILE = "model.safetensors"
# Convolutions of each stage: (index in the name, output channels).
STAGES = (
    ((0, 64), (2, 64)),
    ((5, 128), (7, 128)),
    ((10, 256), (12, 256), (14, 256)),
    ((17, 512), (19, 512), (21, 512)),
    ((24, 512), (26, 512), (28, 512)),
)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


def load_vgg16(
    weights: Path | str,  # folder with model.safetensors, or a Hugging Face id
    device: str,
) -> Vgg16:
    """Load the convolutions. Raises UserError if the weights cannot be loaded or are not VGG16's."""
    file, shapes = _find_file(weights), _parameter_shapes()
    vgg16 = _read_tensors(file, shapes)
    for name, shape in shapes.items():
        if name not in vgg16 or tuple(vgg16[name].shape) != shape:
            has = f"is {list(vgg16[name].shape)}" if name in vgg16 else "is missing"
            raise UserError(f"{file}: not VGG16's weights: {name} must be {list(shape)}, {has}")
    return {name: tensor.float().to(device) for name, tensor in vgg16.items()}


def hash_weights(weights: Path | str) -> str:
    """Return the hash of the weights file. Raises UserError if it cannot be found or downloaded."""
    return hash_file(_find_file(weights))


def extract_features(
    vgg16: Vgg16,
    images: Tensor,  # [N, 3, h, w] in [0, 1], at least 16 px on each side
    pool: Callable[[Tensor], Tensor],  # applied between stages, halves the sides
) -> list[Tensor]:  # [N, C, h', w'] of each stage, after the last ReLU
    """Return the features of each stage."""
    mean, std = (images.new_tensor(values)[:, None, None] for values in (_MEAN, _STD))
    x = (images - mean) / std
    features: list[Tensor] = []
    for stage in STAGES:
        x = pool(x) if features else x
        for index, _ in stage:
            weight, bias = _parameter_names(index)
            x = F.relu(F.conv2d(x, vgg16[weight], vgg16[bias], padding=1))
        features.append(x)
    return features


def _find_file(weights: Path | str) -> Path:
    from secondeye.system.hub import find_model

    if Path(weights).is_dir():
        if not (Path(weights) / WEIGHTS_FILE).is_file():
            raise UserError(f"{weights}: {WEIGHTS_FILE} is missing; the folder must contain VGG16's weights")
        return Path(weights) / WEIGHTS_FILE
    remedy = (
        f"with internet access run `hf download timm/vgg16.tv_in1k {WEIGHTS_FILE}`, or name a folder with "
        "VGG16's weights, or disable LPIPS and DISTS"
    )
    model = str(weights)
    folder = find_model(
        model, [WEIGHTS_FILE], remedy, is_complete=lambda folder: (folder / WEIGHTS_FILE).is_file()
    )
    return folder / WEIGHTS_FILE


def _read_tensors(file: Path, shapes: dict[str, tuple[int, ...]]) -> Vgg16:
    """Read the tensors that VGG16's convolutions need; the classifier is skipped."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as tensors:
            return {name: tensors.get_tensor(name) for name in shapes.keys() & tensors.keys()}
    except SafetensorError as error:
        raise UserError(f"{file}: cannot be read ({error}); download it again") from error


def _parameter_shapes() -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight and bias by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    before = 3
    for index, channels in (layer for stage in STAGES for layer in stage):
        weight, bias = _parameter_names(index)
        shapes |= {weight: (channels, before, 3, 3), bias: (channels,)}
        before = channels
    return shapes


def _parameter_names(index: int) -> tuple[str, str]:
    return f"features.{index}.weight", f"features.{index}.bias"
