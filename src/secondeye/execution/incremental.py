"""Finished work stays: a stage builds only what its folder does not hold yet.

Every item has a side entry `<id>.json` with the key of everything that made it. An item whose entry carries
the wanted key is done. Anything else is built: entry removed, files written under temporary names and
renamed, entry last. What belongs to no item is pruned, and the table is written at the very end by the stage.
So a killed run loses one item, and a stage's folder is the same bytes however often it was interrupted.

An item whose worker dies each time is bad like others, but gets no side entry: what killed it may lie in the
machine, so every run tries it again.
"""

import hashlib
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from tqdm import tqdm

from secondeye.dataset.schema import WORKER_CRASHED, FailedItem
from secondeye.dataset.tables import write_table
from secondeye.execution import code_hash, parallel
from secondeye.execution.dvc_cache import places_of
from secondeye.execution.parallel import WorkerCrashed
from secondeye.system.disk import require_free_space
from secondeye.system.errors import UserError
from secondeye.system.files import hash_file, write_atomic
from secondeye.system.text import pluralize

Row = TypeVar("Row")

_LEFT_BY_SYSTEMS = re.compile(r"\.DS_Store|\._.+|Thumbs\.db|desktop\.ini")  # wherever a folder was looked at
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
    name: str = ""  # what people know it by, where that is not its id


@dataclass(frozen=True)
class BuildResult(Generic[Row]):
    """What all jobs came to."""

    rows: list[Row]
    bad: list[FailedItem]


