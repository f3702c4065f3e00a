import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import wait_until_dead

from secondeye.process import alone_in, spread, worker_count
from secondeye.refusal import Refusal


def double(item: int) -> tuple[int, int]:
    import torch

    return 2 * item, torch.get_num_threads()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_spread_gives_every_result_with_one_thread_each(
    monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    monkeypatch.setenv("SECONDEYE_WORKERS", workers)
    assert sorted(spread(double, [5, 6, 7])) == [(0, (10, 1)), (1, (12, 1)), (2, (14, 1))]


def test_workers_are_never_more_than_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECONDEYE_WORKERS", "8")
    assert [worker_count(n) for n in (0, 1, 3, 20)] == [1, 1, 3, 8]


def test_folder_is_held_by_one(tmp_path: Path) -> None:
    with (
        alone_in(tmp_path / "out"),
        pytest.raises(Refusal, match="another process"),
        alone_in(tmp_path / "out"),
    ):
        pass
    with alone_in(tmp_path / "out"):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_child_dies_with_its_parent(tmp_path: Path) -> None:
    child = (
        "import os, secondeye.process as p, time; p.die_with_parent(os.getppid()); "
        "print('up', flush=True); time.sleep(60)"
    )
    parent = (
        f"import subprocess, sys, time; c = subprocess.Popen([sys.executable, '-c', {child!r}]); "
        "print(c.pid, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = {process.stdout.readline().strip() for _ in range(2)}
    (pid,) = (int(line) for line in told if line != "up")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the child lives on"
        time.sleep(0.02)


def hang(marker: str) -> None:
    Path(marker).write_text(str(psutil.Process().pid))
    time.sleep(60)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_pool_dies_with_its_parent_from_the_first_moment(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_process import hang\nfrom secondeye.process import spread\n"
        "if __name__ == '__main__':\n"
        "    print('up', flush=True)\n    list(spread(hang, sys.argv[2:]))\n"
    )
    (tmp_path / "pool.py").write_text(script)
    markers = [str(tmp_path / name) for name in "ab"]
    for seconds in (0.0, 0.3, 1.0):
        command = [sys.executable, str(tmp_path / "pool.py"), str(Path(__file__).parent), *markers]
        environment = os.environ | {"SECONDEYE_WORKERS": "2"}
        parent = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert parent.stdout is not None and parent.stdout.readline() == b"up\n"
        time.sleep(seconds)
        family = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
        parent.wait()
        parent.stdout.close()
        alive = wait_until_dead(family, 8)
        assert not alive, f"{seconds} s: {alive}"
