"""Map a function over items in processes that crash independently of each other."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import NamedTuple, TypeVar

from secondeye.execution.parallel.crash import WorkerCrashed, describe_crash
from secondeye.system.process import die_with_parent, use_threads

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerSettings(NamedTuple):
    """What a process may use."""

    threads: int
    gpu: str  # for CUDA_VISIBLE_DEVICES; "" leaves all GPUs visible


class _Worker:
    """One process. A pool of several processes does not tell which one crashed, and breaks as a whole."""

    def __init__(self, settings: WorkerSettings) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.settings = settings
        self._pool = ProcessPoolExecutor(1, spawn, _init_worker, (os.getpid(), settings))
        self._process: BaseProcess | None = None

    def submit(self, work: Callable[[Item], Result], item: Item) -> Future[Result]:
        others = set(multiprocessing.active_children())
        future = self._pool.submit(work, item)
        if self._process is None:  # the pool starts its process with the first item
            (self._process,) = set(multiprocessing.active_children()) - others
        return future

    def exit_code(self) -> int | None:
        """Return the exit code of the crashed process; blocks until it is known."""
        self._pool.shutdown()
        return self._process.exitcode if self._process else None

    def kill(self) -> None:
        """Kill the process; its item stays unfinished."""
        if self._process:
            self._process.kill()

    def shut_down(self) -> None:
        """Tell the process to exit after its current item; does not block."""
        self._pool.shutdown(wait=False)

    def wait(self) -> None:
        """Block until the process has exited."""
        if self._process:
            self._process.join()


def map_on_processes(
    work: Callable[[Item], Result], items: Sequence[Item], workers: Sequence[WorkerSettings]
) -> Generator[tuple[int, Result | WorkerCrashed], None, None]:
    """Yield (position, result) in the order of completion, from one process for each of `workers`.

    An item whose process crashes is tried once more, after all others and alone: memory used by the others
    may have caused the crash.
    """
    retry = []
    for position, result in _attempt(work, items, range(len(items)), workers):
        if isinstance(result, WorkerCrashed):
            retry.append(position)
        else:
            yield position, result
    yield from _attempt(work, items, retry, workers[:1])


def _attempt(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    positions: Sequence[int],
    workers: Sequence[WorkerSettings],
) -> Generator[tuple[int, Result | WorkerCrashed], None, None]:
    waiting = deque(positions)
    free = [_Worker(settings) for settings in workers[: len(positions)]]
    busy: dict[Future[Result], tuple[int, _Worker]] = {}
    try:
        while waiting or busy:
            while waiting and free:
                position, worker = waiting.popleft(), free.pop()
                busy[worker.submit(work, items[position])] = position, worker
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                position, worker = busy[future]
                result = _fetch_result(future, worker)
                del busy[future]
                free.append(_Worker(worker.settings) if isinstance(result, WorkerCrashed) else worker)
                yield position, result
    finally:
        for _, worker in busy.values():  # the work was abandoned: an exception, or Ctrl-C
            worker.kill()
        workers_left = [*free, *(worker for _, worker in busy.values())]
        for worker in workers_left:  # all before waiting, so that they exit in parallel
            worker.shut_down()
        for worker in workers_left:
            worker.wait()


def _fetch_result(future: Future[Result], worker: _Worker) -> Result | WorkerCrashed:
    try:
        return future.result()
    except BrokenProcessPool:
        return describe_crash(worker.exit_code())


def _init_worker(parent: int, settings: WorkerSettings) -> None:
    die_with_parent(parent)
    if settings.gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = settings.gpu  # read when CUDA is initialised, by the first item
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    use_threads(settings.threads)
