"""Which dataset passed: the stamp that the stage `validate` leaves, and whether it is still that dataset."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from secondeye.files import write_whole
from secondeye.refusal import Refusal
from secondeye.rows import Kept, Scored

_STAMP = "stamp.json"


def dataset_hash(kept: Iterable[Kept], scored: Mapping[str, Scored]) -> str:
    """What a dataset is: its clips, their split, and the keys of all that made them."""
    lines = sorted(f"{row.id} {row.split} {scored[row.id].key}" for row in kept)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def remove_stamp(validate: Path) -> None:
    """Nothing is validated, until it is stamped."""
    (validate / _STAMP).unlink(missing_ok=True)


def write_stamp(validate: Path, clips: int, dataset: str) -> None:
    """Say that so many clips passed, which are this dataset."""
    content = {"clips": clips, "dataset": dataset}
    write_whole(validate / _STAMP, json.dumps(content, sort_keys=True) + "\n")


def dataset_of(validate: Path) -> str:
    """The hash of the dataset that passed last. Raises Refusal where none has."""
    stamp = validate / _STAMP
    if not stamp.is_file():
        raise Refusal(f"{stamp}: is not there; build and check the dataset first: dvc repro validate")
    return str(json.loads(stamp.read_text())["dataset"])
