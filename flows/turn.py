"""Let one piece of work at a time run on this machine.

Flows of a project exclude each other by a lock, which the kernel releases if a flow is killed. Commands
started by hand do not know this lock; they are found among the processes of the machine.
"""

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

LOCK = Path(".prefect/turn.lock")
VARIABLE = "SECONDEYE_FLOW"  # in the environment of commands run by flows: the project
_POLL_S, _LONG_S = 5.0, 3600.0
_WORK = {
    "dvc": ("repro", "exp run", "checkout", "pull", "commit", "add", "gc"),
    "secondeye": ("convert", "depth", "stage", "score"),
}


@contextmanager
def turn(log: Callable[[str], None], share_machine: bool = False) -> Iterator[None]:
    """Hold the lock; wait until it is free, and until commands started by hand have ended.

    With `share_machine`, wait only for DVC commands of this project, which lock its files.
    """
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log("another flow of this project is working; waiting until it ends")
            fcntl.flock(lock, fcntl.LOCK_EX)
        wait_for_others(log, share_machine)
        yield


def wait_for_others(log: Callable[[str], None], share_machine: bool = False) -> None:
    """Wait until no command started by hand is running; log for which ones, and report it after an hour."""
    from notify import notify as report  # it imports this module

    logged: list[str] = []
    began, is_reported = time.monotonic(), False
    while others := others_at_work(share_machine):
        if others != logged:
            log(f"waiting for what was started by hand: {'; '.join(others)}")
        if time.monotonic() - began > _LONG_S and not is_reported:
            is_reported = True
            report(f"a flow has been waiting for an hour for what was started by hand: {'; '.join(others)}")
        logged = others
        time.sleep(_POLL_S)


def others_at_work(share_machine: bool = False) -> list[str]:
    """Return "process PID (COMMAND)" of the commands that `turn` waits for."""
    found = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
            if _is_waited_for(process, command, share_machine):
                found.append(f"process {process.pid} ({_shorten(command)})")
        except psutil.Error:  # it has ended
            continue
    return found


def _is_waited_for(process: psutil.Process, command: Sequence[str], share_machine: bool) -> bool:
    program = program_of(command)
    if not program or process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED):
        return False
    try:
        is_here, flow = Path(process.cwd()) == Path.cwd(), process.environ().get(VARIABLE)
    except psutil.AccessDenied:  # of another user
        is_here, flow = False, None
    if flow == str(Path.cwd()):
        return False  # it has the lock
    return is_here and program == "dvc" if share_machine else True


def program_of(command: Sequence[str]) -> str:
    """Return dvc or secondeye if this command line works on data or films, else ""."""
    words = list(command)
    if words and re.fullmatch(r"python[\d.]*", os.path.basename(words[0])):
        words = [word for number, word in enumerate(words[1:]) if number > 2 or not word.startswith("-")]
    program = os.path.basename(words[0]) if words else ""
    verbs = " ".join([word for word in words[1:] if not word.startswith("-")][:2])
    return program if any(f"{verbs} ".startswith(f"{verb} ") for verb in _WORK.get(program, ())) else ""


def _shorten(command: Sequence[str]) -> str:
    start = next(n for n, word in enumerate(command) if os.path.basename(word) in _WORK)
    return " ".join([os.path.basename(command[start]), *command[start + 1 :]])[:100]
