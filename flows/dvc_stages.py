"""Run DVC's pipeline so that each stage that runs is a task run of its own, with its progress."""

import re
from collections.abc import Iterator
from contextlib import closing
from typing import cast
from uuid import UUID

from commands import DVC, RETRY, command_lines, run_log
from prefect import task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from turn import wait_for_others

_STAGE = re.compile(r"Running stage '(.+)':")
_PERCENT = re.compile(r"(?:^|\s)(\d+)%\|")  # of tqdm


@task(cache_policy=NO_CACHE, task_run_name="dvc repro {target}", **RETRY)
def repro(target: str, timeout_hours: float | None = None, share_machine: bool = False) -> None:
    """Run `dvc repro` for a stage and all it depends on; the flow must hold the lock of `turn`.

    Raises CommandFailed, also if it takes longer than the timeout.
    """
    log = run_log()
    wait_for_others(log, share_machine)  # again, before each retry
    with closing(command_lines([*DVC, "repro", target], timeout_hours)) as lines:
        stage = ""
        for line in lines:
            log(line)
            if started := _STAGE.match(line):
                stage = started[1]
                break
        while stage:
            stage = run_stage(stage, lines)


@task(cache_policy=NO_CACHE, task_run_name="stage {name}")
def run_stage(name: str, lines: Iterator[str]) -> str:
    """Log DVC's lines until the next stage starts; return its name, or "" at the end."""
    log = run_log()
    key = f"stage-{re.sub('[^a-z0-9]+', '-', name.lower())}"
    about = f"Progress of the stage `{name}`"
    progress = cast(UUID, create_progress_artifact(0.0, key=key, description=about))
    next_stage = ""
    for line in lines:
        if started := _STAGE.match(line):
            next_stage = started[1]
            break
        log(line)
        if percent := _PERCENT.search(line):
            update_progress_artifact(progress, float(percent[1]))
    update_progress_artifact(progress, 100.0)
    return next_stage