def make_key(stage: str, row_type: type, sections: Sequence[object], inputs: Sequence[str]) -> str:
    """The key of a result: inputs' keys, params sections, code, the row's columns, library versions."""
    parts = code_hash.code_and_versions(f"secondeye.stages.{stage}") | {
        "columns": [f"{field.name}:{field.type}" for field in fields(row_type)],
        "inputs": list(inputs),
        "params": [asdict(section) for section in sections],  # type: ignore[call-overload]
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def build_missing(
    out: Path,
    jobs: Sequence[Job],
    work: Callable[..., tuple[Row, list[Path]]],  # (out, id, key, *arguments) -> row, the files it wrote
    row_type: type[Row],
    *,
    label: str,
    max_bad_fraction: float,
    unit: str = "clip",
    in_order: bool = False,  # a worker that goes on with the next job has less to do than one that goes back
) -> BuildResult[Row]:
    """Build what is missing, prune what belongs to nothing, write `failed.parquet`.

    Prints the estimate of disk for what is missing. Raises Refusal when there is not that much, when `out`
    holds what no stage wrote, and as soon as more than `max_bad_fraction` of the jobs have turned out bad:
    the work ends there, what is finished stays, and `failed.parquet` says which.
    """
    _refuse_strangers(out)
    entries = {job.id: _read_entry(out, job) for job in jobs}
    missing = [job for job in jobs if entries[job.id] is None]
    if not in_order:  # the longest first: no worker is left alone with one at the end
        missing.sort(key=lambda job: -job.size_bytes)
    if need_bytes := sum(job.size_bytes for job in missing):
        for place, times in places_of(out):
            require_free_space(place, times * need_bytes, f"{label}{' (with its copy in DVC)' * (times > 1)}")
    _run_jobs(out, missing, work, entries, label, unit, max_bad_fraction * len(jobs))
    bad = [FailedItem(job_id, **entry["bad"]) for job_id, entry in entries.items() if entry and entry["bad"]]
    write_table(out / "failed.parquet", bad, FailedItem)
    if len(bad) > max_bad_fraction * len(jobs):
        untried = sum(entry is None for entry in entries.values())
        first = next(job.name or job.id for job in jobs if job.id == bad[0].id)
        raise UserError(
            f"{label}: {len(bad)} bad of {pluralize(len(jobs), unit)}, more than dataset.max_bad_fraction "
            f"{max_bad_fraction:g} allows; the first: {first}: {bad[0].reason} ({bad[0].detail})"
            + (f"; not tried: {untried}" if untried else "")
            + f"; all are in {out / 'failed.parquet'}"
        )
    if died := sum(one.reason == WORKER_CRASHED for one in bad):
        again = "`dvc repro --force` tries again and builds nothing else anew"
        print(f"{label}: workers died of {pluralize(died, unit)}; {again}", flush=True)
    _prune(out, entries)
    rows = [row_type(**entry["row"]) for entry in entries.values() if entry and not entry["bad"]]
    return BuildResult(rows, bad)


def _run_jobs(
    out: Path,
    missing: Sequence[Job],
    work: Callable[..., tuple[Any, list[Path]]],
    entries: dict[str, dict[str, Any] | None],  # completed here
    label: str,
    unit: str,
    most_bad: float,
) -> None:
    """Build until all is done, or until so many are bad that the rest does not matter."""
    bad = sum(bool(entry and entry["bad"]) for entry in entries.values())
    results = parallel.map(partial(_build, out, work), missing if bad <= most_bad else [])
    bar = tqdm(total=len(entries), initial=len(entries) - len(missing), desc=label, unit=unit, **_pace())
    with bar, closing(results):  # to close them ends the workers
        for position, result in results:
            job = missing[position]
            entry = _give_up(out, job, result) if isinstance(result, WorkerCrashed) else result
            entries[job.id] = entry
            bar.update()
            bad += bool(entry["bad"])
            if bad > most_bad:
                return


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
        content = _entry(job, {}, {}, {"reason": bad.reason, "detail": bad.detail})
    else:
        content = _entry(job, {path.name: _measured(path) for path in files}, asdict(row), {})
    write_atomic(entry, json.dumps(content, sort_keys=True, indent=1) + "\n")
    return content


def _give_up(out: Path, job: Job, died: WorkerCrashed) -> dict[str, Any]:
    """An entry like that of a bad item, which nobody writes; an older one goes."""
    (out / f"{job.id}.json").unlink(missing_ok=True)
    return _entry(job, {}, {}, {"reason": WORKER_CRASHED, "detail": died.detail})


def _entry(
    job: Job, files: Mapping[str, object], row: Mapping[str, object], bad: Mapping[str, str]
) -> dict[str, Any]:
    return {"key": job.key, "files": files, "row": row, "bad": bad}


def _measured(path: Path) -> dict[str, object]:
    return {"bytes": path.stat().st_size, "sha256": hash_file(path)}


def _read_entry(out: Path, job: Job) -> dict[str, Any] | None:
    """The entry of finished work whose files are there, whole as far as can be told without reading all."""
    path = out / f"{job.id}.json"
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except ValueError:  # half an entry, as a loss of power leaves it
        return None
    if content["key"] != job.key:
        return None
    written_ns = path.stat().st_mtime_ns
    whole = all(_is_whole(out / name, stored, written_ns) for name, stored in content["files"].items())
    return content if whole else None


def _is_whole(path: Path, stored: Mapping[str, Any], written_ns: int) -> bool:
    """Of full length, and the same bytes where it was touched after its entry was written."""
    if not path.exists() or (now := path.stat()).st_size != stored["bytes"]:
        return False
    return now.st_mtime_ns <= written_ns or hash_file(path) == stored["sha256"]


def _refuse_strangers(out: Path) -> None:
    """What is pruned can not be had back: never in a folder that is not a stage's own."""
    for path in out.iterdir():
        known = _OURS.fullmatch(path.name) or _LEFT_BY_SYSTEMS.fullmatch(path.name)
        if path.is_file() and not known:
            raise UserError(f"{out}: holds {path.name}, which no stage wrote; give it a folder of its own")


def _prune(out: Path, entries: Mapping[str, dict[str, Any] | None]) -> None:
    wanted = {f"{job_id}.json" for job_id in entries}
    wanted |= {name for entry in entries.values() if entry for name in entry["files"]}
    for path in out.iterdir():
        if path.is_file() and path.suffix != ".parquet" and path.name not in wanted:
            path.unlink()
