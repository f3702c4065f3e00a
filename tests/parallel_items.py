"""What the tests of the parallel map run in workers; a module of its own, so that workers start quickly."""

import os
import signal
import time
from pathlib import Path


def crash_or_return(item: tuple[str, Path]) -> tuple[str, int]:
    """Return the thread count; `kill` always crashes, `once` crashes at the first attempt, `wrong` raises."""
    name, folder = item
    attempts = folder / name
    is_first = not attempts.exists()
    with attempts.open("a") as file:
        file.write("x")
    if name == "kill" or (name == "once" and is_first):
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "wrong":
        raise ValueError(f"this is wrong, says {os.getpid()}")
    import torch

    return name, torch.get_num_threads()


def count_or_kill(killer: Path) -> list[int]:
    """Return the numbers of threads of this process and its parent; kill the parent once `killer` exists."""
    while killer.name == "killer" and not killer.exists():
        time.sleep(0.01)
    if killer.name == "killer":
        os.kill(os.getppid(), signal.SIGKILL)
    return [len(os.listdir(f"/proc/{process}/task")) for process in (os.getpid(), os.getppid())]


def hang(marker: str) -> None:
    """Write the process id to `marker` and sleep."""
    Path(marker).write_text(str(os.getpid()))
    time.sleep(60)
