import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numba
import psutil
import pytest
import torch

from secondeye.system.errors import UserError
from secondeye.system.process import lock_dir, one_thread


def test_lock_dir_excludes_a_second_holder(tmp_path: Path) -> None:
    with (
        lock_dir(tmp_path / "out"),
        pytest.raises(UserError, match="another process"),
        lock_dir(tmp_path / "out"),
    ):
        pass
    with lock_dir(tmp_path / "out"):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal exists only on Linux")
def test_child_exits_when_its_parent_is_killed(tmp_path: Path) -> None:
    child = (
        "import os, secondeye.system.process as p, time; p.die_with_parent(os.getppid()); "
        "print('up', flush=True); time.sleep(60)"
    )
    parent = (
        f"import subprocess, sys, time; c = subprocess.Popen([sys.executable, '-c', {child!r}]); "
        "print(c.pid, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = {process.stdout.readline().strip() for _ in range(2)}
    (pid,) = (int(line) for line in lines if line != "up")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the child is still running"
        time.sleep(0.02)


def test_one_thread_limits_every_library_and_restores_it() -> None:
    def counts() -> tuple[int, int, int]:
        return cv2.getNumThreads(), torch.get_num_threads(), numba.get_num_threads()

    before = counts()
    with one_thread():
        assert counts() == (1, 1, 1)
    assert counts() == before
