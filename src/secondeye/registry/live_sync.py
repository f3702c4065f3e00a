"""Publish runs while they grow, from a separate process, as importing MLflow takes seconds."""

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from secondeye.system.errors import UserError
from secondeye.system.process import die_with_parent

if TYPE_CHECKING:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

_INTERVAL_SECONDS = 3.0
_RETRY_SECONDS = 10.0  # while MLflow cannot be used
_FINAL_SYNC_SECONDS = 60.0  # timeout of the last publishing after the work has ended
_NICENESS = 10  # the work has priority

State = dict[str, tuple[int, int]]


@contextmanager
def live_sync(root: Path) -> Iterator[None]:
    """Publish changed runs below `root` while the block runs, and once more at its end.

    Problems with MLflow do not affect the block: they are one line on stderr, and publishing is tried again
    until the block ends.
    """
    # A separate session, so that Ctrl-C reaches only the work.
    child = subprocess.Popen(_command(root, os.getpid()), stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        assert child.stdin
        child.stdin.close()  # end of input tells the child that the work has ended
        try:
            child.wait(_FINAL_SYNC_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            _warn("MLflow took too long; `secondeye model publish` adds what is missing")


def main(root: Path, parent: int, warned: bool) -> None:
    """Publish until the end of standard input."""
    die_with_parent(parent)
    if not warned:  # a restarted process keeps its niceness
        os.nice(_NICENESS)
    error, again = _sync(root)
    if error and not warned:
        _warn(error)
    if again:
        _input_ends_within(_RETRY_SECONDS)
        # A new process, as MLflow keeps what it knows of a database for the life of a process.
        os.execv(sys.executable, _command(root, parent, warned=True))


def _sync(root: Path) -> tuple[str, bool]:
    """Publish until the end of standard input, or until MLflow cannot be used.

    Returns why it cannot be used, or "", and whether to try again in a new process: always before the end of
    the input, so that the last publishing is tried at least once, and after it if this process has published.
    """
    from secondeye.registry.publish import publish_all
    from secondeye.registry.system_monitor import start_system_monitor

    published: State = {}
    monitors: dict[str, SystemMetricsMonitor] = {}
    ended = False
    while not ended:
        ended = _input_ends_within(_INTERVAL_SECONDS)
        state = _state(root)
        if state == published and not ended:  # at the end, a run may have stopped without a trace
            continue
        try:
            runs = publish_all([root])
        except UserError as error:
            return str(error), not ended or bool(published)
        published = state
        running = {run.run_id for run in runs if run.status == "RUNNING"}
        for run_id in running - monitors.keys():
            monitors[run_id] = start_system_monitor(run_id)
        for run_id in monitors.keys() - running:
            monitors.pop(run_id).finish()
    return "", False


def _command(root: Path, parent: int, *, warned: bool = False) -> list[str]:
    return [
        sys.executable,
        "-m",
        "secondeye.registry.live_sync",
        str(root),
        str(parent),
        *(["warned"] if warned else []),
    ]


def _input_ends_within(seconds: float) -> bool:
    return bool(select.select([sys.stdin], [], [], seconds)[0])


def _state(root: Path) -> State:
    """Return size and modification time of every published file."""
    patterns = ("run.json", "metrics.jsonl", "failure.txt", "pictures/*", "tables/*")
    state = {}
    for path in (path for pattern in patterns for path in root.glob(f"*/{pattern}")):
        try:
            status = path.stat()
        except FileNotFoundError:  # replaced in the meantime
            continue
        state[str(path)] = status.st_size, status.st_mtime_ns
    return state


def _warn(line: str) -> None:
    print(f"secondeye: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), warned=len(sys.argv) > 3)
