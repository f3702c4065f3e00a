"""What is logged of a training: means over a few steps, how fast they were made, and in how much memory."""

import math
import time
from collections.abc import Mapping
from typing import NamedTuple

import psutil
import torch


class Means(NamedTuple):
    """Sums over a few steps, and of how many: what is NaN says nothing."""

    sums: dict[str, float]
    counts: dict[str, int]
    samples: int
    since_s: float

    def with_step(self, values: Mapping[str, float], samples: int) -> "Means":
        told = {name: value for name, value in values.items() if not math.isnan(value)}
        sums = self.sums | {name: self.sums.get(name, 0.0) + value for name, value in told.items()}
        counts = self.counts | {name: self.counts.get(name, 0) + 1 for name in told}
        return Means(sums, counts, self.samples + samples, self.since_s)

    def named(self, prefix: str, **others: float) -> dict[str, float]:
        """All to log, others too; the last two are the machine's (`runs.MACHINE_METRICS`)."""
        values = {name: total / self.counts[name] for name, total in self.sums.items()} | others
        values["samples_per_second"] = self.samples / max(time.monotonic() - self.since_s, 1e-9)
        values["memory_mib"] = _memory_bytes() / 2**20
        return {f"{prefix}/{name}": float(f"{value:.6g}") for name, value in values.items()}


def no_means() -> Means:
    return Means({}, {}, 0, time.monotonic())


def _memory_bytes() -> int:
    """The most a GPU has held so far, or what the process holds now where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    held: int = psutil.Process().memory_info().rss
    return held
