"""Work runs in processes, and a crashing process loses no result of the others."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import wait_until_dead

from secondeye.execution import parallel
from secondeye.execution.parallel import WorkerCrashed, worker_count
from secondeye.system.errors import UserError


def test_in_process_work_uses_one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECONDEYE_WORKERS", "1")
    found = list(parallel.map(crash_or_return, [("a", tmp_path), ("b", tmp_path)]))
    assert found == [(0, ("a", 1)), (1, ("b", 1))]


def test_there_are_never_more_workers_than_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECONDEYE_WORKERS", "8")
    assert [worker_count(n) for n in (0, 1, 3, 20)] == [1, 1, 3, 8]
    monkeypatch.setenv("SECONDEYE_WORKERS", "many")
    with pytest.raises(UserError, match="SECONDEYE_WORKERS must be a number of processes, got 'many'"):
        worker_count(3)


def crash_or_return(item: tuple[str, Path]) -> tuple[str, int]:
    """Act by name: `kill` always crashes, `once` at the first attempt, `wrong` raises."""
    name, folder = item
    attempts = folder / name
    first = not attempts.exists()
    with attempts.open("a") as file:
        file.write("x")
    if name == "kill" or (name == "once" and first):
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "wrong":
        raise ValueError(f"this is wrong, says {os.getpid()}")
    import torch

    return name, torch.get_num_threads()


def test_an_item_that_kills_its_process_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECONDEYE_WORKERS", "2")
    names = ["a", "kill", "once", "b"]
    found = dict(parallel.map(crash_or_return, [(name, tmp_path) for name in names]))
    crashed = WorkerCrashed("its process was killed by SIGKILL (out of memory?) in 2 of 2 attempts")
    assert found == {0: ("a", 1), 1: crashed, 2: ("once", 1), 3: ("b", 1)}
    tries = {name: len((tmp_path / name).read_text()) for name in names}
    assert tries == {"a": 1, "kill": 2, "once": 2, "b": 1}


def test_a_single_item_gets_its_own_process_and_its_exception_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SECONDEYE_WORKERS", raising=False)
    with pytest.raises(ValueError, match="this is wrong, says") as caught:
        list(parallel.map(crash_or_return, [("wrong", tmp_path)]))
    assert str(os.getpid()) not in str(caught.value)


def hang(marker: str) -> None:
    Path(marker).write_text(str(psutil.Process().pid))
    time.sleep(60)


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal exists only on Linux")
def test_workers_die_with_their_parent_at_any_moment(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_parallel import hang\nfrom secondeye.execution import parallel\n"
        "if __name__ == '__main__':\n"
        "    print('up', flush=True)\n    list(parallel.map(hang, sys.argv[2:]))\n"
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
        alive = wait_until_dead(family, 30)
        assert not alive, f"{seconds} s: {alive}"
