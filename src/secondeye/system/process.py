"""Tie processes to their parent, lock folders, and limit threads."""

import ctypes
import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from secondeye.system.errors import UserError

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Make the kernel kill this process when its parent dies (Linux), even if the parent is killed with -9.

    `parent` is the process id of the parent when it started this process.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before prctl took effect
        os._exit(1)


def is_main_process() -> bool:
    """Return whether this is rank 0 under torchrun, or the only process."""
    return os.environ.get("RANK", "0") == "0"


def best_device() -> str:
    """Return "cuda" if a GPU is available, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def count_gpus() -> int:
    """Return the number of GPUs; initialises none."""
    import torch

    return torch.cuda.device_count()


@contextmanager
def lock_dir(folder: Path) -> Iterator[None]:
    """Lock a folder for the duration of the block; create it if missing.

    Raises UserError if another process holds the lock.
    """
    handle = _open_locked(folder)
    try:
        yield
    finally:
        os.close(handle)


def is_dir_locked(folder: Path) -> bool:
    """Return whether a process holds the lock of a folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Wait for an exclusive lock on a file and hold it in the block; create the file if missing."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def hold_shared_lock(path: Path) -> Iterator[None]:
    """Hold a shared lock on a file for the duration of the block; create it if missing."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def wait_for_shared_locks(path: Path) -> None:
    """Block until no process holds a shared lock on a file; return at once if the file is missing."""
    if path.exists():
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)


def _open_locked(folder: Path) -> int:
    """Create, open and lock a folder; again if another process deletes it before it is locked."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        try:
            _lock(handle, folder)
            if folder.is_dir() and os.path.samestat(os.fstat(handle), folder.stat()):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock(handle: int, folder: Path) -> None:
    for pause_s in (0.02, 0.1, None):  # `is_dir_locked` of another process holds it for an instant
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if pause_s is None:
                raise UserError(
                    f"{folder}: another process is working in it; wait until it ends, or stop it"
                ) from error
            time.sleep(pause_s)


def wait_without_spinning() -> None:
    """Let idle threads of torch and numba sleep; call before these are imported.

    By default they spin for a while, which takes the processor from others. Beside other busy processes it
    made the network of the light inpainter ten times as slow (measured on two cores at a load of 8 to 10).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # GNU's OpenMP
    os.environ.setdefault("KMP_BLOCKTIME", "0")  # Intel's and LLVM's OpenMP


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit cv2, torch and this thread's numba to one thread in the block.

    Sums then do not depend on the machine, and stages of a pipeline do not wait for each other's threads.
    Threads that first use torch in the block keep to one thread after it.
    """
    import cv2
    import torch

    numba = sys.modules.get("numba")  # importing it takes longer than most work that is limited here
    before = cv2.getNumThreads(), torch.get_num_threads(), numba.get_num_threads() if numba else 0
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    if numba:
        numba.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])
        if numba:
            numba.set_num_threads(before[2])


def use_threads(count: int) -> None:
    """Limit cv2, torch and numba to `count` threads each for the lifetime of this process."""
    os.environ["NUMBA_NUM_THREADS"] = str(count)  # numba would otherwise raise the thread count of torch, too
    import cv2
    import numba
    import torch

    cv2.setNumThreads(count)
    torch.set_num_threads(count)
    numba.set_num_threads(count)
