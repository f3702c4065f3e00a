"""Run programs in temporary folders; neither outlives this process, even if it is killed with -9."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from secondeye.system import guardian

_OUTPUT_BYTES = 1 << 16  # of a program, that are kept
_LOADER_VARIABLES = ("LD_", "DYLD_")  # of the system's dynamic loader, which Python may need
_LAST_OUTPUT_S = 1.0  # a process that has left the group may hold the pipe open


class Ended(NamedTuple):
    """How a program ended."""

    code: int | None  # a negative one is the signal; None if it was killed after the timeout
    output: str  # the last 64 KiB of its output and errors


class GuardedFolder:
    """A temporary folder in which programs run, one at a time."""

    def __init__(self, path: Path, guard: IO[bytes]) -> None:
        self.path = path
        self._guard = guard

    def run(self, command: Sequence[str], timeout_s: float) -> Ended:
        """Run a program without a shell in a process group of its own, which is killed when this call ends.

        Processes that leave the group, as daemons do, are not. Raises OSError if it cannot be started.
        """
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: self._kill_at_end(os.getpid()),  # it is guarded before it runs
            )
        except OSError:
            self._kill_at_end(0)
            raise
        tail = bytearray()
        reader = threading.Thread(target=_keep_end, args=(process.stdout, tail), daemon=True)
        reader.start()
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with suppress(ProcessLookupError):  # no process is left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self._kill_at_end(0)
        reader.join(_LAST_OUTPUT_S)
        return Ended(code, bytes(tail).decode(errors="replace"))

    def _kill_at_end(self, group: int) -> None:
        with suppress(BrokenPipeError):  # the guardian was killed
            self._guard.write(f"{group}\n".encode())


@contextmanager
def guarded_folder(prefix: str) -> Iterator[GuardedFolder]:
    """Yield a temporary folder, deleted after the block.

    If this process is killed in the block, the folder is deleted and its program killed all the same: another
    process does it (guardian.py).
    """
    folder = tempfile.mkdtemp(prefix=prefix)
    with subprocess.Popen(
        [sys.executable, "-I", "-S", guardian.__file__, folder],  # without packages: it starts in 20 ms
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # out of reach of Ctrl-C and of signals to our group
        # Nor is it found by our variables: a killed `./run serve` kills every process that has its own.
        env={name: value for name, value in os.environ.items() if name.startswith(_LOADER_VARIABLES)},
    ) as guard:
        assert guard.stdin
        yield GuardedFolder(Path(folder), guard.stdin)


def _keep_end(stream: IO[bytes], tail: bytearray) -> None:
    """Read a stream to its end; keep its last bytes in `tail`."""
    with stream:
        while chunk := os.read(stream.fileno(), _OUTPUT_BYTES):
            tail += chunk
            del tail[:-_OUTPUT_BYTES]
