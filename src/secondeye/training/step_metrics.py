"""Logged metrics of a training: means over a few steps, speed and memory."""

import math
import time
from collections.abc import Mapping
from typing import NamedTuple

import psutil
import torch
from torch import Tensor

from secondeye.system.process import best_device


class RunningMeans(NamedTuple):
    """Sums and counts of metrics over a few steps; NaN values are left out."""

    sums: dict[str, float]
    counts: dict[str, int]
    samples: int
    start_s: float

    def with_step(self, metrics: Mapping[str, float], samples: int) -> "RunningMeans":
        """Return the means with one more step."""
        valid = {name: value for name, value in metrics.items() if not math.isnan(value)}
        sums = self.sums | {name: self.sums.get(name, 0.0) + value for name, value in valid.items()}
        counts = self.counts | {name: self.counts.get(name, 0) + 1 for name in valid}
        return RunningMeans(sums, counts, self.samples + samples, self.start_s)

    def compute(self, prefix: str, **others: float) -> dict[str, float]:
        """Return everything to log: means, `others`, and run_folder.MACHINE_METRICS."""
        metrics = {name: total / self.counts[name] for name, total in self.sums.items()} | others
        metrics["samples_per_second"] = self.samples / max(time.monotonic() - self.start_s, 1e-9)
        metrics["memory_mib"] = _memory_bytes() / 2**20
        return {f"{prefix}/{name}": float(f"{value:.6g}") for name, value in metrics.items()}


def empty_means() -> RunningMeans:
    """Return means over no steps; the clock starts now."""
    return RunningMeans({}, {}, 0, time.monotonic())


def psnr_db(error: Tensor, peak: float) -> float:
    """Compute the PSNR of an error; 100 if it is zero or empty."""
    mean = float((error.double() ** 2).sum()) / max(1, error.numel())
    return -10 * math.log10(max(mean / peak**2, 1e-10))


def _memory_bytes() -> int:
    """Return the peak allocation on the GPU, or the resident memory of the process without one."""
    if best_device() == "cuda":
        return torch.cuda.max_memory_allocated()
    rss: int = psutil.Process().memory_info().rss
    return rss
