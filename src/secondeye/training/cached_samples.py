"""Cache of samples that are made once and reused, because frozen networks take most of the time.

A sample is a function of its index, so it does not matter which process makes it, or whether it was made
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
    folder: Path,  # created if missing
    count: int,  # samples in the cache
    seed: int,  # of the cache
    # the sample's index in the cache, and a generator -> a sample; a function of these and torch's seed
    make: Callable[[int, np.random.Generator], tuple[Tensor, ...]],
    rng: np.random.Generator,  # draws which sample is returned
) -> tuple[Tensor, ...]:
    """Return a random sample of the cache, making it first if its file is missing or damaged.

    Reseeds torch only when the sample is made. Raises UserError if it cannot be written.
    """
    index = int(rng.integers(count))
    path = folder / f"{index:08d}.safetensors"
    try:
        tensors = load_file(path)
    except (FileNotFoundError, SafetensorError):
        tensors = _make_sample(seed, index, make)
        _write_sample(path, tensors)
    return tuple(tensors[str(position)] for position in range(len(tensors)))


def _make_sample(
    seed: int, index: int, make: Callable[[int, np.random.Generator], tuple[Tensor, ...]]
) -> dict[str, Tensor]:
    sequence = np.random.SeedSequence(seed, spawn_key=(index, 1))  # the training loop uses no such key
    torch.manual_seed(int(sequence.generate_state(1)[0]))
    sample = make(index, np.random.default_rng(sequence))
    return {str(position): tensor.cpu().contiguous() for position, tensor in enumerate(sample)}


def _write_sample(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a sample under a temporary name with the rank in it: another process may write the same one."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f".{path.stem}.{os.environ.get('RANK', '0')}.part")
    write_tensors(part, tensors, path)
    os.replace(part, path)
