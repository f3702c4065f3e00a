"""What making a right eye costs: time and memory."""

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

Result = TypeVar("Result")

_EVERY_S = 0.005  # the process is looked at
_MIB = 2**20


class Cost(NamedTuple):
    """Of one frame."""

    seconds: float
    peak_mib: float  # the most that was held at once beyond what was held before; on a GPU where one is used


def measure_cost(make: Callable[[], Result], frames: int) -> tuple[Result, Cost]:
    """What `make` returns, and what it cost: seconds a frame, and memory as this process saw it."""
    _give_back()
    process, done = psutil.Process(), threading.Event()
    before = process.memory_info().rss
    most = [before]

    def watch() -> None:
        while not done.wait(_EVERY_S):
            most[0] = max(most[0], process.memory_info().rss)

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    try:
        made = make()
    finally:
        seconds = time.perf_counter() - start
        done.set()
        watcher.join()
    held = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else most[0] - before
    return made, Cost(seconds / frames, held / _MIB)


def _give_back() -> None:
    """Have glibc return what was freed, else memory that is used again would look as if it cost nothing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def write_cost(path: Path, cost: Cost) -> None:
    """Keep a cost beside the scores: it differs from run to run, scores do not."""
    write_atomic(path, json.dumps(cost._asdict()) + "\n")


def read_cost(path: Path) -> Cost:
    """Read it back."""
    return Cost(**json.loads(path.read_text()))
