"""Draw the samples of a training ahead of time, on worker processes.

Sample number n of a training, n = step * batch_size + place in the batch, is drawn with a generator seeded by
(seed, n). It depends on nothing else, so ranks and workers together draw the same samples whatever their
number, and a killed training continues with the samples that it would have drawn.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import parent_process
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from secondeye.params import Optimizer
from secondeye.system.errors import UserError
from secondeye.system.process import best_device, die_with_parent, one_thread, use_threads

MAX_WORKERS = 8  # of a rank with a GPU
PREFETCHED = 2  # micro-batches that a worker draws ahead

Sample = tuple[Tensor, ...]
# number of the sample and its generator -> one sample; depends on these alone, and pickles if workers draw it
Draw = Callable[[int, np.random.Generator], Sample]


@dataclass(frozen=True)
class SampleShare:
    """The samples that one rank draws."""

    batch_size: int  # over all ranks
    micro_batches: int  # of a batch, over all ranks
    rank: int
    ranks: int

    def micro_batch_indices(self) -> range:
        """Return the indices of this rank's micro-batches in a batch, in order."""
        return range(self.rank, self.micro_batches, self.ranks)

    def numbers(self, step: int, index: int) -> range:
        """Return the numbers of the samples of a micro-batch: every nth of the batch, for n of them."""
        first = step * self.batch_size
        return range(first + index, first + self.batch_size, self.micro_batches)


def sample_rng(seed: int, number: int) -> np.random.Generator:
    """Return the generator of one sample, its only source of randomness."""
    return np.random.default_rng([seed, number])


def load_micro_batches(
    draw: Draw,
    hyperparams: Optimizer,
    share: SampleShare,
    first_step: int,
    workers: int | None = None,  # default: `worker_count`
) -> Iterator[Sample]:
    """Yield a rank's micro-batches from a step on: samples stacked along a new first axis, on the CPU.

    Raises UserError if a sample cannot be drawn, or a worker is killed.
    """
    steps = range(first_step, hyperparams.steps)
    keys = ((step, index) for step in steps for index in share.micro_batch_indices())
    workers = worker_count() if workers is None else workers
    loader = DataLoader(
        _MicroBatches(draw, hyperparams.seed, share),
        batch_size=None,
        sampler=keys,
        num_workers=workers,
        worker_init_fn=_init_worker if workers else None,
        multiprocessing_context="spawn" if workers else None,  # numba's threads do not survive a fork
        prefetch_factor=PREFETCHED if workers else None,
        pin_memory=best_device() == "cuda",
        generator=torch.Generator(),  # or it would draw from the training's own
    )
    drawn = iter(loader)
    for _ in steps:
        for _ in share.micro_batch_indices():
            yield _next(drawn, workers)


def _next(drawn: Iterator[Any], workers: int) -> Sample:
    try:
        found = next(drawn)
    except RuntimeError as error:
        if "exited unexpectedly" not in str(error):
            raise
        raise UserError(
            "a process that draws samples was killed, probably for lack of memory; start again with fewer: "
            f"SECONDEYE_LOADER_WORKERS={max(1, workers // 2)}"
        ) from error
    if isinstance(found, UserError):
        raise found
    return cast(Sample, found)


def worker_count() -> int:
    """Return the number of processes that draw the samples of a rank; 0: it draws them itself.

    SECONDEYE_LOADER_WORKERS, or else a rank's share of the cores but one, at most MAX_WORKERS. On a CPU it is
    0: the training itself uses all cores. Raises UserError if the variable is not a number.
    """
    value = os.environ.get("SECONDEYE_LOADER_WORKERS") or ""
    if value and not value.isdecimal():
        raise UserError(f"SECONDEYE_LOADER_WORKERS must be a number of processes, got {value!r}")
    if value:
        return int(value)
    if best_device() == "cpu":
        return 0
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(MAX_WORKERS, (os.cpu_count() or 1) // ranks - 1))


@dataclass(frozen=True)
class _MicroBatches(Dataset[Sample | UserError]):
    """A rank's micro-batches by (step, index). An error is returned: DataLoader would reword it."""

    draw: Draw
    seed: int
    share: SampleShare

    def __getitem__(self, key: tuple[int, int]) -> Sample | UserError:
        try:
            with one_thread():  # as a worker
                numbers = self.share.numbers(*key)
                samples = [self.draw(number, sample_rng(self.seed, number)) for number in numbers]
        except UserError as error:
            return error
        return tuple(torch.stack(column) for column in zip(*samples, strict=True))


def _init_worker(_: int) -> None:
    parent = parent_process()
    assert parent and parent.pid
    die_with_parent(parent.pid)  # by itself, it would first draw the samples that it was asked for
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # samples are drawn on the CPU, also those of this rank itself
    use_threads(1)
