"""Work is spread, and no process that dies takes the others' results with it."""

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


def test_in_this_process_there_is_one_thread_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECONDEYE_WORKERS", "1")
    found = list(parallel.map(die_or_tell, [("a", tmp_path), ("b", tmp_path)]))
    assert found == [(0, ("a", 1)), (1, ("b", 1))]


def test_workers_are_never_more_than_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECONDEYE_WORKERS", "8")
    assert [worker_count(n) for n in (0, 1, 3, 20)] == [1, 1, 3, 8]
    monkeypatch.setenv("SECONDEYE_WORKERS", "many")
    with pytest.raises(UserError, match="SECONDEYE_WORKERS must be a number of processes, got 'many'"):
        worker_count(3)


def die_or_tell(item: tuple[str, Path]) -> tuple[str, int]:
    """What the name says: `kill` always dies, `once` the first time, `wrong` raises."""
    name, folder = item
    tried = folder / name
    first = not tried.exists()
    with tried.open("a") as file:
        file.write("x")
    if name == "kill" or (name == "once" and first):
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "wrong":
        raise ValueError(f"this is wrong, says {os.getpid()}")
    import torch

    return name, torch.get_num_threads()


def test_who_kills_its_process_is_given_up_and_nobody_else_suffers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECONDEYE_WORKERS", "2")
    names = ["a", "kill", "once", "b"]
    found = dict(parallel.map(die_or_tell, [(name, tmp_path) for name in names]))
    died = WorkerCrashed("its process ended by SIGKILL (no memory left?), 2 times of 2")
    assert found == {0: ("a", 1), 1: died, 2: ("once", 1), 3: ("b", 1)}
    tries = {name: len((tmp_path / name).read_text()) for name in names}
    assert tries == {"a": 1, "kill": 2, "once": 2, "b": 1}


def test_a_single_item_has_a_process_of_its_own_and_its_exception_arrives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SECONDEYE_WORKERS", raising=False)
    with pytest.raises(ValueError, match="this is wrong, says") as caught:
        list(parallel.map(die_or_tell, [("wrong", tmp_path)]))
    assert str(os.getpid()) not in str(caught.value)


def hang(marker: str) -> None:
    Path(marker).write_text(str(psutil.Process().pid))
    time.sleep(60)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_pool_dies_with_its_parent_from_the_first_moment(tmp_path: Path) -> None:
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
