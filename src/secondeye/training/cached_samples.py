"""Samples that are made once and met again and again: where frozen networks take longer than what learns.

A sample is a function of its number, so it does not matter which process makes it, or whether it was there
before a training was killed.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from secondeye.training.checkpoints import write_tensors


def draw_cached(
    folder: Path,  # made where it is not there
    count: int,  # of samples there are to be
    seed: int,  # of them all
    make: Callable[[np.random.Generator], tuple[Tensor, ...]],  # must depend on it, and torch's seed, alone
    rng: np.random.Generator,  # draws one of them
) -> tuple[Tensor, ...]:
    """One of so many samples, made if it is not in the folder or broken; leaves torch seeded anyhow.

    Raises Refusal where it can not be written.
    """
    number = int(rng.integers(count))
    path = folder / f"{number:08d}.safetensors"
    try:
        kept = load_file(path)
    except (FileNotFoundError, SafetensorError):
        kept = _make(seed, number, make)
        _write(path, kept)
    return tuple(kept[str(place)] for place in range(len(kept)))


def _make(
    seed: int, number: int, make: Callable[[np.random.Generator], tuple[Tensor, ...]]
) -> dict[str, Tensor]:
    own = np.random.SeedSequence(seed, spawn_key=(number, 1))  # no other draws of a training have such a key
    torch.manual_seed(int(own.generate_state(1)[0]))
    sample = make(np.random.default_rng(own))
    return {str(place): plane.cpu().contiguous() for place, plane in enumerate(sample)}


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    """Under a name of this process first: another may just make the same one."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f".{path.stem}.{os.environ.get('RANK', '0')}.part")
    write_tensors(part, tensors, path)
    os.replace(part, path)
