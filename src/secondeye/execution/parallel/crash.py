"""The result of an item whose worker crashed at every attempt."""

import signal
from dataclasses import dataclass

ATTEMPTS = 2


@dataclass(frozen=True)
class WorkerCrashed:
    """No result: every process that worked on the item crashed."""

    detail: str  # how often, and why


def describe_crash(
    exit_code: int | None,  # as in multiprocessing: negative is a signal
) -> WorkerCrashed:
    """Describe an exit code."""
    if exit_code is None or exit_code >= 0:
        return WorkerCrashed(
            f"its process ended with exit code {exit_code} in {ATTEMPTS} of {ATTEMPTS} attempts"
        )
    name = signal.Signals(-exit_code).name
    guess = " (out of memory?)" if name == "SIGKILL" else ""
    return WorkerCrashed(f"its process was killed by {name}{guess} in {ATTEMPTS} of {ATTEMPTS} attempts")
