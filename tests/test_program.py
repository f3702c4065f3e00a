"""Programs and their folders do not outlive the call, nor the process that made it."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from secondeye.system.program import guarded_folder

# Prints the folder, the program and its child, which both sleep.
CALL = """
from secondeye.system.program import guarded_folder
with guarded_folder("secondeye-test-") as folder:
    (folder.path / "image.png").touch()
    script = 'sleep 60 & echo "$0" $$ $! > "$1.part"; mv "$1.part" "$1"; sleep 60'
    folder.run(["sh", "-c", script, str(folder.path), MARKER], 60)
"""


def is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def wait_until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_program_and_folder_end_with_a_stopped_process(how: signal.Signals, tmp_path: Path) -> None:
    marker = tmp_path / "started"
    code = CALL.replace("MARKER", repr(str(marker)))
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as caller:
        wait_until(marker.exists)
        folder, program, child = marker.read_text().split()
        assert Path(folder, "image.png").exists() and is_running(int(program)) and is_running(int(child))
        caller.send_signal(how)
    wait_until(lambda: not Path(folder).exists())
    wait_until(lambda: not is_running(int(program)) and not is_running(int(child)))


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("sleep 60", None), ("kill -9 $$", -9)])
def test_children_of_a_program_end_with_it(script: str, code: int | None) -> None:
    with guarded_folder("secondeye-test-") as folder:
        path = folder.path
        ended = folder.run(["sh", "-c", f"sleep 60 & echo $!; {script}"], 0.1 if code is None else 60)
        again = folder.run(["echo", "again"], 60)
    assert ended.code == code and again == (0, "again\n") and not path.exists()
    wait_until(lambda: not is_running(int(ended.output)))


def test_a_program_that_cannot_be_started_leaves_nothing(tmp_path: Path) -> None:
    with guarded_folder("secondeye-test-") as folder, pytest.raises(OSError, match="No such file"):
        folder.run([str(tmp_path / "missing")], 60)
    assert not folder.path.exists()


def test_only_the_end_of_the_output_is_kept() -> None:
    with guarded_folder("secondeye-test-") as folder:
        _, output = folder.run(["sh", "-c", "printf %0200000d 7"], 60)
    assert output == "7".rjust(1 << 16, "0")
