"""Map a function over items in processes that crash independently of each other.

The main process starts a coordinator, which imports the libraries once and forks the workers; that takes
milliseconds instead of seconds for each. The main process must not fork, because it may have threads.
"""

import gc
import multiprocessing
import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, TypeVar

from secondeye.execution.parallel.crash import WorkerCrashed, describe_crash
from secondeye.system.errors import UserError
from secondeye.system.process import die_with_parent, use_threads

# macOS's own libraries do not survive a fork: there, every worker imports for itself.
_START_WORKERS = "fork" if sys.platform == "linux" else "spawn"

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerSettings(NamedTuple):
    """What a process may use."""

    threads: int  # the same for all
    gpu: str  # for CUDA_VISIBLE_DEVICES; "" leaves all GPUs visible


@dataclass(frozen=True)
class _Raised:
    """What `work` raised instead of returning a result."""

    error: BaseException


def map_on_processes(
    work: Callable[[Item], Result], items: Sequence[Item], workers: Sequence[WorkerSettings]
) -> Generator[tuple[int, Result | WorkerCrashed], None, None]:
    """Yield (position, result) in the order of completion, from one process for each of `workers`.

    An item whose process crashes is tried once more, after all others and alone: memory used by the others
    may have caused the crash. Closing the generator kills the processes.
    """
    spawn = multiprocessing.get_context("spawn")
    connection, other_end = spawn.Pipe()
    coordinator = spawn.Process(target=_coordinate, args=(other_end, os.getpid(), workers))
    coordinator.start()
    other_end.close()
    try:
        with suppress(BrokenPipeError):  # it has died: the first result says so
            connection.send((work, items))
        for _ in items:
            position, result = _receive(connection)
            if position is None:
                coordinator.join()
                raise UserError(
                    f"the process that starts the workers ended with exit code {coordinator.exitcode}; "
                    "run the same command again to continue"
                )
            if isinstance(result, _Raised):
                raise result.error
            yield position, result
    finally:
        connection.close()  # tells the coordinator to stop
        coordinator.join()


def _receive(connection: Connection) -> tuple[int | None, Any]:
    """Return a position and its result; (None, None) if the process at the other end has died."""
    try:
        position, result = connection.recv()
    except (EOFError, OSError):
        return None, None
    return position, result


def _coordinate(connection: Connection, parent: int, workers: Sequence[WorkerSettings]) -> None:
    """Run the coordinator: it has one thread, because it forks."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process handles Ctrl-C
    os.environ["NUMBA_NUM_THREADS"] = str(workers[0].threads)  # Numba reads it when it is imported
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy would start threads when it is imported
    import cv2  # noqa: F401
    import numba  # noqa: F401
    import torch  # noqa: F401

    with suppress(EOFError, BrokenPipeError):  # the main process stops
        work, items = connection.recv()
        # Workers share the items' memory. A garbage collection would write to all of it, and so copy it.
        gc.freeze()
        with closing(_retry(work, items, workers, connection)) as results:
            for result in results:
                connection.send(result)


def _retry(
    work: Callable[[Any], Any], items: Sequence[Any], workers: Sequence[WorkerSettings], main: Connection
) -> Generator[tuple[int, Any], None, None]:
    crashed = []
    for position, result in _attempt(work, items, range(len(items)), workers, main):
        if isinstance(result, WorkerCrashed):
            crashed.append(position)
        else:
            yield position, result
    yield from _attempt(work, items, crashed, workers[:1], main)


def _attempt(
    work: Callable[[Any], Any],
    items: Sequence[Any],
    positions: Sequence[int],
    workers: Sequence[WorkerSettings],
    main: Connection,
) -> Generator[tuple[int, Any], None, None]:
    """Yield a result, WorkerCrashed or _Raised for every position. Raises EOFError if `main` is closed."""
    waiting = deque(positions)
    free = [_Worker(work, items, settings) for settings in workers[: len(positions)]]
    busy: dict[Any, tuple[int, _Worker]] = {}
    try:
        while waiting or busy:
            while waiting and free:
                position, worker = waiting.popleft(), free.pop()
                busy[worker.connection] = position, worker
                worker.send(position)
            for connection in wait([main, *busy]):
                if connection is main:
                    raise EOFError
                position, worker = busy.pop(connection)
                result = worker.receive()
                crashed = isinstance(result, WorkerCrashed)
                free.append(_Worker(work, items, worker.settings) if crashed else worker)
                yield position, result
    finally:
        for _, worker in busy.values():  # the work was abandoned: an exception, or Ctrl-C
            worker.process.kill()
        for worker in free:
            worker.send(None)
        for worker in [*free, *(worker for _, worker in busy.values())]:
            worker.process.join()


class _Worker:
    """A process that handles one item at a time."""

    def __init__(self, work: Callable[[Any], Any], items: Sequence[Any], settings: WorkerSettings) -> None:
        self.settings = settings
        context = multiprocessing.get_context(_START_WORKERS)
        self.connection, other_end = context.Pipe()
        self.process = context.Process(  # type: ignore[attr-defined]
            target=_work_through, args=(other_end, os.getpid(), settings, work, items)
        )
        self.process.start()
        other_end.close()  # or later workers would hold it open, and a crash would go unnoticed

    def send(
        self,
        position: int | None,  # None tells the process to exit
    ) -> None:
        with suppress(BrokenPipeError):  # it has died: `receive` says so
            self.connection.send(position)

    def receive(self) -> Any:
        """Return the result of the current item; blocks until the exit code of a crashed process is known."""
        position, result = _receive(self.connection)
        if position is not None:
            return result
        self.process.join()
        return describe_crash(self.process.exitcode)


def _work_through(
    connection: Connection,
    parent: int,
    settings: WorkerSettings,
    work: Callable[[Any], Any],
    items: Sequence[Any],
) -> None:
    """Run a worker."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if settings.gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = settings.gpu  # read when CUDA is initialised, by the first item
    use_threads(settings.threads)
    while (position := connection.recv()) is not None:
        try:
            connection.send((position, work(items[position])))
        except BaseException as error:  # not handled here: the main process raises it
            error.add_note(traceback.format_exc())
            connection.send((position, _Raised(error)))
