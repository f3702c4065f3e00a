"""End every process of a `./run serve`, even if serve was killed with -9.

    python flows/watchdog.py MARK < PIPE

serve starts this beside itself and holds the other end of the pipe, which the kernel closes when serve ends.
If serve is killed, it cannot report that; this process does (flows/notify.py).
Killing its children alone would not do, since these start processes of their own, in sessions of their own.
All inherit an environment variable, by which they are found.
"""

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

_ATTEMPTS, _WAIT_S = 12, 5.0
VARIABLE = "SECONDEYE_SERVE"  # PROJECT:ID, unique for each serve
ORDERED = b"stopped"  # what serve writes into the pipe if it stops by itself


def new_mark(project: Path) -> str:
    """Return the value of the variable for a serve that starts now."""
    return f"{project}:{os.getpid()}.{time.time_ns()}"


def mark_of(process: psutil.Process) -> str:
    """Return the mark that a process has inherited; "" if none, or if it belongs to another user."""
    try:
        return str(process.environ().get(VARIABLE, ""))
    except (psutil.Error, OSError):
        return ""


def project_of(mark: str) -> str:
    """Return the project folder of the serve that a mark names."""
    return mark.rpartition(":")[0]


def marked_processes(wanted: Callable[[str], bool]) -> list[psutil.Process]:
    """Return the processes with such a mark, without this process and zombies."""
    me = os.getpid()
    return [each for each in psutil.process_iter() if each.pid != me and wanted(mark_of(each))]


def end_all(wanted: Callable[[str], bool]) -> list[str]:
    """Kill all processes with such a mark, also those that they start meanwhile.

    Returns "PID NAME" of each. Gives up after a minute on processes that the kernel does not end.
    """
    ended: list[str] = []
    for _ in range(_ATTEMPTS):
        found = marked_processes(wanted)
        if not found:
            break
        for process in found:
            with suppress(psutil.NoSuchProcess):
                ended.append(f"{process.pid} {process.name()}")
                process.kill()
        psutil.wait_procs(found, timeout=_WAIT_S)
    return ended


def port_holder(port: int) -> psutil.Process | None:
    """Return the process that listens on a TCP port; None if it is another user's or ends meanwhile."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            for connection in process.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                    return process
    return None


def main() -> None:
    """Wait until standard input is closed, then end all processes of the serve; report a kill."""
    is_ordered = sys.stdin.buffer.read() == ORDERED
    mark = sys.argv[1]
    ended = end_all(lambda other: other == mark)
    if not is_ordered:
        from notify import notify  # it imports Prefect, which takes a second

        notify(
            f"./run serve in {project_of(mark)} was killed; ended {len(ended)} of its processes. "
            "Start it again: interrupted flows resume their work at their next run"
        )


if __name__ == "__main__":
    main()
