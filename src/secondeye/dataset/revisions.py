"""Find the Git commit that a dataset belongs to: the one whose dvc.lock names its stamp."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from secondeye.dataset.drift import FILMS, read_from_dvc
from secondeye.dataset.stamp import read_stamp
from secondeye.dataset.tables import read_columns

_VALIDATE = Path("data/validate")
_STAMP_OUT = re.compile(rf"- path: {_VALIDATE}\n\s+hash: md5\n\s+md5: ([0-9a-f]{{32}})\.dir")


class DatasetRevision(NamedTuple):
    """Where a dataset is recorded."""

    dataset: str  # its whole hash
    commit: str  # the oldest one that has it; "" if only the workspace has it
    subject: str  # date and subject of the commit


class Search(NamedTuple):
    """The result of a search."""

    found: DatasetRevision | None
    searched: int  # commits that change dvc.lock
    unreadable: int  # of these, commits whose dataset is not in DVC's cache


def find_dataset(prefix: str) -> Search:
    """Search this repository's history, then the workspace, for a dataset whose hash begins with `prefix`."""
    cache = Path(_output(sys.executable, "-m", "dvc", "cache", "dir").strip())
    commits = _output("git", "log", "--all", "--reverse", "--format=%H", "--", "dvc.lock").split()
    unreadable = 0
    for commit in commits:
        dataset = _dataset_of(commit, cache)
        unreadable += dataset is None
        if dataset and dataset.startswith(prefix):
            subject = _output("git", "show", "--no-patch", "--format=%as %s", commit).strip()
            return Search(DatasetRevision(dataset, commit, subject), len(commits), unreadable)
    here = read_stamp(_VALIDATE) if (_VALIDATE / "stamp.json").is_file() else ""
    if here and here.startswith(prefix):
        return Search(DatasetRevision(here, "", ""), len(commits), unreadable)
    return Search(None, len(commits), unreadable)


def commit_exists(commit: str) -> bool:
    """Return whether this repository has a commit."""
    return bool(
        _output("git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{commit}}")
    )


def films_of(revision: DatasetRevision) -> list[tuple[str, str]]:
    """Return name and licence of the films of a dataset. Raises UserError if DVC's cache lacks them."""
    table = read_from_dvc(revision.commit, FILMS) if revision.commit else read_columns(FILMS)
    return sorted(zip(table["name"], table["licence"], strict=True))


def _dataset_of(commit: str, cache: Path) -> str | None:
    """Return the hash of a commit's dataset; "" if it has none, None if DVC's cache lacks its stamp."""
    found = _STAMP_OUT.search(_output("git", "show", f"{commit}:./dvc.lock"))
    if not found:
        return ""
    listing = _cached(cache, f"{found[1]}.dir")
    for entry in json.loads(listing) if listing else ():
        if entry["relpath"] == "stamp.json":
            stamp = _cached(cache, entry["md5"])
            return str(json.loads(stamp)["dataset"]) if stamp else None
    return None


def _cached(cache: Path, md5: str) -> str:
    """Return a file of DVC's cache; "" if it is missing."""
    path = cache / "files" / "md5" / md5[:2] / md5[2:]
    return path.read_text() if path.is_file() else ""


def _output(*command: str) -> str:
    """Return what a command prints; nothing if it fails."""
    environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return "" if done.returncode else done.stdout
