"""Bring the dataset up to date, from films in data/raw to the validated table of clips.

    python flows/dataset.py

DVC owns the graph and decides what is out of date, so this is one task. Needs no Prefect server.
"""

import sys

from commands import repro, run_log, turn
from night import keep_night
from prefect import flow

from secondeye.system.errors import UserError


@flow(log_prints=True)
def build_dataset(target: str = "validate", history_branch: str = "") -> None:
    """Run `dvc repro TARGET`; the default ends with the validation, which fails on a bad dataset.

    With a `history_branch`, what was made is committed to it and pushed (flows/night.py).
    """
    with turn(run_log()):
        repro(target)
        if history_branch:
            keep_night(history_branch, "Dataset")


if __name__ == "__main__":
    try:
        build_dataset(*sys.argv[1:])
    except UserError as error:
        sys.exit(f"dataset: {error}")
