"""Drift between two versions of the dataset: exact for distributions computed by hand, and read from DVC."""

import math
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from small_dataset import row

from secondeye import cli
from secondeye.dataset.drift import (
    ACCEPTED,
    FILMS,
    SCORES,
    describe_drift,
    find_drift,
    read_revision,
    read_workspace,
)
from secondeye.dataset.schema import AcceptedClip, ClipQuality, Film
from secondeye.dataset.tables import write_table
from secondeye.system.errors import UserError

TEN = np.arange(10.0)  # one value in each tenth


def distances(before: np.ndarray, now: np.ndarray) -> tuple[float, float, float]:
    (drift,) = find_drift({"a": list(before)}, {"a": list(now)})
    return drift.ks_distance, drift.p_value, drift.stability_index


def test_equal_scores_show_no_drift() -> None:
    for scores in (TEN, TEN[::-1], np.tile(TEN, 3), np.zeros(5)):
        assert distances(scores, scores) == (0, 1, 0)
    assert distances(TEN, np.tile(TEN, 7)) == (0, 1, 0)


@pytest.mark.parametrize(
    ("now", "ks", "psi"),
    [
        # All in the last tenth: its share goes from 0.1 to 1, nine go from 0.1 to half a clip of ten.
        (np.full(10, 20.0), 1.0, 0.9 * math.log(10) + 9 * 0.05 * math.log(2)),
        # Five clips move from the lower half into the last tenth: 0.1 to 0.6, and five to half a clip.
        (np.array([5.0, 6, 7, 8, 9, 9, 9, 9, 9, 9]), 0.5, 0.5 * math.log(6) + 5 * 0.05 * math.log(2)),
        # Twice as many, the upper half three times as often as the lower.
        (np.repeat(TEN, [1] * 5 + [3] * 5), 0.25, 0.05 * 5 * math.log(3)),
        # A tenth ends at 0.9, which belongs to it.
        (np.array([0.9, *TEN[1:]]), 0.1, 0.0),
    ],
)
def test_distances_match_those_computed_by_hand(now: np.ndarray, ks: float, psi: float) -> None:
    found = distances(TEN, now)
    assert found[::2] == pytest.approx((ks, psi), abs=1e-12)


def test_random_draws_seldom_count_as_drift() -> None:
    rng = np.random.default_rng(0)
    words = Counter(
        drift.verdict
        for clips in (3, 10, 30, 100)
        for _ in range(25)
        for drift in find_drift({"a": rng.normal(size=clips)}, {"a": rng.normal(size=clips)})
    )
    assert words["shifted"] + words["drifted"] <= 4 and words["unsure"] > 50


def test_every_score_gets_its_verdict() -> None:
    tens = list(TEN) * 30
    before = {"id": ["x"] * 300, "a": tens, "b": tens, "c": tens, "old": tens, "d": [math.nan, *tens[1:]]}
    before["e"] = list(TEN)
    shifted = np.repeat(TEN, [42] * 5 + [18] * 5)
    few = [6.0, 8.0, 9.0]
    now = {"a": tens, "b": shifted, "c": np.add(tens, 5), "new": tens, "d": tens, "e": few}
    words = {drift.score: drift.verdict for drift in find_drift(before, now)}
    assert words == {
        "a": "stable",
        "b": "shifted",
        "c": "drifted",
        "new": "new",
        "d": "stable",
        "e": "unsure",
        "old": "gone",
    }
    assert [drift.clips_before for drift in find_drift(before, now) if drift.score == "d"] == [299]


