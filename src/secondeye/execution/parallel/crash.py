"""What comes back of an item whose worker dies each time."""

import signal
from dataclasses import dataclass

ATTEMPTS = 2


@dataclass(frozen=True)
class WorkerCrashed:
    """No result: every process that worked on the item died."""

    detail: str  # how often, and of what


def describe_crash(
    exit_code: int | None,  # as multiprocessing has it: negative is a signal
) -> WorkerCrashed:
    """Say what an exit code means."""
    if exit_code is None or exit_code >= 0:
        return WorkerCrashed(f"its process ended with exit code {exit_code}, {ATTEMPTS} times of {ATTEMPTS}")
    name = signal.Signals(-exit_code).name
    guess = " (no memory left?)" if name == "SIGKILL" else ""
    return WorkerCrashed(f"its process ended by {name}{guess}, {ATTEMPTS} times of {ATTEMPTS}")
