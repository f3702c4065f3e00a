"""Train and evaluate what has changed, publish the runs, and promote a better model.

    python flows/training.py

Needs no Prefect server. DVC retrains only what has changed, so a run without changes takes seconds.
"""

import argparse
import sys
from pathlib import Path

from commands import RETRY, SECONDEYE, CommandFailed, command_lines, rename_run, run_command, run_log
from dvc_stages import repro
from night import keep_night, push_night
from notify import HOOKS, announce_champion
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from turn import turn

from secondeye.cli import EXIT_UNREACHABLE
from secondeye.system.errors import UserError


@task(cache_policy=NO_CACHE)
def publish() -> None:
    """Mirror every run folder into MLflow. If MLflow cannot be reached, the flow continues."""
    log = run_log()
    try:
        run_command([*SECONDEYE, "model", "publish"], log)
    except CommandFailed as failure:
        if failure.code != EXIT_UNREACHABLE:
            raise
        log(f"{failure}; the runs stay in .runs and are published next time")


@task(cache_policy=NO_CACHE, **RETRY)
def gate() -> str:
    """Compare champion and challenger on the frozen evaluation clips and promote a better challenger.

    Returns the line that names the champion.
    """
    log, champion = run_log(), ""
    for line in command_lines([*SECONDEYE, "model", "gate"]):
        log(line)
        if line.startswith("champion: "):
            champion = line.partition(";")[0]
    return champion


@task(cache_policy=NO_CACHE, task_run_name="show {report}")
def show(report: Path) -> None:
    """Show a report on the page of this run in Prefect."""
    create_markdown_artifact(report.read_text(), key=report.stem, description=str(report))


@flow(log_prints=True, flow_run_name="training", **HOOKS)
def train_and_promote(
    history_branch: str = "", timeout_hours: float | None = None, share_machine: bool = False
) -> None:
    """Train and evaluate what changed, publish the runs, let the gate decide.

    No other flow changes data/ or models/ between these. With a `history_branch`, what was made is committed
    to it and pushed (flows/night.py). The timeout is that of `dvc repro`. With `share_machine`, work started
    by hand does not delay it.
    """
    with turn(run_log(), share_machine):
        repro("evaluate", timeout_hours, share_machine)
        show(Path("reports/evaluation.md"))
        publish()
        rename_run(f"training, {gate()}")
        show(Path("reports/gate.md"))
        announce_champion()
        if history_branch:
            keep_night(history_branch, "Training and evaluation")
    if history_branch:
        push_night(history_branch)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train, evaluate, publish, and promote a better model")
    parser.add_argument("--share-machine", action="store_true", help="do not wait for work started by hand")
    arguments = parser.parse_args()
    try:
        train_and_promote(share_machine=arguments.share_machine)
    except UserError as error:
        sys.exit(f"training: {error}")
