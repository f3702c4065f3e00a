"""What flows run: commands of this project, line by line into the run's log. None outlives its flow."""

import fcntl
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from secondeye.system.errors import UserError

SECONDEYE = [sys.executable, "-m", "secondeye"]
DVC = [sys.executable, "-m", "dvc"]
LOCK = Path(".prefect/turn.lock")
_PATIENCE_S = 20  # for a command to end by itself before it is killed
# Runs first in the child, then becomes the command.
_TIED = """
import os, sys
from secondeye.system.process import die_with_parent
die_with_parent(int(sys.argv[1]))
os.execvp(sys.argv[2], sys.argv[2:])
"""


class CommandFailed(UserError):
    """A command ended with an error; one line: which, with what code, and its own last word."""

    def __init__(self, command: list[str], code: int, lines: list[str]):
        self.code = code
        super().__init__(f"`{_name_of(command)}` ended with {code}: {_reason(lines)}")


def run_command(command: list[str], log: Callable[[str], None]) -> None:
    """Run a command in the current folder and pass on each line it writes, errors included.

    Raises CommandFailed when it ends with anything but 0. Whatever ends this call ends the command.
    """
    lines: list[str] = []
    with subprocess.Popen(
        tied(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment(),
        start_new_session=True,  # a group of its own, to be ended as a whole
    ) as process:
        try:
            for line in process.stdout or ():
                if line.strip():
                    lines = [*lines[-99:], line.rstrip()]
                    log(line.rstrip())
            code = process.wait()
        finally:
            _end_group(process)
    if code:
        raise CommandFailed(command, code, lines)


@task(cache_policy=NO_CACHE)
def repro(target: str) -> None:
    """Bring a DVC stage, and all it stands on, up to date; in a flow that holds its `turn`."""
    run_command([*DVC, "repro", target], run_log())


def run_log() -> Callable[[str], None]:
    """Where a task's lines go. A Refusal is one line there: Prefect's own traceback would bury it."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)  # the second time does nothing
    return get_run_logger().info


def tied(command: list[str]) -> list[str]:
    """The command, made to end with this process, even when this process is killed with -9."""
    return [sys.executable, "-c", _TIED, str(os.getpid()), *command]


@contextmanager
def turn(log: Callable[[str], None]) -> Iterator[None]:
    """Hold the only permission to work on data/ and models/, once it is free.

    The kernel takes it back from a flow that was killed.
    """
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log("another flow works on data and models; waiting for its end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def environment() -> dict[str, str]:
    """This process's, with the tools beside this Python on the PATH, lines unbuffered and nobody phoned."""
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        "TQDM_MININTERVAL": "30",  # seconds; a progress bar's every redraw would be a line of the log
        "DVC_NO_ANALYTICS": "1",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GX_ANALYTICS_ENABLED": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def _end_group(process: subprocess.Popen[str]) -> None:
    """End what a command left behind, or the command itself when its flow is being stopped."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(_PATIENCE_S)
        os.killpg(process.pid, signal.SIGKILL)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # all gone


def _without_traceback(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], UserError):
        record.exc_info = None
    return True


def _name_of(command: list[str]) -> str:
    return " ".join(command[2:] if command[:2] == [sys.executable, "-m"] else command)


def _reason(lines: list[str]) -> str:
    """Our own refusal where there is one (the last line of DVC only names the stage), else the last line."""
    ours = [line for line in lines if line.startswith("secondeye: ")]
    refusals = [line for line in ours if not line.startswith("secondeye: warning: ")]
    return (refusals or lines or ["it wrote nothing"])[-1]
