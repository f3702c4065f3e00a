"""Run commands of this project in flows and copy their output to the run log. None outlives its flow."""

import itertools
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any

from prefect import get_client, get_run_logger
from prefect.context import FlowRunContext
from prefect.states import State
from turn import VARIABLE as WORKING_FLOW

from secondeye.cli import EXIT_UNREACHABLE
from secondeye.system.errors import UserError

SECONDEYE = [sys.executable, "-m", "secondeye"]
DVC = [sys.executable, "-m", "dvc"]
_BUSY = "is busy, it is being blocked by:"
# In an error message: a stage that was killed or ended with "unreachable"; locks of DVC.
_TRANSIENT = re.compile(rf"exited with (-\d+|137|143|{EXIT_UNREACHABLE})$|{_BUSY}|Unable to acquire lock")
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

    def __init__(self, command: list[str], code: int, lines: list[str], stopped: str = ""):
        self.code, self.is_timeout = code, bool(stopped)
        # Killed, or MLflow is unreachable, also in a stage of DVC; or another DVC command holds a lock.
        self.is_transient = not stopped and (
            code < 0 or code == EXIT_UNREACHABLE or any(_TRANSIENT.search(line) for line in lines[-20:])
        )
        ending = stopped or f"ended with {code}: {_reason(lines)}"
        super().__init__(f"`{_name_of(command)}` {ending}")


def run_command(command: list[str], log: Callable[[str], None], timeout_hours: float | None = None) -> None:
    """Run a command in the working directory and log each line of its output and errors.

    Raises CommandFailed as `command_lines` does. If this call is interrupted, the command is stopped.
    """
    with closing(command_lines(command, timeout_hours)) as lines:
        for line in lines:
            log(line)


def command_lines(command: list[str], timeout_hours: float | None = None) -> Generator[str, None, None]:
    """Run a command in the working directory; yield the lines of its output and errors, without empty ones.

    Raises CommandFailed if the exit code is not 0, and if the command takes longer than the timeout. It is
    stopped then, as when the generator is closed.
    """
    lines: list[str] = []
    with subprocess.Popen(
        tied(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment() | {WORKING_FLOW: str(Path.cwd())},
        start_new_session=True,  # a separate process group, to be stopped as a whole
    ) as process:
        expired = threading.Event()

        def stop() -> None:
            expired.set()
            _end_group(process)

        timeout = threading.Timer((timeout_hours or 0) * 3600, stop)
        if timeout_hours:
            timeout.start()
        try:
            for line in process.stdout or ():
                if line.strip():
                    lines = [*lines[-99:], line.rstrip()]
                    yield line.rstrip()
            code = process.wait()
        finally:
            timeout.cancel()
            _end_group(process)
    if expired.is_set():
        raise CommandFailed(command, code, lines, f"took longer than {timeout_hours:g} hours and was stopped")
    if code:
        raise CommandFailed(command, code, lines)


def is_transient(task: object, task_run: object, state: State) -> bool:
    """Return whether a task failed for a reason that may be gone at the next attempt."""
    return isinstance(state.data, CommandFailed) and state.data.is_transient


RETRY: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": [30, 300],
    "retry_condition_fn": is_transient,
}


def run_log() -> Callable[[str], None]:
    """Return the log function of a task, without Prefect's traceback of a UserError."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)  # adding it twice has no effect
    return get_run_logger().info


def rename_run(name: str) -> None:
    """Give the flow run that is executing a name that says what it has done."""
    run = FlowRunContext.get()
    if run and run.flow_run:
        with get_client(sync_client=True) as client:
            client.update_flow_run(run.flow_run.id, name=name)


def tied(command: list[str]) -> list[str]:
    """Wrap a command so that it ends with this process, even if this process is killed with -9."""
    return [sys.executable, "-c", _TIED, str(os.getpid()), *command]


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
    for number, line in enumerate(lines):
        if _BUSY in line:  # DVC then advises to remove its lock file, which would break the other's work
            holders = itertools.takewhile(
                lambda following: following.startswith("  (PID"), lines[number + 1 :]
            )
            return f"{line.removesuffix(':')} {', '.join(holder.strip() for holder in holders)}"
    lines = [line for line in lines if not line.startswith("hint: ")]  # of git, after its error
    ours = [line for line in lines if line.startswith("secondeye: ")]
    errors = [line for line in ours if not line.startswith("secondeye: warning: ")]
    return (errors or lines or ["no output"])[-1]
