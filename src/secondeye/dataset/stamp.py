"""Read and write the stamp of the stage `validate`: the hash of the dataset that passed."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from secondeye.dataset.schema import AcceptedClip, ClipQuality
from secondeye.system.errors import UserError
from secondeye.system.files import write_atomic

_STAMP = "stamp.json"


def dataset_hash(accepted: Iterable[AcceptedClip], quality: Mapping[str, ClipQuality]) -> str:
    """Hash a dataset: its clips, their splits, and the keys of everything that went into them."""
    lines = sorted(f"{row.id} {row.split} {quality[row.id].key}" for row in accepted)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def remove_stamp(validate: Path) -> None:
    """Mark the dataset as not validated."""
    (validate / _STAMP).unlink(missing_ok=True)


def write_stamp(validate: Path, clips: int, dataset: str) -> None:
    """Write the stamp: clip count and dataset hash."""
    content = {"clips": clips, "dataset": dataset}
    write_atomic(validate / _STAMP, json.dumps(content, sort_keys=True) + "\n")


def read_stamp(validate: Path) -> str:
    """Return the hash of the dataset that passed last. Raises UserError if none has."""
    stamp = validate / _STAMP
    if not stamp.is_file():
        raise UserError(f"{stamp}: not found; build and validate the dataset first: dvc repro validate")
    return str(json.loads(stamp.read_text())["dataset"])
