"""Compare the scores of the dataset with those of another Git revision, read through DVC."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from secondeye.dataset.reader import TABLES
from secondeye.dataset.schema import AcceptedClip, ClipQuality, Film
from secondeye.dataset.tables import read_columns
from secondeye.report.document import Section, Table, to_markdown
from secondeye.system.errors import UserError

BINS = 10  # quantiles of the earlier scores
STABLE, SHIFTED = 0.1, 0.25  # limits of the population stability index, as in credit scoring
SIGNIFICANCE = 0.01  # of p; at 0.05, 4 of 10 tables with a dozen unchanged scores would show a change
SCORES, FILMS, ACCEPTED = (Path("data", *TABLES[row_type]) for row_type in (ClipQuality, Film, AcceptedClip))
_NOT_SCORES = ("id", "key")

Columns = Mapping[str, Sequence[Any]]


class Drift(NamedTuple):
    """How one score has changed."""

    score: str
    clips_before: int  # with a finite score; 0 for a new score
    clips_now: int
    median_before: float  # NaN without clips
    median_now: float
    ks_distance: float  # [0, 1] (Kolmogorov-Smirnov); NaN if one side has no clips
    p_value: float  # of the Kolmogorov-Smirnov test, [0, 1], or NaN
    stability_index: float  # [0, infinity); NaN if one side has no clips

    @property
    def verdict(self) -> str:
        """The stability index in a word; "unsure" if the change is not significant."""
        if not self.clips_before:
            return "new"
        if not self.clips_now:
            return "gone"
        if self.stability_index < STABLE:
            return "stable"
        if self.p_value >= SIGNIFICANCE:
            return "unsure"
        return "shifted" if self.stability_index < SHIFTED else "drifted"


def stability_index(
    before: np.ndarray,  # [N] finite
    now: np.ndarray,  # [M] finite
) -> float:  # [0, infinity)
    """Return the population stability index: the sum over bins of (q - p) ln(q / p).

    p and q are a bin's shares before and now. Bins are the deciles of the earlier values, equal ones merged;
    an empty bin counts as half a clip (our choice).
    """
    edges = np.unique(np.quantile(before, np.arange(1, BINS) / BINS))
    counts = [
        np.bincount(np.searchsorted(edges, part, "left"), minlength=edges.size + 1) for part in (before, now)
    ]
    filled = (counts[0] + counts[1]) > 0
    p, q = (np.maximum(count, 0.5)[filled] / count.sum() for count in counts)
    return float(((q - p) * np.log(q / p)).sum())


def find_drift(before: Columns, now: Columns) -> list[Drift]:
    """Compare every score that either table has, in the order of the new one."""
    names = [name for name in dict.fromkeys([*now, *before]) if name not in _NOT_SCORES]
    return [_compare(name, _finite(before.get(name, [])), _finite(now.get(name, []))) for name in names]


def _finite(values: Sequence[float]) -> np.ndarray:
    array = np.array(values, np.float64)
    return array[np.isfinite(array)]


def _compare(name: str, before: np.ndarray, now: np.ndarray) -> Drift:
    medians = [float(np.median(part)) if part.size else float("nan") for part in (before, now)]
    both = before.size and now.size
    distances = _distances(before, now) if both else (float("nan"),) * 3
    return Drift(name, before.size, now.size, medians[0], medians[1], *distances)


def _distances(before: np.ndarray, now: np.ndarray) -> tuple[float, float, float]:
    from scipy.stats import ks_2samp  # takes a second to import

    test = ks_2samp(before, now)
    return float(test.statistic), float(test.pvalue), stability_index(before, now)


def describe_drift(revision: str, before: Mapping[Path, Columns], now: Mapping[Path, Columns]) -> str:
    """Return a Markdown report of both versions. The tables of films and accepted clips may be missing."""
    drifts = find_drift(before[SCORES], now[SCORES])
    head = ("score", "clips before", "now", "median before", "now", "KS distance", "p", "PSI", "")
    lines = [
        (
            drift.score,
            str(drift.clips_before),
            str(drift.clips_now),
            *(_format(value, ".4g") for value in (drift.median_before, drift.median_now)),
            *(_format(value, ".3f") for value in (drift.ks_distance, drift.p_value, drift.stability_index)),
            drift.verdict,
        )
        for drift in drifts
    ]
    sections = [
        Section("Scores", [_NOTE, Table("", head, lines, "")]),
        *_films(before.get(FILMS), now.get(FILMS)),
        *_accepted(before.get(ACCEPTED), now.get(ACCEPTED)),
    ]
    return to_markdown(f"The dataset since {revision}", sections)


_NOTE = (
    f"PSI over deciles of the earlier scores: stable below {STABLE:g}, shifted below {SHIFTED:g}, else "
    f"drifted; unsure if the Kolmogorov-Smirnov test is not significant (p is {SIGNIFICANCE:g} or more)."
)


def _format(value: float, spec: str) -> str:
    return "-" if np.isnan(value) else f"{value:{spec}}"


def _films(before: Columns | None, now: Columns | None) -> list[Section]:
    if before is None or now is None:
        return []
    old, new = (dict(zip(part["id"], part["name"], strict=True)) for part in (before, now))
    added, removed = (sorted(a[i] for i in a.keys() - b.keys()) for a, b in ((new, old), (old, new)))
    head = ("", "count", "films")
    lines = [
        (w, str(len(names)), ", ".join(names) or "-") for w, names in (("added", added), ("removed", removed))
    ]
    return [Section("Films", [Table("", head, lines, "")])]


def _accepted(before: Columns | None, now: Columns | None) -> list[Section]:
    if before is None or now is None:
        return []
    lines = [
        (side, *(str(sum(split == side for split in part["split"])) for part in (before, now)))
        for side in ("train", "test")
    ]
    return [Section("Accepted clips", [Table("", ("split", "before", "now"), lines, "")])]


def read_workspace(paths: Sequence[Path] = (SCORES, FILMS, ACCEPTED)) -> dict[Path, Columns]:
    """Read the tables of this workspace that exist. Raises UserError without scores."""
    if not SCORES.is_file():
        raise UserError(f"{SCORES}: not found; build the dataset first: dvc repro quality")
    return {path: read_columns(path) for path in paths if path.is_file()}


def read_revision(revision: str, paths: Sequence[Path] = (SCORES, FILMS, ACCEPTED)) -> dict[Path, Columns]:
    """Read the tables of a Git revision from DVC's cache or remote; all but the scores may be missing.

    Raises UserError if there is no repository, no such revision, or no scores in it.
    """
    if _run("git", "rev-parse", "--git-dir").returncode:
        raise UserError("drift needs the project's Git repository; run it in the project's folder")
    if _run("git", "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}").returncode:
        raise UserError(f"{revision}: unknown Git revision; `git log` lists them")
    lock = _run("git", "show", "--end-of-options", f"{revision}:./dvc.lock").stdout
    found = [path for path in paths if f"path: {path.parent.as_posix()}\n" in lock]
    if SCORES not in found:
        raise UserError(f"{revision}: dvc.lock lists no {SCORES.parent}; name a revision with a dataset")
    return {path: read_from_dvc(revision, path) for path in found}


def read_from_dvc(revision: str, path: Path) -> Columns:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, path.name)
        get = ("get", "--quiet", f"--rev={revision}", "--out", str(copy), ".", path.as_posix())
        if _run(sys.executable, "-m", "dvc", *get).returncode:
            raise UserError(
                f"{revision}: {path} is not in DVC's cache; run dvc fetch --all-commits {path.parent}"
            )
        return read_columns(copy)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
