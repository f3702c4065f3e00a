"""How far the scores of the dataset have moved since another revision, as Git and DVC remember that one."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from secondeye.dataset.tables import read_columns
from secondeye.report.document import Section, Table, to_markdown
from secondeye.system.errors import UserError

BINS = 10  # quantiles of the older scores
STABLE, SHIFTED = 0.1, 0.25  # of the population stability index; usual in credit scoring, where it comes from
CHANCE = 0.01  # of p: at the usual 0.05, one of a dozen unmoved scores has moved in 4 of 10 tables
SCORES = Path("data/quality/quality.parquet")
FILMS = Path("data/split/films.parquet")
KEPT = Path("data/filter/accepted.parquet")
_NO_SCORES = ("id", "key")

Columns = Mapping[str, Sequence[Any]]


class Drift(NamedTuple):
    """What became of one score."""

    score: str
    clips_before: int  # with a finite score; 0 where the score is new
    clips_now: int
    median_before: float  # NaN without clips
    median_now: float
    ks_distance: float  # [0, 1] (Kolmogorov-Smirnov); NaN where one side has no clips
    chance: float  # how often two draws of one distribution lie so far apart (its p-value), [0, 1], or NaN
    stability_index: float  # [0, infinity); NaN where one side has no clips

    @property
    def word(self) -> str:
        """What the stability index says, where chance does not say as much."""
        if not self.clips_before:
            return "new"
        if not self.clips_now:
            return "gone"
        if self.stability_index < STABLE:
            return "stable"
        if self.chance >= CHANCE:
            return "unsure"
        return "shifted" if self.stability_index < SHIFTED else "drifted"


def stability_index(
    before: np.ndarray,  # [N] finite
    now: np.ndarray,  # [M] finite
) -> float:  # [0, infinity)
    """The population stability index: the sum over bins of (q - p) ln(q / p), p and q the shares in a bin.

    Bins are the tenths of the older values; tied ones are one bin. An empty bin counts as half a clip (ours).
    """
    edges = np.unique(np.quantile(before, np.arange(1, BINS) / BINS))
    counts = [
        np.bincount(np.searchsorted(edges, part, "left"), minlength=edges.size + 1) for part in (before, now)
    ]
    filled = (counts[0] + counts[1]) > 0
    p, q = (np.maximum(count, 0.5)[filled] / count.sum() for count in counts)
    return float(((q - p) * np.log(q / p)).sum())


def find_drift(before: Columns, now: Columns) -> list[Drift]:
    """Every score either table has, in the order of the new one."""
    names = [name for name in dict.fromkeys([*now, *before]) if name not in _NO_SCORES]
    return [_drift_of(name, _finite(before.get(name, [])), _finite(now.get(name, []))) for name in names]


def _finite(values: Sequence[float]) -> np.ndarray:
    array = np.array(values, np.float64)
    return array[np.isfinite(array)]


def _drift_of(name: str, before: np.ndarray, now: np.ndarray) -> Drift:
    medians = [float(np.median(part)) if part.size else float("nan") for part in (before, now)]
    both = before.size and now.size
    distances = _distances(before, now) if both else (float("nan"),) * 3
    return Drift(name, before.size, now.size, medians[0], medians[1], *distances)


def _distances(before: np.ndarray, now: np.ndarray) -> tuple[float, float, float]:
    from scipy.stats import ks_2samp  # takes a second to import

    test = ks_2samp(before, now)
    return float(test.statistic), float(test.pvalue), stability_index(before, now)


def describe_drift(revision: str, before: Mapping[Path, Columns], now: Mapping[Path, Columns]) -> str:
    """Both versions beside each other, in Markdown. Tables of films and kept clips may be missing."""
    drifts = find_drift(before[SCORES], now[SCORES])
    head = ("score", "clips before", "now", "median before", "now", "KS distance", "p", "PSI", "")
    lines = [
        (
            drift.score,
            str(drift.clips_before),
            str(drift.clips_now),
            *(_number(value, ".4g") for value in (drift.median_before, drift.median_now)),
            *(_number(value, ".3f") for value in (drift.ks_distance, drift.chance, drift.stability_index)),
            drift.word,
        )
        for drift in drifts
    ]
    sections = [
        Section("Scores", [_NOTE, Table("", head, lines, "")]),
        *_films(before.get(FILMS), now.get(FILMS)),
        *_kept(before.get(KEPT), now.get(KEPT)),
    ]
    return to_markdown(f"The dataset since {revision}", sections)


_NOTE = (
    f"PSI, of tenths of the older scores: stable below {STABLE:g}, shifted below {SHIFTED:g}, else drifted; "
    f"unsure where so few clips move as far by chance (p, of Kolmogorov and Smirnov, is {CHANCE:g} or more)."
)


def _number(value: float, form: str) -> str:
    return "-" if np.isnan(value) else f"{value:{form}}"


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


def _kept(before: Columns | None, now: Columns | None) -> list[Section]:
    if before is None or now is None:
        return []
    lines = [
        (side, *(str(sum(split == side for split in part["split"])) for part in (before, now)))
        for side in ("train", "test")
    ]
    return [Section("Clips kept", [Table("", ("split", "before", "now"), lines, "")])]


def read_now(paths: Sequence[Path] = (SCORES, FILMS, KEPT)) -> dict[Path, Columns]:
    """The tables of this workspace, those that are there. Raises Refusal without scores."""
    if not SCORES.is_file():
        raise UserError(f"{SCORES}: is not there; build the dataset first: dvc repro quality")
    return {path: read_columns(path) for path in paths if path.is_file()}


def read_revision(revision: str, paths: Sequence[Path] = (SCORES, FILMS, KEPT)) -> dict[Path, Columns]:
    """The tables as DVC has them for a Git revision; all but the scores may be missing from it.

    Raises Refusal when there is no repository, no such revision, or no scores to be had.
    """
    os.environ["DVC_NO_ANALYTICS"] = "1"
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc.scm import RevError, SCMError

    try:
        stored = DVCFileSystem(rev=revision)
        stored.info("/")  # `exists` keeps errors to itself
        return {path: read for path in paths if (read := _read(stored, revision, path)) is not None}
    except RevError as error:
        raise UserError(
            f"{revision}: Git knows no such revision here; `git log` shows which there are"
        ) from error
    except SCMError as error:
        raise UserError("drift needs the project's Git repository; run it in the project's folder") from error
    except DvcException as error:
        raise UserError(f"{revision}: DVC can not read it: {' '.join(str(error).split())}") from error


def _read(stored: Any, revision: str, path: Path) -> Columns | None:
    """A table out of DVC's cache or its remote; None where the revision has none that can be done without."""
    if not _is_built(stored, path):
        if path != SCORES:
            return None
        raise UserError(
            f"{revision}: has no {SCORES} in a dvc.lock; name a revision whose dataset was committed"
        )
    from dvc_data.index import DataIndexDirError

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, path.name)
        try:
            copy.write_bytes(stored.read_bytes(path.as_posix()))
        except (FileNotFoundError, DataIndexDirError) as error:
            raise UserError(
                f"{revision}: {path} is not in DVC's cache; get it: dvc fetch --all-commits {path.parent}"
            ) from error
        return read_columns(copy)


def _is_built(stored: Any, path: Path) -> bool:
    """Whether the revision's dvc.lock names the folder; DVC itself does not tell that from an empty cache."""
    if not stored.exists("dvc.lock"):
        return False
    return f"path: {path.parent.as_posix()}\n" in stored.read_text("dvc.lock")
