"""Weights of a network in 8 bits: half or a quarter of the memory, computed with as before."""

import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

STORAGES = ("plain", "int8", "fp8")
LARGEST = 127  # whole number of a weight
LEAST_SCALE = 2**-24  # that float16 holds


def store(network: UNetSpatioTemporalConditionModel, storage: str) -> None:
    """Keep a network's large weights in 8 bits, and compute as before: int8 has a scale for each channel."""
    if storage == "fp8":
        network.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=network.dtype)
    elif storage == "int8":
        network.requires_grad_(False)
        for module in list(network.modules()):
            if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
                register_parametrization(module, "weight", Int8(), unsafe=True)


class Int8(nn.Module):
    """Weights as whole numbers in [-127, 127] times a scale for each output channel."""

    def forward(self, whole: Tensor, scale: Tensor) -> Tensor:
        return whole.to(scale.dtype) * scale

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        largest = weight.float().abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)
        scale = (largest / LARGEST).clamp_min(LEAST_SCALE).to(weight.dtype)
        # A scale that was rounded down has the largest weight exceed 127, and 128 would be -128.
        whole = (weight.float() / scale.float()).round().clamp(-LARGEST, LARGEST)
        return whole.to(torch.int8), scale
