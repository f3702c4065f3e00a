"""Parallel map: results, crashed workers, and the life of worker processes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import wait_until_dead
from parallel_items import count_or_kill, crash_or_return

from secondeye.execution import parallel
from secondeye.execution.parallel import WorkerCrashed, worker_count
from secondeye.system.errors import UserError


def test_map_in_this_process_uses_one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECONDEYE_WORKERS", "1")
    results = list(parallel.map(crash_or_return, [("a", tmp_path), ("b", tmp_path)]))
    assert results == [(0, ("a", 1)), (1, ("b", 1))]


def test_workers_share_threads_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "count_gpus", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    given = parallel.map(threads_and_gpu, ["a", "b"], workers=2, threads=2, on_gpu=True)
    assert sorted(result for _, result in given) == [(2, "5"), (2, "7")]


def threads_and_gpu(item: str) -> tuple[int, str]:
    import torch

    time.sleep(1)  # so that one worker does not take both
    return torch.get_num_threads(), os.environ["CUDA_VISIBLE_DEVICES"]


def test_worker_count_is_limited_by_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECONDEYE_WORKERS", "8")
    assert [worker_count(n) for n in (0, 1, 3, 20)] == [1, 1, 3, 8]
    monkeypatch.setenv("SECONDEYE_WORKERS", "many")
    with pytest.raises(UserError, match="SECONDEYE_WORKERS must be a number of processes, got 'many'"):
        worker_count(3)


def test_item_that_kills_its_worker_is_reported_and_others_finish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECONDEYE_WORKERS", "2")
    names = ["a", "kill", "once", "b"]
    results = dict(parallel.map(crash_or_return, [(name, tmp_path) for name in names]))
    crashed = WorkerCrashed("its process was killed by SIGKILL (out of memory?) in 2 of 2 attempts")
    assert results == {0: ("a", 1), 1: crashed, 2: ("once", 1), 3: ("b", 1)}
    attempts = {name: len((tmp_path / name).read_text()) for name in names}
    assert attempts == {"a": 1, "kill": 2, "once": 2, "b": 1}


def test_single_item_runs_in_a_worker_and_its_exception_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SECONDEYE_WORKERS", raising=False)
    with pytest.raises(ValueError, match="this is wrong, says") as caught:
        list(parallel.map(crash_or_return, [("wrong", tmp_path)]))
    assert str(os.getpid()) not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and only Linux forks")
def test_process_that_forks_workers_has_one_thread_and_its_death_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECONDEYE_WORKERS", "2")
    results = parallel.map(count_or_kill, [tmp_path / "killer", tmp_path / "other"])
    assert next(results) == (1, [1, 1])
    (tmp_path / "killer").touch()
    with pytest.raises(UserError, match="ended with exit code -9; run the same command again to continue"):
        next(results)


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal exists only on Linux")
def test_workers_exit_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from parallel_items import hang\nfrom secondeye.execution import parallel\n"
        "if __name__ == '__main__':\n"
        "    print('up', flush=True)\n    list(parallel.map(hang, sys.argv[2:]))\n"
    )
    (tmp_path / "pool.py").write_text(script)
    markers = [str(tmp_path / name) for name in "ab"]
    for seconds in (0.0, 0.3, None):  # None: as soon as both work
        command = [sys.executable, str(tmp_path / "pool.py"), str(Path(__file__).parent), *markers]
        environment = os.environ | {"SECONDEYE_WORKERS": "2"}
        parent = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert parent.stdout is not None and parent.stdout.readline() == b"up\n"
        time.sleep(seconds or 0)
        while seconds is None and not all(map(os.path.exists, markers)):
            time.sleep(0.02)
        workers = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
        parent.wait()
        parent.stdout.close()
        alive = wait_until_dead(workers, 30)
        assert len(workers) >= (4 if seconds is None else 0), "resource tracker, coordinator, workers"
        assert not alive, f"{seconds} s: {alive}"
