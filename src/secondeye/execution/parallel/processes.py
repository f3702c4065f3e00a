"""Work spread over the cores of this machine: processes of which each can die without the others."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import TypeVar

from secondeye.execution.parallel.crash import WorkerCrashed, describe_crash
from secondeye.system.process import die_with_parent, use_one_thread

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Worker:
    """One process. A pool of several would not say which of them died, and ends them all."""

    def __init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, spawn, _begin_worker, (os.getpid(),))
        self._process: BaseProcess | None = None

    def submit(self, work: Callable[[Item], Result], item: Item) -> Future[Result]:
        others = set(multiprocessing.active_children())
        future = self._pool.submit(work, item)
        if self._process is None:  # the pool makes it for its first item
            (self._process,) = set(multiprocessing.active_children()) - others
        return future

    def exit_code(self) -> int | None:
        """Of a process that died; waits until that is known."""
        self._pool.shutdown()
        return self._process.exitcode if self._process else None

    def dismiss(self) -> None:
        """Have it end when it has finished what it is at."""
        self._pool.shutdown(wait=False)

    def wait(self) -> None:
        """Until a dismissed one has ended."""
        if self._process:
            self._process.join()


def map_on_processes(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Generator[tuple[int, Result | WorkerCrashed], None, None]:
    """Yield (position, result) as results come, from `workers` processes.

    An item whose process dies gets a second attempt, after all others and with nothing beside it: it may
    have died of what the others took of the memory.
    """
    again = []
    for position, result in _attempt(work, items, range(len(items)), workers):
        if isinstance(result, WorkerCrashed):
            again.append(position)
        else:
            yield position, result
    yield from _attempt(work, items, again, 1)


def _attempt(
    work: Callable[[Item], Result], items: Sequence[Item], positions: Sequence[int], workers: int
) -> Generator[tuple[int, Result | WorkerCrashed], None, None]:
    waiting = deque(positions)
    free = [_Worker() for _ in range(min(workers, len(positions)))]
    busy: dict[Future[Result], tuple[int, _Worker]] = {}
    try:
        while waiting or busy:
            while waiting and free:
                position, worker = waiting.popleft(), free.pop()
                busy[worker.submit(work, items[position])] = position, worker
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                position, worker = busy[future]
                result = _result_of(future, worker)
                del busy[future]
                free.append(_Worker() if isinstance(result, WorkerCrashed) else worker)
                yield position, result
    finally:
        hired = [*free, *(worker for _, worker in busy.values())]
        for worker in hired:  # all of them first: it takes each a while
            worker.dismiss()
        for worker in hired:
            worker.wait()


def _result_of(future: Future[Result], worker: _Worker) -> Result | WorkerCrashed:
    try:
        return future.result()
    except BrokenProcessPool:
        return describe_crash(worker.exit_code())


def _begin_worker(parent: int) -> None:
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    use_one_thread()