def test_the_report_lists_added_and_removed_films() -> None:
    before = {
        SCORES: {"id": ["1", "2"], "psnr_db": [30.0, 32.0]},
        FILMS: {"id": ["f", "g"], "name": ["old.mp4", "both.mp4"]},
        ACCEPTED: {"id": ["1", "2"], "split": ["train", "test"]},
    }
    now = {
        SCORES: {"id": ["2"], "psnr_db": [32.0], "ssim": [0.9]},
        FILMS: {"id": ["g", "h"], "name": ["both.mp4", "new.mp4"]},
        ACCEPTED: {"id": ["2"], "split": ["test"]},
    }
    text = describe_drift("v1", before, now)
    assert "# The dataset since v1" in text and "###" not in text
    assert "| psnr_db | 2 | 1 | 31 | 32 | 0.500 | 1.000 |" in text
    assert "| ssim | 0 | 1 | - | 0.9 | - | - | - | new |" in text
    assert "| added | 1 | new.mp4 |" in text and "| removed | 1 | old.mp4 |" in text
    assert "| train | 1 | 0 |" in text and "| test | 1 | 1 |" in text
    del before[FILMS]
    assert "## Films" not in describe_drift("v1", before, now)


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_scores(folder: Path, scores: list[float]) -> None:
    rows = [row(ClipQuality, id=str(n), psnr_db=score) for n, score in enumerate(scores)]
    (folder / SCORES).parent.mkdir(parents=True, exist_ok=True)
    write_table(folder / SCORES, rows, ClipQuality)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Git repository with an empty commit, as the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    for name, value in (("NAME", "somebody"), ("EMAIL", "somebody@example.org")):
        for who in ("AUTHOR", "COMMITTER"):
            monkeypatch.setenv(f"GIT_{who}_{name}", value)
    run(tmp_path, "git", "init", "-q")
    run(tmp_path, "git", "commit", "-q", "--allow-empty", "-m", "empty")
    return tmp_path


@pytest.fixture
def with_dvc(project: Path) -> Path:
    """The same with DVC, and the scores of TEN committed as HEAD."""
    write_scores(project, list(TEN))
    (project / "data" / "filter").mkdir()
    write_table(project / ACCEPTED, [row(AcceptedClip, id="0", split="train")], AcceptedClip)
    stages = (f"  {name}:\n    cmd: 'true'\n    outs: [data/{name}]\n" for name in ("quality", "filter"))
    (project / "dvc.yaml").write_text("stages:\n" + "".join(stages))
    dvc = [sys.executable, "-m", "dvc"]
    run(project, *dvc, "init", "-q")
    run(project, *dvc, "commit", "-q", "-f")
    run(project, "git", "add", "-A")
    run(project, "git", "commit", "-q", "-m", "scores")
    return project


def test_a_revision_is_read_from_dvc_or_refused_in_one_line(
    with_dvc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scores(with_dvc, [20.0] * 10)
    (with_dvc / FILMS).parent.mkdir()
    write_table(with_dvc / FILMS, [row(Film, id="f", name="new.mp4")], Film)
    before, now = read_revision("HEAD"), read_workspace()
    assert set(before) == {SCORES, ACCEPTED} and set(now) == {SCORES, ACCEPTED, FILMS}
    drift = next(drift for drift in find_drift(before[SCORES], now[SCORES]) if drift.score == "psnr_db")
    assert (drift.median_before, drift.median_now, drift.ks_distance, drift.verdict) == (
        4.5,
        20,
        1,
        "drifted",
    )
    cli.drift("HEAD")
    assert "| psnr_db | 10 | 10 | 4.5 | 20 | 1.000 | 0.000 |" in capsys.readouterr().out

    with pytest.raises(UserError, match=r"HEAD~1: dvc.lock lists no data/quality"):
        read_revision("HEAD~1")
    with pytest.raises(UserError, match="nonsense: unknown Git revision"):
        read_revision("nonsense")
    shutil.rmtree(with_dvc / ".dvc" / "cache")
    with pytest.raises(UserError, match="not in DVC's cache; run dvc fetch"):
        read_revision("HEAD")
    shutil.rmtree(with_dvc / "data")
    with pytest.raises(UserError, match="dvc repro quality"):
        read_workspace()


def test_without_a_repository_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="needs the project's Git repository"):
        read_revision("HEAD")
