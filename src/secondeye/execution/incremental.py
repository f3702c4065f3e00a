"""Incremental builds: a stage builds only the items that its folder does not hold yet.

Every item has a side entry `<id>.json` with its key, the hash of all its inputs. An item whose entry has the
wanted key is done. Any other item is built: its entry is removed, files are written under temporary names and
renamed, the entry is written last. Files that belong to no item are deleted; the stage writes its table at
the end. So a killed run loses only the items in progress, and a stage's folder contains the same bytes
regardless of interruptions.

An item whose worker crashes at every attempt counts as failed but gets no entry: the cause may be the
machine, so every run tries it again.
"""

import hashlib
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from tqdm import tqdm

from secondeye.dataset.checksums import file_records, is_intact
from secondeye.dataset.reader import FAILED
from secondeye.dataset.schema import WORKER_CRASHED, FailedItem
from secondeye.dataset.tables import write_table
from secondeye.execution import code_hash, parallel
from secondeye.execution.parallel import WorkerCrashed
from secondeye.system.disk import require_free_space
from secondeye.system.errors import UserError
from secondeye.system.files import hash_file, write_atomic
from secondeye.system.text import pluralize

Row = TypeVar("Row")

_MAX_NAMES = 100  # of films in a message
_SYSTEM_FILES = re.compile(r"\.DS_Store|\._.+|Thumbs\.db|desktop\.ini")  # left by file browsers
# Apart from tables, everything in a stage's folder is named after an item.
_STAGE_FILES = re.compile(r"\.?[0-9a-f]{16}\..+|.+\.parquet|\..+\.part\.parquet")


