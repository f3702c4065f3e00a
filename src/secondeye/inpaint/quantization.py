"""8-bit weights: a half or a quarter of the memory, computed in the original precision."""

import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

STORAGES = ("plain", "int8", "fp8")
MAX_INT8 = 127
MIN_SCALE = 2**-24  # the smallest that float16 holds


def quantize(network: UNetSpatioTemporalConditionModel, storage: str) -> None:
    """Store a network's large weights in 8 bits, in place; int8 has one scale per output channel."""
    if storage == "fp8":
        network.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=network.dtype)
    elif storage == "int8":
        network.requires_grad_(False)
        for module in list(network.modules()):
            if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
                register_parametrization(module, "weight", Int8(), unsafe=True)


class Int8(nn.Module):
    """Weights as integers in [-127, 127] times a scale for each output channel."""

    def forward(self, integers: Tensor, scale: Tensor) -> Tensor:
        return integers.to(scale.dtype) * scale

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        largest = weight.float().abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)
        scale = (largest / MAX_INT8).clamp_min(MIN_SCALE).to(weight.dtype)
        # If the scale was rounded down, the largest weight exceeds 127; 128 would overflow to -128.
        integers = (weight.float() / scale.float()).round().clamp(-MAX_INT8, MAX_INT8)
        return integers.to(torch.int8), scale
