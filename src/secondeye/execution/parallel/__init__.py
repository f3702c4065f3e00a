"""Map a function over items, on the cores of this machine or on a Ray cluster, with equal results.

A crashing worker (native crash, out of memory, kill -9) does not end the run: its item is tried again, and an
item whose worker crashes at every attempt yields `WorkerCrashed`.

    SECONDEYE_WORKERS       number of processes (default: one per core). 1 runs the work in this process, for
                            debuggers and tests; there, an item that kills its process kills the run.
    SECONDEYE_RAY_ADDRESS   auto, HOST:PORT or ray://HOST:PORT: run the tasks on that cluster instead
"""

import os
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

from secondeye.execution.parallel.crash import WorkerCrashed
from secondeye.system.errors import UserError
from secondeye.system.process import count_gpus, one_thread

__all__ = ["WorkerCrashed", "map", "on_cluster", "worker_count"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def map(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int | None = None,  # processes; None: SECONDEYE_WORKERS, or one per core
    threads: int = 1,  # of each process; on a cluster always 1
    on_gpu: bool = False,  # `work` uses a GPU if there is one: each process sees one, in turn
) -> Generator[tuple[int, Result | WorkerCrashed], None, None]:  # position in `items`, result
    """Yield results in the order of completion; each process handles one item at a time.

    `work` and the items must pickle. An exception of `work` is raised here and ends the other workers.
    """
    address = os.environ.get("SECONDEYE_RAY_ADDRESS", "")
    if not items:
        return
    if address:
        from secondeye.execution.parallel.ray import map_on_ray

        yield from map_on_ray(work, items, address, on_gpu)
    elif (workers or _configured_workers()) == 1:
        with one_thread():
            yield from ((position, work(item)) for position, item in enumerate(items))
    else:  # even a single item gets its own process, because it may kill it
        from secondeye.execution.parallel.processes import WorkerSettings, map_on_processes

        count = min(len(items), workers) if workers else worker_count(len(items))
        visible = _visible_gpus() if on_gpu else [""]
        settings = [WorkerSettings(threads, visible[k % len(visible)]) for k in range(count)]
        yield from map_on_processes(work, items, settings)


def on_cluster() -> bool:
    """Return whether `map` runs its work on a Ray cluster."""
    return bool(os.environ.get("SECONDEYE_RAY_ADDRESS"))


def worker_count(items: int) -> int:
    """Return the number of processes for this many items: SECONDEYE_WORKERS or the number of cores."""
    return max(1, min(items, _configured_workers() or os.cpu_count() or 1))


def _visible_gpus() -> list[str]:
    """Return the value of CUDA_VISIBLE_DEVICES for each GPU; only "" where there is nothing to choose."""
    gpus = count_gpus()
    if gpus < 2:
        return [""]
    numbers = ",".join(str(number) for number in range(gpus))
    return (os.environ.get("CUDA_VISIBLE_DEVICES") or numbers).split(",")[:gpus]


def _configured_workers() -> int:
    """Return SECONDEYE_WORKERS, or 0 if it is not set. Raises UserError if it is not a number."""
    value = os.environ.get("SECONDEYE_WORKERS") or "0"
    if not value.isdecimal():
        raise UserError(f"SECONDEYE_WORKERS must be a number of processes, got {value!r}")
    return int(value)
