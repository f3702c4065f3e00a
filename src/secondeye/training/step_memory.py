"""The memory of a training step, counted on the meta device: the real networks and losses, nothing allocated.

Every tensor that an operation makes is counted from then on until nothing refers to it any more. What is
computed in which precision follows autocast on a GPU, and attention is torch's fused kernel, which stores no
matrix of weights. Not counted are the workspaces of cuDNN and the fragmentation of the allocator.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.checkpoint import checkpoint

from secondeye.inpaint.gradient_checkpoints import enable_gradient_checkpoints

# As torch's documentation lists autocast's operations on CUDA, as far as these networks have them.
_LOWER_PRECISION = (F.linear, F.conv1d, F.conv2d, F.conv3d, torch.matmul, torch.bmm, torch.baddbmm)
_FLOAT32 = (F.layer_norm, F.group_norm, F.softmax, torch.softmax, torch.exp, torch.pow, torch.sum, F.mse_loss)


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of the tensors that are made in it, now and at their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak_bytes = 0
        self._storages: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._storages:
            self._storages[key] = storage.nbytes()
            self.bytes += storage.nbytes()
            self.peak_bytes = max(self.peak_bytes, self.bytes)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.bytes -= self._storages.pop(key)


class AsAutocast(TorchFunctionMode):
    """Gives operations the types that autocast gives them on a GPU, on any device."""

    def __init__(self, precision: torch.dtype) -> None:
        super().__init__()
        self.precision = precision

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = args, kwargs or {}
        if function in _LOWER_PRECISION:
            given = _cast(given, self.precision)
        elif function in _FLOAT32:
            given = _cast(given, torch.float32)
        return function(*given[0], **given[1])


class _InPrecision(nn.Module):
    """A network as `mixed_precision` runs it on a GPU, recomputation of checkpoints included."""

    def __init__(self, network: nn.Module, precision: str) -> None:
        super().__init__()
        self.network, self.precision = network, getattr(torch, precision)
        if getattr(network, "is_gradient_checkpointing", False):
            again = partial(checkpoint, use_reentrant=False, context_fn=lambda: (nullcontext(), self._mode()))
            enable_gradient_checkpoints(network, again)

    def _mode(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.precision == torch.float32 else AsAutocast(self.precision)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with self._mode():
            output = self.network(*args, **kwargs)
        return _cast(output, torch.float32)


def _cast(values: Any, dtype: torch.dtype) -> Any:
    return tree_map(lambda value: value.to(dtype) if _is_float(value) else value, values)


def _is_float(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Compute attention by a kernel that stores no matrix, which the meta device would not choose itself."""

    def attend(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
        out: Tensor = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value)[0]
        return out

    before = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = attend
    try:
        yield
    finally:
        F.scaled_dot_product_attention = before


def step_bytes(
    loss: Callable[[nn.Module], Tensor],  # network -> scalar; all its tensors are on the meta device
    network: nn.Module,  # on the meta device
    precision: str,  # of mixed precision: float32, bfloat16 or float16
) -> int:
    """Return the peak of what a forward and a backward pass hold besides weights and their gradients."""
    live = LiveTensors()
    with live, _fused_attention():
        torch.autograd.backward(loss(_InPrecision(network, precision)))
        return live.peak_bytes
