"""Measure how DVC handles a folder: by number of small files, and by size of a few large ones.

    python benchmarks/dvc_scale.py [--files 1000 10000 50000] [--megabytes 1000]

Each row is a folder in a project of its own with a remote in another folder of the same disk. `add` hashes
the files and copies them to the cache (there are no reflinks here), `push` copies them to the remote. After
`status` of an unchanged folder one file is changed, and `status`, `add` and `push` run again.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from command import make_parser, run

COLUMNS = (
    "folder",
    "add",
    "push",
    "status",
    "one file changed: status",
    "add",
    "push",
    "peak, MiB",
)
SMALL_BYTES, LARGE_FILES = 1024, 4
_BLOCK = 2**20


def main() -> None:
    """Print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--files", nargs="*", type=int, default=[1000, 10_000, 50_000])
    parser.add_argument("--megabytes", type=int, default=1000)
    options = parser.parse_args()
    print("Seconds.\n\n| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|", flush=True)
    for count in options.files:
        print(measure(f"{count} files of {SMALL_BYTES} bytes", count, SMALL_BYTES), flush=True)
    if options.megabytes:
        size = options.megabytes * 10**6 // LARGE_FILES
        print(measure(f"{LARGE_FILES} files of {size // 10**6} MB", LARGE_FILES, size), flush=True)
    from machine import machine  # after the measurements, for a child's peak begins with its parent's memory

    print(f"\n{machine()}")


def measure(name: str, count: int, size: int) -> str:
    """Return a row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder, "project")
        (project / "clips").mkdir(parents=True)
        for number in range(count):
            write_file(project / "clips" / f"{number:016x}.mkv", number, size)
        dvc(project, "init", "--no-scm")
        dvc(project, "config", "core.analytics", "false")
        dvc(project, "config", "cache.type", "reflink,copy")
        dvc(project, "remote", "add", "-d", "store", str(Path(folder, "store")))
        seconds, peaks = zip(*(dvc(project, *command) for command in (ADD, PUSH, STATUS)), strict=True)
        write_file(project / "clips" / f"{0:016x}.mkv", count, size)
        again, more = zip(*(dvc(project, *command) for command in (STATUS, ADD, PUSH)), strict=True)
        cells = [f"{value:.1f}" for value in (*seconds, *again)] + [f"{max(*peaks, *more):.0f}"]
    return f"| {name} | " + " | ".join(cells) + " |"


ADD, PUSH, STATUS = ("add", "--quiet", "clips"), ("push", "--quiet"), ("status", "--quiet")


def write_file(path: Path, number: int, size: int) -> None:
    """Write a file whose content no other number has."""
    with path.open("wb") as file:
        file.write(number.to_bytes(8, "big"))
        for start in range(8, size, _BLOCK):
            file.write(b"x" * min(_BLOCK, size - start))


def dvc(project: Path, *command: str) -> tuple[float, float]:  # seconds, peak MiB
    """Run a command of DVC; returns its time and peak memory. `status` may end with 1: it found a change."""
    start = time.perf_counter()
    environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
    arguments = [sys.executable, "-c", _IN_FOLDER, str(project), *command]
    process = os.posix_spawn(sys.executable, arguments, environment)
    _, status, usage = os.wait4(process, 0)
    code = os.waitstatus_to_exitcode(status)
    if code and not (command == STATUS and code == 1):
        sys.exit(f"dvc {' '.join(command)} ended with {code}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


_IN_FOLDER = "import os, sys; os.chdir(sys.argv[1]); from dvc.cli import main; sys.exit(main(sys.argv[2:]))"

if __name__ == "__main__":
    run(main)
