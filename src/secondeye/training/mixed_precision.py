"""Computing in a shorter float than the weights are kept in.

Not by accelerate's own switch: on a CPU that ignores float16 without a word, and it is set once for all
trainings of a process.
"""

from typing import Any

import torch
from accelerate.utils import convert_to_fp32
from torch import nn

_KINDS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class MixedPrecision(nn.Module):
    """A network of float32 weights and answers; what is safe to is computed in a shorter float."""

    def __init__(self, network: nn.Module, kind: torch.dtype, device: str) -> None:
        super().__init__()
        self.network, self.kind, self.device = network, kind, device

    def forward(self, *given: Any, **named: Any) -> Any:
        with torch.autocast(self.device, self.kind):
            answer = self.network(*given, **named)
        return convert_to_fp32(answer)


def in_mixed_precision(network: nn.Module, precision: str, device: str) -> nn.Module:
    """The network itself for float32, or around it what computes in `precision`."""
    return network if precision == "float32" else MixedPrecision(network, _KINDS[precision], device)
