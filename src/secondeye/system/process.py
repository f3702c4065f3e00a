"""Processes: they end with their parent, hold a folder alone, and compute with one thread."""

import ctypes
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from secondeye.system.errors import UserError

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies (Linux). DVC killed with -9 leaves no orphan.

    `parent` is the parent's process id as it was when this process was wanted.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel knew
        os._exit(1)


def is_main_process() -> bool:
    """Whether this is the first of the processes that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def best_device() -> str:
    """Where networks compute: cuda where there is a GPU, else cpu."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def lock_dir(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; raises Refusal when another one works in it."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, folder)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"{folder}: another process is working in it; wait for it or end it") from error


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread inside the block, so that sums do not depend on the machine."""
    import cv2
    import torch

    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])


def use_one_thread() -> None:
    """Have this process compute with one thread for good."""
    os.environ["NUMBA_NUM_THREADS"] = "1"  # where numba may take more, it sets torch's number, too
    import cv2
    import numba
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    numba.set_num_threads(1)
