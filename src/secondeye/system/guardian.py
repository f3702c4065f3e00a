"""Kill a program and delete its folder when the process that uses them ends, however it ends.

    python guardian.py FOLDER < PIPE

`program.guarded_folder` starts this script and holds the other end of the pipe, which the kernel closes when
that process ends, even by kill -9. The last number in the pipe is the process group to kill, or 0.
"""

import os
import shutil
import signal
import sys
import time
from contextlib import suppress

_ATTEMPTS, _PAUSE_S = 50, 0.1  # killed processes may still write for a moment


def main(folder: str) -> None:
    """Wait for the end of standard input; then kill the group and delete the folder."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):  # they are for the process that uses it
        signal.signal(number, signal.SIG_IGN)
    group = int((sys.stdin.read().split() or ["0"])[-1])
    if group:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    for _ in range(_ATTEMPTS):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            break
        time.sleep(_PAUSE_S)


if __name__ == "__main__":
    main(sys.argv[1])
