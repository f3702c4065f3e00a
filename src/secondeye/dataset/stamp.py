"""Which dataset passed: the stamp that the stage `validate` leaves, and whether it is still that dataset."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from secondeye.dataset.schema import AcceptedClip, ClipQuality
from secondeye.system.errors import UserError
from secondeye.system.files import write_atomic

_STAMP = "stamp.json"


def dataset_hash(kept: Iterable[AcceptedClip], scored: Mapping[str, ClipQuality]) -> str:
    """What a dataset is: its clips, their split, and the keys of all that made them."""
    lines = sorted(f"{row.id} {row.split} {scored[row.id].key}" for row in kept)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def remove_stamp(validate: Path) -> None:
    """Nothing is validated, until it is stamped."""
    (validate / _STAMP).unlink(missing_ok=True)


def write_stamp(validate: Path, clips: int, dataset: str) -> None:
    """Say that so many clips passed, which are this dataset."""
    content = {"clips": clips, "dataset": dataset}
    write_atomic(validate / _STAMP, json.dumps(content, sort_keys=True) + "\n")


def read_stamp(validate: Path) -> str:
    """The hash of the dataset that passed last. Raises Refusal where none has."""
    stamp = validate / _STAMP
    if not stamp.is_file():
        raise UserError(f"{stamp}: is not there; build and check the dataset first: dvc repro validate")
    return str(json.loads(stamp.read_text())["dataset"])
