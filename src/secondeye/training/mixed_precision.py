"""Mixed precision: float32 weights, computation in bfloat16 or float16.

accelerate's own switch is not used: on a CPU it ignores float16 silently, and it is set once for all
trainings of a process.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate.utils import convert_to_fp32
from torch import nn

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class MixedPrecision(nn.Module):
    """A network of float32 weights and outputs whose forward pass runs under autocast."""

    def __init__(self, network: nn.Module, dtype: torch.dtype, device: str) -> None:
        super().__init__()
        self.network, self.dtype, self.device = network, dtype, device

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network under autocast and convert its outputs to float32."""
        with torch.autocast(self.device, self.dtype):
            output = self.network(*args, **kwargs)
        return convert_to_fp32(output)


def frozen_precision(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """Compute frozen modules in `precision` in the block; on the meta device nothing is computed."""
    if precision == "float32" or device.type == "meta":
        return nullcontext()
    return torch.autocast(device.type, _DTYPES[precision])


def in_mixed_precision(network: nn.Module, precision: str, device: str) -> nn.Module:
    """Wrap a network to compute in `precision`; float32 returns the network unchanged."""
    return network if precision == "float32" else MixedPrecision(network, _DTYPES[precision], device)
