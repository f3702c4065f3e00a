"""Measurement of time and peak memory per converted frame."""

import ctypes
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import psutil
import torch

from secondeye.system.files import write_atomic
from secondeye.system.process import best_device

Result = TypeVar("Result")

_SAMPLING_INTERVAL_S = 0.005
_MIB = 2**20


class Cost(NamedTuple):
    """Cost of one frame."""

    seconds: float
    peak_mib: float  # peak memory beyond what was in use before; GPU memory if CUDA is available


def measure_cost(function: Callable[[], Result], frames: int) -> tuple[Result, Cost]:
    """Call `function` and return its result with the time per frame and the peak memory of this process."""
    _trim_heap()
    process, done = psutil.Process(), threading.Event()
    before = process.memory_info().rss
    peak = [before]

    def sample_memory() -> None:
        while not done.wait(_SAMPLING_INTERVAL_S):
            peak[0] = max(peak[0], process.memory_info().rss)

    on_gpu = best_device() == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    sampler = threading.Thread(target=sample_memory)
    sampler.start()
    start = time.perf_counter()
    try:
        result = function()
    finally:
        seconds = time.perf_counter() - start
        done.set()
        sampler.join()
    used = torch.cuda.max_memory_allocated() if on_gpu else peak[0] - before
    return result, Cost(seconds / frames, used / _MIB)


def _trim_heap() -> None:
    """Make glibc return freed memory to the system; reused memory would otherwise not be counted."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def write_cost(path: Path, cost: Cost) -> None:
    """Write a cost as JSON: a file of its own, because it differs from run to run and scores do not."""
    write_atomic(path, json.dumps(cost._asdict()) + "\n")


def read_cost(path: Path) -> Cost:
    """Read a cost written by `write_cost`."""
    return Cost(**json.loads(path.read_text()))
