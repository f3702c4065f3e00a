"""Publish runs while they grow, from a process of their own: importing MLflow takes seconds of a core."""

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from secondeye.system.errors import UserError
from secondeye.system.process import die_with_parent

_INTERVAL_SECONDS = 3.0
_LAST_WORD_SECONDS = 60.0  # for the last publishing, when the work is done
_NICENESS = 10  # the work comes first

State = dict[str, tuple[int, int]]


@contextmanager
def live_sync(root: Path) -> Iterator[None]:
    """Publish what changes below `root` while the block runs, and once more at its end.

    Nothing that happens to MLflow disturbs the block: a server that is away is one line on stderr.
    """
    command = [sys.executable, "-m", "secondeye.registry.live_sync", str(root), str(os.getpid())]
    # In a session of its own, as Ctrl-C is the work's to answer.
    child = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        assert child.stdin
        child.stdin.close()  # the end of its input is the end of the work
        try:
            child.wait(_LAST_WORD_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            _say("MLflow took too long; `secondeye model publish` brings in what is missing")


def main(root: Path, parent: int) -> None:
    """Publish until the standard input ends."""
    die_with_parent(parent)
    os.nice(_NICENESS)
    try:
        _follow(root)
    except UserError as refusal:
        _say(str(refusal))


def _follow(root: Path) -> None:
    from secondeye.registry.publish import publish_all
    from secondeye.registry.server import ServerUnreachable

    seen: State = {}
    told = ended = False
    while not ended:
        ended = _input_ends_within(_INTERVAL_SECONDS)
        state = _state(root)
        if state == seen:
            continue
        try:
            publish_all([root])
            seen = state
        except ServerUnreachable as away:
            if not told:
                _say(str(away))
            told = True


def _input_ends_within(seconds: float) -> bool:
    return bool(select.select([sys.stdin], [], [], seconds)[0])


def _state(root: Path) -> State:
    """Size and time of every file that is published."""
    patterns = ("run.json", "metrics.jsonl", "pictures/*", "tables/*")
    state = {}
    for path in (path for pattern in patterns for path in root.glob(f"*/{pattern}")):
        try:
            status = path.stat()
        except FileNotFoundError:  # replaced meanwhile
            continue
        state[str(path)] = status.st_size, status.st_mtime_ns
    return state


def _say(line: str) -> None:
    print(f"secondeye: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
