"""Run commands of this project in flows and copy their output to the run log. None outlives its flow."""

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
_PATIENCE_S = 20  # grace period before a command is killed
# Runs first in the child process, which then becomes the command.
_TIED = """
import os, sys
from secondeye.system.process import die_with_parent
die_with_parent(int(sys.argv[1]))
os.execvp(sys.argv[2], sys.argv[2:])
"""


class CommandFailed(UserError):
    """A command failed. The message is one line: command, exit code, its last error message."""

    def __init__(self, command: list[str], code: int, lines: list[str]):
        self.code = code
        super().__init__(f"`{_name_of(command)}` ended with {code}: {_reason(lines)}")


def run_command(command: list[str], log: Callable[[str], None]) -> None:
    """Run a command in the working directory and log each line of its output and errors.

    Raises CommandFailed if the exit code is not 0. If this call is interrupted, the command is stopped.
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
        start_new_session=True,  # a separate process group, to be stopped as a whole
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
    """Run `dvc repro` for a stage and all it depends on; the flow must hold the lock of `turn`."""
    run_command([*DVC, "repro", target], run_log())


def run_log() -> Callable[[str], None]:
    """Return the log function of a task, without Prefect's traceback of a UserError."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)  # adding it twice has no effect
    return get_run_logger().info


def tied(command: list[str]) -> list[str]:
    """Wrap a command so that it ends with this process, even if this process is killed with -9."""
    return [sys.executable, "-c", _TIED, str(os.getpid()), *command]


@contextmanager
def turn(log: Callable[[str], None]) -> Iterator[None]:
    """Hold the exclusive lock on data/ and models/; wait until it is free.

    The kernel releases it if the flow is killed.
    """
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log("another flow is working on data and models; waiting until it ends")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def environment() -> dict[str, str]:
    """Return the environment of commands: this Python's tools, unbuffered output, no telemetry."""
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        "TQDM_MININTERVAL": "30",  # seconds; each redraw of a progress bar would be a line in the log
        "DVC_NO_ANALYTICS": "1",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GX_ANALYTICS_ENABLED": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def _end_group(process: subprocess.Popen[str]) -> None:
    """Stop the command, if it still runs, and all processes that it left behind."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(_PATIENCE_S)
        os.killpg(process.pid, signal.SIGKILL)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # no process is left


def _without_traceback(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], UserError):
        record.exc_info = None
    return True


def _name_of(command: list[str]) -> str:
    return " ".join(command[2:] if command[:2] == [sys.executable, "-m"] else command)


def _reason(lines: list[str]) -> str:
    """Return the line of a UserError if there is one, else the last line (DVC's only names the stage)."""
    ours = [line for line in lines if line.startswith("secondeye: ")]
    errors = [line for line in ours if not line.startswith("secondeye: warning: ")]
    return (errors or lines or ["no output"])[-1]
