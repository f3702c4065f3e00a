"""Which of a kernel's backends runs, by name or by where the arrays lie; what Triton's are compiled with."""

import os
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

from torch import Tensor


class Configuration(NamedTuple):
    """A kernel as the launcher compiles it, complete enough for a compiler on a machine without a GPU."""

    kernel: Any
    types: dict[str, str]  # of the arguments that are not constants, as Triton writes them
    constants: dict[str, Any]
    options: dict[str, Any]  # of the compiler


def configuration_of(
    kernel: Any,  # of Triton
    types: dict[str, str],  # of any kernel's arguments
    constants: dict[str, Any],  # of any kernel's
    options: dict[str, Any],
) -> Configuration:
    """The kernel with those of the types and constants that its arguments name (ours)."""
    names = kernel.arg_names
    return Configuration(
        kernel,
        {name: types[name] for name in names if name in types},
        {name: constants[name] for name in names if name in constants},
        options,
    )


def choose_backend(
    asked: str,  # auto, or one of `offered`
    offered: Sequence[str],  # reference, cpu, and those of Triton, which begin with its name
    frames: Tensor,
    disparity: Tensor,
) -> str:  # one of `offered`
    """`auto` is cpu for arrays on the CPU, triton for arrays on a GPU, and reference there without Triton.

    Raises ValueError where the arrays lie apart, for a name that is not offered, and for a backend that can
    not take arrays from where they are.
    """
    if frames.device != disparity.device:
        raise ValueError(f"frames are on {frames.device}, but disparity is on {disparity.device}")
    if asked not in ("auto", *offered):
        raise ValueError(f"backend must be auto, {', '.join(offered)}, got {asked!r}")
    on_cpu = frames.device.type == "cpu"
    if asked == "auto":
        if on_cpu:
            return "cpu"
        return "triton" if frames.device.type == "cuda" and has_triton() else "reference"
    if asked == "cpu" and not on_cpu:
        raise ValueError(f"backend cpu takes arrays on the CPU, but these are on {frames.device}")
    if asked.startswith("triton") and not has_triton():
        raise ValueError(f"backend {asked} needs Triton, which is not installed (pip install triton)")
    if asked.startswith("triton") and on_cpu and not _interprets():
        raise ValueError(f"backend {asked} takes arrays on a GPU, but these are on the CPU")
    return asked


@cache
def has_triton() -> bool:
    """Whether Triton is installed."""
    return find_spec("triton") is not None


def _interprets() -> bool:
    """Whether Triton runs kernels on the CPU, to try them. It asks the same when a kernel is imported."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on")
