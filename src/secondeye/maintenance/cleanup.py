"""Find files and folders that nothing refers to, for `secondeye data clean`, and delete them on request.

Conservative: what may still be needed is kept, and the list says why. Symbolic links are neither followed nor
deleted; nothing outside the project folder is touched.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from humanize import naturaldelta, naturalsize

from secondeye.conversion.checkpoint import Checkpoint
from secondeye.registry.published_runs import published_runs
from secondeye.run_folder import Run
from secondeye.system.errors import UserError
from secondeye.system.process import lock_dir

HOUR_S, WEEK_S = 3600.0, 7 * 86400.0
_PART = re.compile(r"\..+\.part(\..+)?")  # temporary names of system.files.atomic_path
_ITEM = re.compile(r"[0-9a-f]{16}\..+")
_UNFINISHED = re.compile(r"\..+\.unfinished")  # folders of conversion.checkpoint
_FOREIGN = {".git", ".venv", ".dvc", ".mlflow", ".prefect", "raw", "external", "matchers"}
_REFERRING = ("models", "reports", "data/evaluate")  # folders whose files name the runs in use
_MAX_TEXT_BYTES = 32 * 2**20  # larger files are not searched for run keys


@dataclass(frozen=True)
class Finding:
    """One file or folder that may be deleted."""

    path: Path
    bytes: int
    reason: str
    kept: bool = False  # `reason` then says why


def find_leftovers(project: Path) -> list[Finding]:
    """Return temporary and orphaned files, abandoned conversions and run folders, deletable or kept."""
    return [*_find_files(project), *_find_conversions(project), *_find_runs(project)]


def delete(findings: list[Finding]) -> list[Finding]:
    """Delete what is not kept and return what was deleted. Folders locked by another process are skipped."""
    deleted = []
    for finding in findings:
        if finding.kept or finding.path.is_symlink():
            continue
        folder = finding.path if finding.path.is_dir() else finding.path.parent
        try:
            with lock_dir(folder):
                _delete(finding.path)
        except UserError:
            continue
        deleted.append(finding)
    return deleted


def describe(project: Path, findings: list[Finding]) -> list[str]:
    """Return one line per finding, the total size, and the size of DVC's cache."""
    deletable = [finding for finding in findings if not finding.kept]
    lines = [f"{_path_and_size(project, finding)}: {finding.reason}" for finding in deletable]
    lines += [f"{_path_and_size(project, found)}: kept, {found.reason}" for found in findings if found.kept]
    total = sum(finding.bytes for finding in deletable)
    lines.append(f"{len(deletable)} can be deleted, {_size(total)}" if deletable else "nothing to delete")
    if cache := _size_bytes(project / ".dvc" / "cache"):
        lines.append(
            f"DVC's cache holds {_size(cache)}; `dvc gc --workspace --all-commits` deletes what no commit "
            "refers to"
        )
    return lines


def _path_and_size(project: Path, finding: Finding) -> str:
    return f"{_size(finding.bytes):>10}  {finding.path.relative_to(project)}"


def _size(size_bytes: int) -> str:
    return naturalsize(size_bytes, binary=True)


def _delete(path: Path) -> None:
    if _UNFINISHED.fullmatch(path.name):
        Checkpoint(path).remove()  # only what conversions wrote there
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _find_files(project: Path) -> Iterator[Finding]:
    for top in ("data", "models", "reports", ".runs"):
        for folder, names in _walk(project / top):
            if any(_is_locked(place) for place in (folder, *folder.parents) if place.is_relative_to(project)):
                continue
            for name in names:
                path = folder / name
                if _PART.fullmatch(name) and _age_s(path) > HOUR_S:
                    yield Finding(path, path.stat().st_size, "an unfinished temporary file")
            if top == "data":
                yield from _find_orphans(folder, names)


def _find_orphans(folder: Path, names: list[str]) -> Iterator[Finding]:
    """Find item files that no side entry lists, in folders that have side entries."""
    items = {name for name in names if _ITEM.fullmatch(name)}
    entries = {name for name in items if name.count(".") == 1 and name.endswith(".json")}
    if not entries:
        return
    listed = {name for entry in entries for name in _listed_files(folder / entry)}
    for name in sorted(items - entries - listed):
        path = folder / name
        if _age_s(path) > HOUR_S:
            yield Finding(path, path.stat().st_size, "no clip of its stage lists it")


def _listed_files(entry: Path) -> list[str]:
    """Return the files that a side entry lists; none if it is truncated, as after a power loss."""
    try:
        return list(json.loads(entry.read_text())["files"])
    except ValueError:
        return []


def _find_conversions(project: Path) -> Iterator[Finding]:
    for folder, names in _walk(project):
        if not _UNFINISHED.fullmatch(folder.name):
            continue
        idle_s = min([_age_s(folder), *(_age_s(folder / name) for name in names)])
        if idle_s > WEEK_S and not _is_locked(folder):
            idle = naturaldelta(timedelta(seconds=idle_s))
            yield Finding(
                folder,
                _size_bytes(folder),
                f"a conversion, unfinished or kept for edits of its plan, unused for {idle}",
            )


def _find_runs(project: Path) -> Iterator[Finding]:
    folders = [] if (project / ".runs").is_symlink() else sorted((project / ".runs").glob("*"))
    runs = [Run(folder) for folder in folders if (folder / "run.json").is_file() and not folder.is_symlink()]
    if not runs:
        return
    references = _read_references(project)
    try:
        published, unreachable = published_runs(), ""
    except UserError as error:
        published, unreachable = {}, str(error)
    for run in runs:
        needed = _reason_to_keep(run, references, published, unreachable)
        yield Finding(
            run.folder, _size_bytes(run.folder), needed or _reason_to_delete(run), kept=bool(needed)
        )


def _reason_to_keep(run: Run, references: bytes, published: dict[str, bool], unreachable: str) -> str:
    """Return why a run folder must stay, or "" if it need not."""
    idle_s = min(_age_s(path / name) for path, names in _walk(run.folder) for name in names)
    if run.key[:8].encode() in references:
        return "models, reports or data/evaluate refer to it"
    if _is_locked(run.folder):
        return "a process works in it"
    if unreachable:
        return f"unknown whether MLflow has it: {unreachable}"
    if run.key not in published or (run.finished and not published[run.key]):
        return "MLflow does not have all of it; run `secondeye model publish`"
    if not run.finished and idle_s < WEEK_S:
        return "unfinished and changed within the last week"
    return ""


def _reason_to_delete(run: Run) -> str:
    return "a finished run that newer runs have replaced" if run.finished else "an abandoned run"


def _read_references(project: Path) -> bytes:
    """Return the text of all files that may name a run in use."""
    texts = []
    for top in _REFERRING:
        for folder, names in _walk(project / top):
            files = [folder / name for name in names if name.endswith((".json", ".md", ".html", ".csv"))]
            texts += [path.read_bytes() for path in files if path.stat().st_size < _MAX_TEXT_BYTES]
    return b"\n".join(texts)


def _walk(top: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield `top` and the folders below it with the names of their files, without symbolic links."""
    if top.is_symlink():
        return
    for folder, folders, names in os.walk(top):
        folders[:] = sorted(name for name in folders if name not in _FOREIGN)
        yield Path(folder), sorted(name for name in names if not (Path(folder) / name).is_symlink())


def _size_bytes(top: Path) -> int:
    files = (Path(folder) / name for folder, _, names in os.walk(top) for name in names)
    return sum(path.lstat().st_size for path in files)


def _age_s(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def _is_locked(folder: Path) -> bool:
    try:
        with lock_dir(folder):
            return False
    except UserError:
        return True
