"""Choose device and backend of `splat` and `warp`, and describe how Triton kernels are compiled."""

import os
from collections.abc import Callable, Sequence
from functools import cache, wraps
from importlib.util import find_spec
from typing import Any, NamedTuple, ParamSpec, TypeVar

from torch import Tensor

from secondeye.system.process import best_device

Arguments = ParamSpec("Arguments")
Planes = TypeVar("Planes", bound=tuple[Tensor, ...])  # Splat or Warp


class Configuration(NamedTuple):
    """Everything a compiler needs to build a Triton kernel, also on a machine without a GPU."""

    kernel: Any
    types: dict[str, str]  # argument name to Triton type, for the arguments that are not constants
    constants: dict[str, Any]
    options: dict[str, Any]  # compiler options


def make_configuration(
    kernel: Any,  # a triton.jit function
    types: dict[str, str],  # may name arguments of other kernels, too
    constants: dict[str, Any],  # may name constants of other kernels, too
    options: dict[str, Any],
) -> Configuration:
    """Return a configuration with the types and constants that the kernel's arguments name."""
    names = kernel.arg_names
    return Configuration(
        kernel,
        {name: types[name] for name in names if name in types},
        {name: constants[name] for name in names if name in constants},
        options,
    )


def choose_backend(
    requested: str,  # auto, or one of `available`
    available: Sequence[str],  # reference, cpu, and Triton backends, whose names start with "triton"
    frames: Tensor,
    disparity: Tensor,
) -> str:  # one of `available`
    """Resolve `auto` by device: cpu for CPU tensors, triton on a GPU, reference there without Triton.

    With TRITON_INTERPRET=1 it is triton for CPU tensors, too: the kernels are interpreted, which is slow and
    proves without a GPU that they are what runs.

    Raises ValueError if the arrays are on different devices, if the name is unknown, and if the backend
    cannot run on their device.
    """
    if frames.device != disparity.device:
        raise ValueError(f"frames are on {frames.device}, but disparity is on {disparity.device}")
    if requested not in ("auto", *available):
        raise ValueError(f"backend must be auto, {', '.join(available)}, got {requested!r}")
    on_cpu = frames.device.type == "cpu"
    if requested == "auto":
        if on_cpu:
            return "triton" if _uses_interpreter() and has_triton() else "cpu"
        return "triton" if frames.device.type == "cuda" and has_triton() else "reference"
    if requested == "cpu" and not on_cpu:
        raise ValueError(f"backend cpu needs arrays on the CPU, but these are on {frames.device}")
    if requested.startswith("triton") and not has_triton():
        raise ValueError(f"backend {requested} needs Triton, which is not installed (pip install triton)")
    if requested.startswith("triton") and on_cpu and not _uses_interpreter():
        raise ValueError(f"backend {requested} needs arrays on a GPU, but these are on the CPU")
    return requested


def on_best_device(operation: Callable[Arguments, Planes]) -> Callable[Arguments, Planes]:
    """Wrap splat or warp for arrays on the CPU: they go to the best device, and the results come back.

    For a single operation; a chain of them moves its arrays once itself.
    """

    @wraps(operation)
    def run(*args: Arguments.args, **options: Arguments.kwargs) -> Planes:
        device = best_device()
        arrays: Any = [array.to(device) if isinstance(array, Tensor) else array for array in args]
        made: Any = operation(*arrays, **options)
        moved: Planes = type(made)(*(plane.cpu() for plane in made))
        return moved

    return run


@cache
def has_triton() -> bool:
    """Return whether Triton is installed."""
    return find_spec("triton") is not None


def _uses_interpreter() -> bool:
    """Return whether Triton interprets kernels on the CPU; the same test as Triton's at kernel import."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on")
