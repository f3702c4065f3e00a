"""The JSON file of depth maps that `secondeye depth` wrote: how to read them, and what made them.

DIR/depth.json or FILE.json
{"orientation": "near", "normalised": true, "frames": 48, "height": 216, "width": 384, "film": "film.mp4",
 "depth": {"name": "motion", ...}, "shots": [{"start": 0, "stop": 48, "confidence": 0.31}]}
"""

import json
from pathlib import Path
from typing import Any

from secondeye.system.errors import UserError

NEAR, FAR = "near", "far"
ORIENTATIONS = (NEAR, FAR)  # what larger values are
RECORD = "depth.json"


def read_record(path: Path) -> dict[str, Any]:
    """Return what `secondeye depth` wrote about the maps; {} if nothing.

    Raises UserError if it cannot be read, or holds values of another type or range.
    """
    file = record_of(path)
    if not file.is_file():
        return {}
    try:
        record = json.loads(file.read_text())
        if not isinstance(record, dict):
            raise TypeError("must be a JSON object")
        shots = record.get("shots", [])
        if not isinstance(shots, list):
            raise TypeError("shots must be a list")
        shots = [_check_shot(shot) for shot in shots]
        if record.get("orientation", NEAR) not in ORIENTATIONS:
            raise ValueError(f"orientation must be {' or '.join(ORIENTATIONS)}")
        if not isinstance(record.get("depth", {}), dict):
            raise TypeError("depth must be an object")
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{file}: cannot be read ({error}); delete it to have the maps read as others"
        ) from error
    return record | ({"shots": shots} if shots else {})


def _check_shot(shot: Any) -> dict[str, int | float]:
    if not isinstance(shot, dict) or not {"start", "stop", "confidence"} <= shot.keys():
        raise TypeError(f"a shot must have start, stop and confidence, got {shot!r}")
    start, stop, confidence = shot["start"], shot["stop"], shot["confidence"]
    if type(start) is not int or type(stop) is not int or not 0 <= start < stop:
        raise ValueError(f"a shot must be from one whole number to a larger one, got {start!r} to {stop!r}")
    if type(confidence) not in (int, float) or not 0 <= confidence <= 1:
        raise ValueError(f"confidence must be a number from 0 to 1, got {confidence!r}")
    return {"start": start, "stop": stop, "confidence": float(confidence)}


def is_own(path: Path) -> bool:
    """Return whether the JSON file that belongs to these depth maps was written by `secondeye depth`."""
    try:
        return "orientation" in read_record(path)
    except UserError:
        return False


def record_of(path: Path) -> Path:
    """Return the path of the JSON file that belongs to depth maps."""
    return path / RECORD if path.is_dir() else path.with_name(f"{path.name}.json")
