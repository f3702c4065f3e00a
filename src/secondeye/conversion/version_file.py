"""Which registered version a bundle belongs to: a file in the folder that it was fetched to.

version.json   {"version": 3, "tags": {...}}, beside artifacts/bundle
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from secondeye.system.files import write_atomic

_OURS = "version.json"
_MLFLOWS = "registered_model_meta"  # MLflow writes it when it loads a version itself; without tags


def write_version(folder: Path, version: int, tags: Mapping[str, str]) -> None:
    """Write the file into the folder of a fetched version."""
    record = {"version": version, "tags": dict(tags)}
    write_atomic(folder / _OURS, json.dumps(record, indent=1, sort_keys=True) + "\n")


def read_version(bundle: Path | None) -> tuple[int | None, dict[str, str]]:
    """Return number and tags of the version that a bundle belongs to; None if it was not fetched."""
    if bundle is None:
        return None, {}
    folder = bundle.absolute().parent.parent
    if (folder / _OURS).is_file():
        content = json.loads((folder / _OURS).read_text())
        return content["version"], content["tags"]
    meta = folder / _MLFLOWS
    found = re.search(r"model_version: '?(\d+)", meta.read_text()) if meta.is_file() else None
    return (int(found[1]) if found else None), {}
