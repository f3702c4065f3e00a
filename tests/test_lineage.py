"""Lineage from a film to the films that its model was trained on, in a project with Git, DVC and MLflow."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import a_film
from typer.testing import CliRunner

from secondeye import cli
from secondeye.conversion.bundle import Bundle, settings_from_bundle, write_bundle
from secondeye.conversion.bundle_parts import SHIPPED
from secondeye.conversion.convert import convert
from secondeye.dataset.drift import FILMS
from secondeye.dataset.schema import Film
from secondeye.dataset.tables import write_table
from secondeye.registry.champion import ensure_champion
from secondeye.registry.models import fetch_version
from secondeye.registry.publish import publish_all
from secondeye.registry.register import VersionFacts
from secondeye.registry.server import connected
from secondeye.run_folder import Run, open_run
from secondeye.system.files import hash_weights

DATASET = "d" * 64


@dataclass(frozen=True)
class Settings:
    steps: int


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def finished_run(key: str, stage: str, end: dict[str, str], **tags: str) -> Run:
    made = open_run(Path(".runs"), key, stage, Settings(1), tags)
    made.finish(end)
    return made


def lineage(name: str | Path) -> tuple[int, list[str]]:
    """Return the exit code and the lines that the command prints."""
    done = CliRunner().invoke(cli.app, ["lineage", str(name)])
    return done.exit_code, done.stdout.splitlines()


@pytest.fixture
def commit(with_registry: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Change into a project and return the commit whose dvc.lock has its dataset of two films."""
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    for name in ("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"):
        monkeypatch.setenv(name, "somebody")
    run("git", "init", "-q")
    Path(".gitignore").write_text(".mlflow\n.runs\n*.mp4\n")
    (Path("data") / "validate").mkdir(parents=True)
    Path("data/validate/stamp.json").write_text(json.dumps({"clips": 2, "dataset": DATASET}))
    FILMS.parent.mkdir()
    write_table(FILMS, [a_film("one.mp4"), a_film("two.mp4", licence="CC-BY-4.0")], Film)
    stages = (f"  {name}:\n    cmd: 'true'\n    outs: [data/{name}]\n" for name in ("split", "validate"))
    Path("dvc.yaml").write_text("stages:\n" + "".join(stages))
    run("git", "commit", "-q", "--allow-empty", "-m", "before the dataset")
    run(sys.executable, "-m", "dvc", "init", "-q")
    run(sys.executable, "-m", "dvc", "commit", "-q", "-f")
    run("git", "add", "-A")
    run("git", "commit", "-qm", "two films")
    return run("git", "rev-parse", "HEAD")


@pytest.mark.slow(seconds=12)
def test_lineage_leads_from_a_film_to_the_films_of_its_dataset(
    commit: str, make_film: Callable[..., Path]
) -> None:
    weights = shutil.copytree(SHIPPED / "inpaint", Path("light"))
    (weights / "notes.json").write_text("{}")  # other weights than the shipped ones
    digest = hash_weights(weights)
    training = finished_run("1" * 32, "train_light", {"weights": digest}, dataset=DATASET, licences="CC0-1.0")
    finished_run("e" * 32, "evaluate", {}, manifest="m" * 64, **{"run.light": training.key})
    challenge = {"challenger": f"motion and light {digest[:12]}", "part": "inpainter"}
    finished_run("f" * 32, "gate", {"verdict": "won", "why": "better"}, evaluation="e" * 32, **challenge)
    publish_all([Path(".runs")])
    tags = {"inpainter": "light", "inpainter_run": training.key, "inpainter_licences": "CC0-1.0"}
    made = write_bundle(Path("made"), Bundle("motion", "light", 3.0, 0.5), None, weights)
    ensure_champion(made, VersionFacts({"depth": "motion", **tags}, ""))
    bundle = fetch_version("models:/secondeye@champion").bundle
    film = Path("film_sbs.mp4")
    convert(make_film(shots=(3,), sound=False), film, settings_from_bundle(bundle), log=lambda line: None)

    code, lines = lineage(film)
    assert code == 0
    links = ("film film_sbs.mp4: from film.mp4", "version 1 (@champion)", "run 111111111111: train_light")
    data = (f"Git commit {commit[:12]}", f"dvc.lock of commit {commit[:12]}", "two.mp4: CC-BY-4.0")
    places = [next(n for n, line in enumerate(lines) if link in line) for link in (*links, *data)]
    assert places == sorted(places)
    assert any("run ffffffffffff: gate, FINISHED, inpainter won: better" in line for line in lines)
    assert any("run eeeeeeeeeeee: evaluate" in line for line in lines)
    assert sum(f"inpainter light: weights {digest[:12]}, licences CC0-1.0" in line for line in lines) == 2
    assert any("depth motion: no weights" in line for line in lines)
    for name, first in (
        ("1", "version 1"),
        ("models:/secondeye@champion", "version 1"),
        (training.key[:8], "run 111111111111"),
        (DATASET[:8], "dataset dddddddddddd"),
    ):
        code, lines = lineage(name)
        assert code == 0 and lines[0].startswith(first) and "two.mp4: CC-BY-4.0" in lines[-1]
    breaks_are_named(film)


def breaks_are_named(film: Path) -> None:
    """Check the links of a film after its dataset is lost from DVC's cache, and its version."""
    shutil.rmtree(".dvc/cache")
    shutil.rmtree("data")
    code, lines = lineage(film)
    [broken] = [line for line in lines if "BROKEN" in line]
    assert code == 1 and "dataset dddddddddddd: not found" in broken and "dvc fetch --all-commits" in broken
    shutil.rmtree(".runs")
    assert lineage(film)[1][-1] == lines[-1], "MLflow has the runs, too"
    with connected() as client:
        client.delete_model_version("secondeye", "1")
    code, lines = lineage(film)
    [broken] = [line for line in lines if "BROKEN" in line]
    assert code == 1 and "version 1: not found (MLflow has no version)" in broken


def test_film_that_says_nothing_is_a_broken_link(with_registry: Path, make_film: Callable[..., Path]) -> None:
    film = make_film(shots=(3,))
    assert lineage(film) == (
        1,
        [line for line in lineage(film)[1] if line.startswith(f"BROKEN: film {film}")],
    )
    done = CliRunner().invoke(cli.app, ["lineage", "no/such.mp4"])
    assert "neither a film, nor a version" in str(done.exception)