class BadClip(Exception):
    """The item cannot be processed. The only exception that a stage's loop catches."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Job:
    """One item to build."""

    id: str
    key: str
    arguments: tuple[Any, ...]  # passed to the work function; must be picklable
    size_bytes: float  # upper bound of what it writes
    name: str = ""  # for messages, if the id is not readable
    film: str = ""  # name of the film it is cut from: one whose items all fail counts once


@dataclass(frozen=True)
class BuildResult(Generic[Row]):
    """The outcome of all jobs."""

    rows: list[Row]
    failed: list[FailedItem]


class _Finished(NamedTuple):
    """What a build keeps of an item in memory: a fraction of its record."""

    row: Any  # None if it has failed
    failed: FailedItem | None
    files: tuple[str, ...]  # their names


class Failures:
    """Count what failed: a film all of whose items failed counts once, since it says nothing of the stage.

    Every count is a lower bound while items are missing.
    """

    def __init__(self, jobs: Sequence[Job], max_bad_fraction: float) -> None:
        self._max_bad_fraction = max_bad_fraction
        self._sizes = Counter(job.film for job in jobs)
        self._failed: Counter[str] = Counter()
        self._succeeded: Counter[str] = Counter()
        self._bad, self._total = 0, len(jobs)

    def add(self, film: str, *, failed: bool) -> None:
        """Count one finished item."""
        bad, total = self._weight(film)
        (self._failed if failed else self._succeeded)[film] += 1
        new_bad, new_total = self._weight(film)
        self._bad, self._total = self._bad + new_bad - bad, self._total + new_total - total

    def _weight(self, film: str) -> tuple[int, int]:
        """Return how many failures and how many items a film counts for, whichever exceeds the bound less."""
        failed, size = self._failed[film], self._sizes[film]
        may_all_fail = film and failed and not self._succeeded[film]
        once = may_all_fail and failed - 1 >= self._max_bad_fraction * (size - 1)
        return (1, 1) if once else (failed, size)

    @property
    def too_many(self) -> bool:
        """Whether more than the allowed fraction has failed."""
        return self._bad > self._max_bad_fraction * self._total

    @property
    def counted_once(self) -> str:
        """How the failures were counted, for a message; "" if one by one."""
        if self._total == self._sizes.total():
            return ""
        return f" ({self._bad} of {self._total} if a film without a good one counts once)"

    @property
    def unused_films(self) -> list[str]:
        """The films all of whose items failed, by name."""
        return sorted(film for film, size in self._sizes.items() if film and self._failed[film] == size)


def make_key(stage: str, row_type: type, sections: Sequence[object], inputs: Sequence[str]) -> str:
    """Hash everything a result depends on: input keys, params, code, row columns, library versions."""
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
    in_order: bool = False,  # keep the order of the jobs, where decoding in sequence is cheaper than seeking
) -> BuildResult[Row]:
    """Build the missing items, delete files that belong to no item, write `failed.parquet`.

    Raises UserError if the disk lacks room for the missing items, if `out` holds files that no stage
    wrote, and as soon as more than `max_bad_fraction` of the jobs have failed, where a film whose jobs all
    fail counts once. Finished items are kept then, and `failed.parquet` lists the failures.
    """
    _require_own_folder(out)
    finished = {job.id: _read_finished(out, job, row_type) for job in jobs}
    missing = [job for job in jobs if finished[job.id] is None]
    if not in_order:  # the longest first, so that the workers finish together
        missing.sort(key=lambda job: -job.size_bytes)
    if need_bytes := sum(job.size_bytes for job in missing):
        require_free_space(out, need_bytes, label)
    failures = Failures(jobs, max_bad_fraction)
    for job in jobs:
        if item := finished[job.id]:
            failures.add(job.film, failed=bool(item.failed))
    _run_jobs(out, missing, work, finished, row_type, label, unit, failures)
    failed = [item.failed for item in finished.values() if item and item.failed]
    write_table(out / FAILED, failed, FailedItem)
    if failures.too_many:
        untried = sum(item is None for item in finished.values())
        first = next(job.name or job.id for job in jobs if job.id == failed[0].id)
        raise UserError(
            f"{label}: {len(failed)} of {pluralize(len(jobs), unit)} failed{failures.counted_once}, more "
            f"than dataset.max_bad_fraction {max_bad_fraction:g} allows; the first: {first}: "
            f"{failed[0].reason} ({failed[0].detail})"
            + (f"; not tried: {untried}" if untried else "")
            + f"; all are listed in {out / FAILED}"
        )
    if crashed := sum(item.reason == WORKER_CRASHED for item in failed):
        retry = "`dvc repro --force` retries them and rebuilds nothing else"
        print(f"{label}: {pluralize(crashed, unit)} failed because the worker crashed; {retry}", flush=True)
    if unused := failures.unused_films:
        more = f" and {len(unused) - _MAX_NAMES} more" if len(unused) > _MAX_NAMES else ""
        print(f"{label}: no clip is left of {', '.join(unused[:_MAX_NAMES])}{more}", flush=True)
    _prune(out, finished)
    return BuildResult([item.row for item in finished.values() if item and not item.failed], failed)


def _run_jobs(
    out: Path,
    missing: Sequence[Job],
    work: Callable[..., tuple[Any, list[Path]]],
    finished: dict[str, _Finished | None],  # updated in place
    row_type: type,
    label: str,
    unit: str,
    failures: Failures,  # of the finished items; updated in place
) -> None:
    """Build until all items are done, or too many have failed."""
    results = parallel.map(partial(_build, out, work), [] if failures.too_many else missing)
    bar = tqdm(
        total=len(finished), initial=len(finished) - len(missing), desc=label, unit=unit, **_bar_interval()
    )
    with bar, closing(results):  # closing the generator stops the workers
        for position, result in results:
            job = missing[position]
            record = _crashed_record(out, job, result) if isinstance(result, WorkerCrashed) else result
            finished[job.id] = item = _finished(job, record, row_type)
            bar.update()
            failures.add(job.film, failed=bool(item.failed))
            if failures.too_many:
                return


def _bar_interval() -> dict[str, float]:
    """Refresh the progress bar often in a terminal, seldom in a log."""
    return {"mininterval": 0.2 if sys.stderr.isatty() else 10.0}


def _build(out: Path, work: Callable[..., tuple[Any, list[Path]]], job: Job) -> dict[str, Any]:
    path = out / f"{job.id}.json"
    # Remove first: if the params change back, the old record must not match half-written files.
    path.unlink(missing_ok=True)
    try:
        row, files = work(out, job.id, job.key, *job.arguments)
    except BadClip as bad:
        record = _record(job, {}, {}, {"reason": bad.reason, "detail": bad.detail})
    else:
        record = _record(job, {file.name: _describe_file(file) for file in files}, asdict(row), {})
    write_atomic(path, json.dumps(record, sort_keys=True, indent=1) + "\n")
    return record


def _crashed_record(out: Path, job: Job, crash: WorkerCrashed) -> dict[str, Any]:
    """Return the record of a failed item without writing it; remove an older one."""
    (out / f"{job.id}.json").unlink(missing_ok=True)
    return _record(job, {}, {}, {"reason": WORKER_CRASHED, "detail": crash.detail})


def _record(
    job: Job, files: Mapping[str, object], row: Mapping[str, object], failed: Mapping[str, str]
) -> dict[str, Any]:
    return {"key": job.key, "files": files, "row": row, "failed": failed}


def _describe_file(path: Path) -> dict[str, object]:
    return {"bytes": path.stat().st_size, "sha256": hash_file(path)}


def _finished(job: Job, record: Mapping[str, Any], row_type: type) -> _Finished:
    failed = FailedItem(job.id, **record["failed"]) if record["failed"] else None
    return _Finished(None if failed else row_type(**record["row"]), failed, tuple(record["files"]))


def _read_finished(out: Path, job: Job, row_type: type) -> _Finished | None:
    """Return a finished item, or None if its record is missing or outdated or its files are incomplete."""
    path = out / f"{job.id}.json"
    try:
        record: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):  # never built; truncated by a power loss
        return None
    if record["key"] != job.key:
        return None
    files = file_records(job.id, record["files"], path.stat().st_mtime_ns)
    if not all(is_intact(out / file.name, file) for file in files):
        return None
    return _finished(job, record, row_type)


def _require_own_folder(out: Path) -> None:
    """Raise UserError if a folder contains files that no stage writes: pruning would delete them."""
    with os.scandir(out) as found:
        for entry in found:
            known = _STAGE_FILES.fullmatch(entry.name) or _SYSTEM_FILES.fullmatch(entry.name)
            if not known and entry.is_file():
                raise UserError(f"{out}: contains {entry.name}, which no stage wrote; move it elsewhere")


def _prune(out: Path, finished: Mapping[str, _Finished | None]) -> None:
    wanted = {f"{item}.json" for item in finished}
    wanted.update(name for item in finished.values() if item for name in item.files)
    with os.scandir(out) as found:
        foreign = [e for e in found if e.name not in wanted and not e.name.endswith(".parquet")]
        for entry in foreign:
            if entry.is_file():
                os.unlink(entry)
