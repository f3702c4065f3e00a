"""Work spread over the cores of this machine, or over a Ray cluster. Results never depend on where it ran.

A worker that dies (a crash in native code, no memory left, kill -9) takes no run with it: whoever was at work
beside it is run again, and an item whose worker dies each time comes back as `Died`.

    SECONDEYE_WORKERS       how many processes (default: one a core). 1 is this very process, for debuggers
                            and tests: there, an item that kills its process kills the run.
    SECONDEYE_RAY_ADDRESS   auto, HOST:PORT or ray://HOST:PORT: the tasks go to that cluster instead
"""

import os
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

from secondeye.execution.parallel.crash import WorkerCrashed
from secondeye.system.errors import UserError
from secondeye.system.process import one_thread

__all__ = ["WorkerCrashed", "map", "worker_count"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def map(
    work: Callable[[Item], Result], items: Sequence[Item]
) -> Generator[tuple[int, Result | WorkerCrashed], None, None]:  # position in `items`, what became of it
    """Yield results as they come; one item a process, one thread a process.

    `work` and the items must pickle. An exception of `work` is raised here and ends the others.
    """
    address = os.environ.get("SECONDEYE_RAY_ADDRESS", "")
    if not items:
        return
    if address:
        from secondeye.execution.parallel.ray import map_on_ray

        yield from map_on_ray(work, items, address)
    elif _wanted() == 1:
        with one_thread():
            yield from ((position, work(item)) for position, item in enumerate(items))
    else:  # a single item, too, has a process of its own: the one that kills it is the one that is left
        from secondeye.execution.parallel.processes import map_on_processes

        yield from map_on_processes(work, items, worker_count(len(items)))


def worker_count(items: int) -> int:
    """Processes to use for this many items: the cores, or SECONDEYE_WORKERS. Raises Refusal."""
    return max(1, min(items, _wanted() or os.cpu_count() or 1))


def _wanted() -> int:
    """SECONDEYE_WORKERS; 0 where it is not set."""
    told = os.environ.get("SECONDEYE_WORKERS") or "0"
    if not told.isdecimal():
        raise UserError(f"SECONDEYE_WORKERS must be a number of processes, got {told!r}")
    return int(told)
