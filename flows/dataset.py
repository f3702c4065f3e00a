"""Bring the dataset up to date, from films in data/raw to the validated table of clips.

    python flows/dataset.py

DVC owns the graph and decides what is out of date. Needs no Prefect server.
"""

import argparse
import sys

from commands import run_log
from dvc_stages import repro
from night import keep_night, push_night
from notify import HOOKS
from prefect import flow
from turn import turn

from secondeye.system.errors import UserError


@flow(log_prints=True, flow_run_name="dataset: {target}", **HOOKS)
def build_dataset(
    target: str = "validate",
    history_branch: str = "",
    timeout_hours: float | None = None,
    share_machine: bool = False,
) -> None:
    """Run `dvc repro TARGET`; the default ends with the validation, which fails on a bad dataset.

    With a `history_branch`, what was made is committed to it and pushed (flows/night.py). The timeout is that
    of `dvc repro`. With `share_machine`, work started by hand does not delay it.
    """
    with turn(run_log(), share_machine):
        repro(target, timeout_hours, share_machine)
        if history_branch:
            keep_night(history_branch, "Dataset")
    if history_branch:
        push_night(history_branch)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Bring the dataset up to date")
    parser.add_argument("target", nargs="?", default="validate", help="a stage of dvc.yaml")
    parser.add_argument("--share-machine", action="store_true", help="do not wait for work started by hand")
    arguments = parser.parse_args()
    try:
        build_dataset(arguments.target, share_machine=arguments.share_machine)
    except UserError as error:
        sys.exit(f"dataset: {error}")
