"""Train and evaluate what has changed, publish the runs, and promote a better model.

    python flows/training.py

Needs no Prefect server. DVC retrains only what has changed, so a run without changes takes seconds.
"""

import sys
from pathlib import Path

from commands import SECONDEYE, CommandFailed, repro, run_command, run_log, turn
from night import keep_night
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

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


@task(cache_policy=NO_CACHE)
def gate() -> None:
    """Compare champion and challenger on the frozen evaluation clips and promote a better challenger."""
    run_command([*SECONDEYE, "model", "gate"], run_log())


@task(cache_policy=NO_CACHE)
def show(report: Path) -> None:
    """Show a report on the page of this run in Prefect."""
    create_markdown_artifact(report.read_text(), key=report.stem, description=str(report))


@flow(log_prints=True)
def train_and_promote(history_branch: str = "") -> None:
    """Train and evaluate what changed, publish the runs, let the gate decide.

    No other flow changes data/ or models/ between these. With a `history_branch`, what was made is committed
    to it and pushed (flows/night.py).
    """
    with turn(run_log()):
        repro("evaluate")
        show(Path("reports/evaluation.md"))
        publish()
        gate()
        show(Path("reports/gate.md"))
        if history_branch:
            keep_night(history_branch, "Training and evaluation")


if __name__ == "__main__":
    try:
        train_and_promote()
    except UserError as error:
        sys.exit(f"training: {error}")
