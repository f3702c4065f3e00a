"""What nothing refers to any more: found for `secondeye data clean`, and removed where that is asked for.

Conservative: what may still be needed, or can not be told, is kept, and the list says why. Symbolic links are
neither followed nor removed; nothing outside the project's folder is touched.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from secondeye.conversion.checkpoint import Checkpoint
from secondeye.registry.published_runs import published_runs
from secondeye.run_folder import Run
from secondeye.system.disk import format_bytes
from secondeye.system.errors import UserError
from secondeye.system.process import lock_dir

HOUR_S, WEEK_S = 3600.0, 7 * 86400.0
_PART = re.compile(r"\..+\.part(\..+)?")  # as files.arriving names them
_ITEM = re.compile(r"[0-9a-f]{16}\..+")
_UNFINISHED = re.compile(r"\..+\.unfinished")  # as conversion.journal names them
_NOT_OURS = {".git", ".venv", ".dvc", ".mlflow", ".prefect", "raw", "external", "matchers"}
_TOLD_IN = ("models", "reports", "data/evaluate")  # where a run that is in use is named
_MOST_TEXT = 32 * 2**20  # bytes of a file that is searched for keys


@dataclass(frozen=True)
class Finding:
    """One file or folder that could go."""

    path: Path
    bytes: int
    why: str
    kept: bool = False  # `why` says what for


def find_leftovers(project: Path) -> list[Finding]:
    """Temporary and orphaned files, abandoned conversions, run folders: what could go, and what can not."""
    return [*_find_files(project), *_find_conversions(project), *_find_runs(project)]


def delete(found: list[Finding]) -> list[Finding]:
    """Remove what is not kept; returns what was removed. What another process holds by now stays."""
    removed = []
    for finding in found:
        if finding.kept or finding.path.is_symlink():
            continue
        folder = finding.path if finding.path.is_dir() else finding.path.parent
        try:
            with lock_dir(folder):
                _remove(finding.path)
        except UserError:
            continue
        removed.append(finding)
    return removed


def describe(project: Path, found: list[Finding]) -> list[str]:
    """What could go, what stays and why, and what DVC can tidy up, a line each."""
    going = [finding for finding in found if not finding.kept]
    lines = [f"{_shown(project, finding)}: {finding.why}" for finding in going]
    lines += [f"{_shown(project, finding)}: stays, {finding.why}" for finding in found if finding.kept]
    total = sum(finding.bytes for finding in going)
    lines.append(f"{len(going)} could go, {format_bytes(total)}" if going else "nothing to delete")
    if cache := _size(project / ".dvc" / "cache"):
        lines.append(
            f"DVC's cache holds {format_bytes(cache)}; `dvc gc --workspace --all-commits` removes what no "
            "commit refers to"
        )
    return lines


def _shown(project: Path, finding: Finding) -> str:
    return f"{format_bytes(finding.bytes):>10}  {finding.path.relative_to(project)}"


def _remove(path: Path) -> None:
    if _UNFINISHED.fullmatch(path.name):
        Checkpoint(path).remove()  # what conversions put there, nothing else
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _find_files(project: Path) -> Iterator[Finding]:
    for top in ("data", "models", "reports", ".runs"):
        for folder, names in _walk(project / top):
            if any(_is_held(place) for place in (folder, *folder.parents) if place.is_relative_to(project)):
                continue
            for name in names:
                path = folder / name
                if _PART.fullmatch(name) and _age_s(path) > HOUR_S:
                    yield Finding(path, path.stat().st_size, "a temporary file that nobody finished")
            if top == "data":
                yield from _orphans(folder, names)


def _orphans(folder: Path, names: list[str]) -> Iterator[Finding]:
    """Files of items which no side entry lists; only in a folder that has side entries."""
    items = {name for name in names if _ITEM.fullmatch(name)}
    entries = {name for name in items if name.count(".") == 1 and name.endswith(".json")}
    if not entries:
        return
    listed = {name for entry in entries for name in _listed(folder / entry)}
    for name in sorted(items - entries - listed):
        path = folder / name
        if _age_s(path) > HOUR_S:
            yield Finding(path, path.stat().st_size, "no clip of its stage lists it")


def _listed(entry: Path) -> list[str]:
    """The files of a side entry; none of half an entry, which a loss of power leaves."""
    try:
        return list(json.loads(entry.read_text())["files"])
    except ValueError:
        return []


def _find_conversions(project: Path) -> Iterator[Finding]:
    for folder, names in _walk(project):
        if not _UNFINISHED.fullmatch(folder.name):
            continue
        idle_s = min([_age_s(folder), *(_age_s(folder / name) for name in names)])
        days = f"{idle_s / 86400:.0f} days"
        if idle_s > WEEK_S and not _is_held(folder):
            yield Finding(folder, _size(folder), f"a conversion that nobody went on with for {days}")


def _find_runs(project: Path) -> Iterator[Finding]:
    folders = [] if (project / ".runs").is_symlink() else sorted((project / ".runs").glob("*"))
    runs = [Run(folder) for folder in folders if (folder / "run.json").is_file() and not folder.is_symlink()]
    if not runs:
        return
    told = _told(project)
    try:
        published, away = published_runs(), ""
    except UserError as refusal:
        published, away = {}, str(refusal)
    for run in runs:
        needed = _why_needed(run, told, published, away)
        yield Finding(run.folder, _size(run.folder), needed or _why_not(run), kept=bool(needed))


def _why_needed(run: Run, told: bytes, published: dict[str, bool], away: str) -> str:
    """Why a run folder must stay; "" where it need not."""
    idle_s = min(_age_s(path / name) for path, names in _walk(run.folder) for name in names)
    if run.key[:8].encode() in told:
        return "models, reports or data/evaluate refer to it"
    if _is_held(run.folder):
        return "a process works in it"
    if away:
        return f"whether MLflow has it can not be asked: {away}"
    if run.key not in published or (run.finished and not published[run.key]):
        return "MLflow does not have all of it; `secondeye model publish`"
    if not run.finished and idle_s < WEEK_S:
        return "unfinished, and touched in the last week"
    return ""


def _why_not(run: Run) -> str:
    return "a finished run that others have replaced" if run.finished else "a run that nobody went on with"


def _told(project: Path) -> bytes:
    """All text in which a run that is in use is named."""
    texts = []
    for top in _TOLD_IN:
        for folder, names in _walk(project / top):
            files = [folder / name for name in names if name.endswith((".json", ".md", ".html", ".csv"))]
            texts += [path.read_bytes() for path in files if path.stat().st_size < _MOST_TEXT]
    return b"\n".join(texts)


def _walk(top: Path) -> Iterator[tuple[Path, list[str]]]:
    """Folders below `top`, itself included, and the names of their files; no symbolic links."""
    if top.is_symlink():
        return
    for folder, folders, names in os.walk(top):
        folders[:] = sorted(name for name in folders if name not in _NOT_OURS)
        yield Path(folder), sorted(name for name in names if not (Path(folder) / name).is_symlink())


def _size(top: Path) -> int:
    files = (Path(folder) / name for folder, _, names in os.walk(top) for name in names)
    return sum(path.lstat().st_size for path in files)


def _age_s(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def _is_held(folder: Path) -> bool:
    try:
        with lock_dir(folder):
            return False
    except UserError:
        return True
