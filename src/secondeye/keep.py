"""Finished work stays: a stage builds only what its folder does not hold yet.

Every item has a side entry `<id>.json` with the key of everything that made it. An item whose entry carries
the wanted key is done. Anything else is built: entry removed, files written under temporary names and
renamed, entry last. What belongs to no item is pruned, and the table is written at the very end by the stage.
So a killed run loses one item, and a stage's folder is the same bytes however often it was interrupted.
"""

import hashlib
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from tqdm import tqdm

from secondeye import modules
from secondeye.disk import require_disk
from secondeye.files import write_whole
from secondeye.process import spread
from secondeye.refusal import Refusal
from secondeye.rows import Bad
from secondeye.tables import write_table

Row = TypeVar("Row")

# Everything a stage's folder holds besides tables is named after an item.
_OURS = re.compile(r"\.?[0-9a-f]{16}\..+|.+\.parquet|\..+\.part\.parquet")


class BadClip(Exception):
    """This clip can not be worked with; the only exception a stage's loop catches."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Job:
    """One item of a stage's work."""

    id: str
    key: str
    arguments: tuple[Any, ...]  # what the work is given; must pickle
    size_bytes: float  # about how much it writes


@dataclass(frozen=True)
class Done(Generic[Row]):
    """What all jobs came to."""

    rows: list[Row]
    bad: list[Bad]


def make_key(stage: str, row_type: type, sections: Sequence[object], inputs: Sequence[str]) -> str:
    """The key of a result: inputs' keys, params sections, code, the row's columns, library versions."""
    parts = modules.made_by(f"secondeye.stages.{stage}") | {
        "columns": [f"{field.name}:{field.type}" for field in fields(row_type)],
        "inputs": list(inputs),
        "params": [asdict(section) for section in sections],  # type: ignore[call-overload]
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def finish_jobs(
    out: Path,
    jobs: Sequence[Job],
    work: Callable[..., tuple[Row, list[Path]]],  # (out, id, key, *arguments) -> row, the files it wrote
    row_type: type[Row],
    *,
    label: str,
    max_bad_fraction: float,
    unit: str = "clip",
) -> Done[Row]:
    """Build what is missing, prune what belongs to nothing, write `bad.parquet`.

    Prints the estimate of disk for what is missing. Raises Refusal when there is not that much, when `out`
    holds what no stage wrote, and when more than `max_bad_fraction` of the jobs end in BadClip.
    """
    _refuse_strangers(out)
    entries = {job.id: _read_entry(out, job, row_type) for job in jobs}
    missing = [job for job in jobs if entries[job.id] is None]
    if need_bytes := sum(job.size_bytes for job in missing):
        require_disk(out, need_bytes, label)
    with tqdm(total=len(jobs), initial=len(jobs) - len(missing), desc=label, unit=unit, **_pace()) as bar:
        for position, entry in spread(partial(_build, out, work), missing):
            entries[missing[position].id] = entry
            bar.update()
    _prune(out, entries)
    bad = [Bad(job_id, **entry["bad"]) for job_id, entry in entries.items() if entry and entry["bad"]]
    write_table(out / "bad.parquet", bad, Bad)
    if len(bad) > max_bad_fraction * len(jobs):
        raise Refusal(
            f"{label}: {len(bad)} of {len(jobs)} clips are bad, more than dataset.max_bad_fraction "
            f"{max_bad_fraction:g} allows; the first: {bad[0].id}: {bad[0].reason} ({bad[0].detail})"
        )
    rows = [row_type(**entry["row"]) for entry in entries.values() if entry and not entry["bad"]]
    return Done(rows, bad)


def _pace() -> dict[str, float]:
    """A terminal is refreshed often, a log gets a line now and then."""
    return {"mininterval": 0.2 if sys.stderr.isatty() else 10.0}


def _build(out: Path, work: Callable[..., tuple[Any, list[Path]]], job: Job) -> dict[str, Any]:
    entry = out / f"{job.id}.json"
    # Without this, old entry + half of the new files would look finished after the params change back.
    entry.unlink(missing_ok=True)
    try:
        row, files = work(out, job.id, job.key, *job.arguments)
    except BadClip as bad:
        content = {
            "key": job.key,
            "files": [],
            "row": {},
            "bad": {"reason": bad.reason, "detail": bad.detail},
        }
    else:
        content = {"key": job.key, "files": sorted(f.name for f in files), "row": asdict(row), "bad": {}}
    write_whole(entry, json.dumps(content, sort_keys=True, indent=1) + "\n")
    return content


def _read_entry(out: Path, job: Job, row_type: type) -> dict[str, Any] | None:
    path = out / f"{job.id}.json"
    if not path.exists():
        return None
    content: dict[str, Any] = json.loads(path.read_text())
    whole = content["key"] == job.key and all((out / name).exists() for name in content["files"])
    return content if whole else None


def _refuse_strangers(out: Path) -> None:
    """What is pruned can not be had back: never in a folder that is not a stage's own."""
    for path in out.iterdir():
        if path.is_file() and not _OURS.fullmatch(path.name):
            raise Refusal(f"{out}: holds {path.name}, which no stage wrote; give it a folder of its own")


def _prune(out: Path, entries: Mapping[str, dict[str, Any] | None]) -> None:
    wanted = {f"{job_id}.json" for job_id in entries}
    wanted |= {name for entry in entries.values() if entry for name in entry["files"]}
    for path in out.iterdir():
        if path.is_file() and path.suffix != ".parquet" and path.name not in wanted:
            path.unlink()
