"""dvc.yaml agrees with the stages in names, params, paths and code; `dvc repro` rebuilds what it must."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from fractions import Fraction
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from conftest import shared_folder, wait_until_dead

from secondeye.dataset.schema import ClipQuality
from secondeye.dataset.tables import read_table
from secondeye.execution import code_hash
from secondeye.params import Params
from secondeye.stages import STAGES
from secondeye.synthetic import two_planes
from secondeye.system.process import hold_lock
from secondeye.video.write import write_film

PROJECT = Path(__file__).parent.parent
DATASET = STAGES[: STAGES.index("validate") + 1]
FILMS = 4  # of the clone
PATHS = {
    "data": "data",
    "models": "models",
    "reports": "reports",
    "runs": ".runs",
    "autoencoder": "models/autoencoder",
}
OUTS = {  # weights lie apart from data
    "train_depth": "models/depth",
    "train_light": "models/inpaint/light",
    "train_autoencoder": "models/autoencoder",
    "train_diffusion": "models/inpaint/diffusion",
    "train_deep3d": "models/deep3d",
}
GRAPH: dict[str, Any] = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]


def test_stages_are_listed_in_order_and_described() -> None:
    assert tuple(GRAPH) == STAGES
    assert all(stage["desc"] for stage in GRAPH.values())


@pytest.mark.parametrize(
    "path", ["data/raw/film.mp4.dvc", "data/raw/.gitignore", "data/raw/sources.csv", "models/README.md"]
)
def test_git_tracks_what_a_clone_needs(path: str) -> None:
    assert subprocess.run(["git", "check-ignore", "-q", path], cwd=PROJECT).returncode == 1


@pytest.mark.parametrize("path", ["data/raw/film.mp4", "data/split", "models/depth", ".runs/1"])
def test_git_ignores_what_dvc_tracks(path: str) -> None:
    assert subprocess.run(["git", "check-ignore", "-q", path], cwd=PROJECT).returncode == 0


def git(project: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=project, check=True, capture_output=True)


def dvc(project: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=project, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("stage", STAGES)
def test_params_are_the_keyword_only_arguments(stage: str) -> None:
    arguments = signature(import_module(f"secondeye.stages.{stage}").run).parameters.values()
    sections = [a.name for a in arguments if a.kind is Parameter.KEYWORD_ONLY]
    assert GRAPH[stage]["params"] == sections
    assert set(sections) <= set(Params.__dataclass_fields__)


@pytest.mark.parametrize("stage", STAGES)
def test_command_has_a_path_for_every_argument(stage: str) -> None:
    arguments = signature(import_module(f"secondeye.stages.{stage}").run).parameters.values()
    names = [a.name for a in arguments if a.kind is not Parameter.KEYWORD_ONLY]
    paths = PATHS | {"out": OUTS.get(stage, "")}
    assert GRAPH[stage]["cmd"].split() == ["exec", "secondeye", "stage", stage, *(paths[n] for n in names)]
    outs = [next(iter(out)) if isinstance(out, dict) else out for out in GRAPH[stage]["outs"]]
    assert OUTS.get(stage, f"data/{stage}") in outs


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_all_the_code_a_stage_reaches(stage: str) -> None:
    # params.py is left out: DVC follows the values.
    reached = code_hash.reachable_modules(f"secondeye.stages.{stage}") - {"secondeye", "secondeye.params"}
    rooms = {".".join(module.split(".")[:2]) for module in reached}
    wanted = {
        str(code_hash.source_of(room).relative_to(PROJECT)).removesuffix("/__init__.py") for room in rooms
    }  # type: ignore[union-attr]
    if stage == "evaluate":
        wanted.add("src/secondeye/shipped")  # weights, which no import reaches
    named = {dep for dep in GRAPH[stage]["deps"] if dep.startswith("src/")}
    assert named == wanted, f"missing {sorted(wanted - named)}, too many {sorted(named - wanted)}"


@pytest.mark.parametrize("stage", ["train_depth", "train_light", "train_diffusion", "train_deep3d"])
def test_no_model_is_trained_again_for_a_change_in_another(stage: str) -> None:
    reached = code_hash.reachable_modules(f"secondeye.stages.{stage}")
    assert "secondeye.depth.estimators" not in reached  # which lists all depth networks
    assert stage not in ("train_depth", "train_deep3d") or "secondeye.inpaint" not in reached


def write_sources(raw: Path, films: int) -> None:
    """Small stereo films: two cards that move. Two are for training, the others held out."""
    raw.mkdir(parents=True, exist_ok=True)
    for film in range(films):
        shot = two_planes(frames=10, height=96, width=160, seed=film)
        images = np.concatenate([shot.left.numpy(), shot.right.numpy()], axis=3)
        rgb = (images * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
        write_film(raw / f"cards{film}_sbs.mp4", iter(np.ascontiguousarray(rgb)), Fraction(24))
    splits = ["train" if film < 2 else "test" for film in range(films)]
    lines = [f"cards{film}_sbs.mp4,sbs,{split},CC0-1.0\n" for film, split in enumerate(splits)]
    (raw / "sources.csv").write_text("film,packing,split,licence\n" + "".join(lines))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a clone of the project with small films, as DVC sees it."""
    return clone_project(tmp_path / "clone")


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return such a clone whose dataset was built by one worker. Work on copies of it: `built`.

    The processes of pytest-xdist share it.
    """
    own, shared = tmp_path_factory.getbasetemp(), shared_folder(tmp_path_factory)
    with hold_lock(shared / "built.lock"), pytest.MonkeyPatch.context() as patch:
        if not (shared / "built").exists():
            clone = clone_project(own / "clone")
            patch.setenv("SECONDEYE_WORKERS", "1")
            done = repro(clone, "validate")
            assert done.returncode == 0, done.stdout + done.stderr
            clone.rename(shared / "built")
    return shared / "built"


@pytest.fixture
def built(built_once: Path, tmp_path: Path) -> Path:
    """Return a clone of the project with small films and their dataset."""
    return Path(shutil.copytree(built_once, tmp_path / "clone", symlinks=True))


def clone_project(clone: Path) -> Path:
    made = ("data", "demo", "models", "reports", ".runs", ".mlflow", ".prefect")
    ignored = shutil.ignore_patterns(*made, ".venv", ".git", "__pycache__", "cache", "tmp")
    shutil.copytree(PROJECT, clone, ignore=ignored)
    git(clone, "init", "-q")
    (clone / "dvc.lock").unlink(missing_ok=True)
    params = yaml.safe_load((clone / "params.yaml").read_text())
    params["split"] |= {"height": 96, "width": 160, "min_motion": 0.0}  # cards stand still
    (clone / "params.yaml").write_text(yaml.safe_dump(params))
    write_sources(clone / "data" / "raw", FILMS)
    for folder in ("external", "matchers"):
        (clone / "data" / folder).mkdir()
        (clone / "data" / folder / ".gitkeep").touch()
    return clone


def environment() -> dict[str, str]:
    """Write a shell that does not exec its last command, unlike bash."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1", "SHELL": "/bin/sh"}


def repro(project: Path, *targets: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dvc", "repro", *targets]
    return subprocess.run(command, cwd=project, env=environment(), capture_output=True, text=True)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.slow(seconds=45)
def test_repro_builds_all_then_nothing_then_only_what_follows(built: Path) -> None:
    assert json.loads((built / "reports" / "dataset.json").read_text())["accepted"] >= 2
    assert "Running stage" not in repro(built, "validate").stdout

    text = (built / "params.yaml").read_text()
    scored = read_table(built / "data" / "quality" / "quality.parquet", ClipQuality)
    worst, other = sorted(row.sharpness for row in scored)[:2]
    (built / "params.yaml").write_text(re.sub("min_sharpness: .*", f"min_sharpness: {other}", text))
    assert worst < other
    again = repro(built, "validate").stdout
    assert [stage for stage in STAGES if f"Running stage '{stage}'" in again] == ["filter", "validate"]
    (built / "params.yaml").write_text(text)

    before = {p: p.stat().st_mtime_ns for p in (built / "data" / "match").glob("*.mkv")}
    write_sources(built / "data" / "raw", FILMS + 1)
    assert repro(built, "validate").returncode == 0
    after = {p: p.stat().st_mtime_ns for p in (built / "data" / "match").glob("*.mkv")}
    assert set(after) > set(before)
    assert {p: after[p] for p in before} == before, "an old film's clips were built again"


@pytest.mark.slow(seconds=55)
def test_repro_killed_in_every_stage_gives_the_bytes_of_an_undisturbed_run(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = built / "data"
    undisturbed = {stage: content(data / stage) for stage in DATASET}
    for stage in DATASET:
        shutil.rmtree(data / stage)
    shutil.rmtree(built / ".dvc" / "cache")  # or DVC would fetch the results from there
    (built / "dvc.lock").unlink()
    monkeypatch.setenv("SECONDEYE_WORKERS", "2")
    for stage in DATASET[:5]:
        kill_when(built, "validate", lambda at=data / stage: any(at.glob("*.json")))
    assert repro(built, "validate").returncode == 0
    for stage in DATASET:
        assert content(data / stage) == undisturbed[stage], stage


def kill_when(project: Path, stage: str, ready: Any) -> None:
    """Start `dvc repro STAGE`, kill DVC alone with -9 when `ready`, and see its stage die with it."""
    command = [sys.executable, "-m", "dvc", "repro", stage]
    process = subprocess.Popen(
        command, cwd=project, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        while not ready() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert ready() and process.poll() is None, "the stage ended before it could be killed"
        family = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
        process.wait()
    alive = wait_until_dead(family, 5)
    assert not alive, f"orphans: {alive}"


@pytest.mark.slow(seconds=14)
def test_a_comment_and_an_unrelated_module_rebuild_nothing(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(built / "src"))
    before = {p: p.stat().st_mtime_ns for p in (built / "data").rglob("*.mkv")}
    source = built / "src" / "secondeye"
    for path in (source / "stages" / "match.py", source / "system" / "text.py"):
        path.write_text(path.read_text() + "\n# A comment.\n")
    (source / "imaging" / "unrelated.py").write_text('"""A module that no stage imports."""\n')
    started = time.monotonic()
    assert repro(built, "validate").returncode == 0
    print(f"repro after a comment: {time.monotonic() - started:.1f} s")
    assert {p: p.stat().st_mtime_ns for p in (built / "data").rglob("*.mkv")} == before


@pytest.mark.slow(seconds=14)
def test_add_push_clone_pull_then_repro_runs_nothing(built: Path, tmp_path: Path) -> None:
    films = [str(p.relative_to(built)) for p in sorted((built / "data" / "raw").glob("*.mp4"))]
    dvc(built, "add", *films)
    dvc(built, "repro", "validate")
    dvc(built, "remote", "add", "-d", "store", str(tmp_path / "store"))
    git(built, "add", ".")
    git(built, "commit", "-qm", "Dataset")
    dvc(built, "push")
    git(tmp_path, "clone", "-q", str(built), "second")
    second = tmp_path / "second"
    dvc(second, "pull", "--allow-missing")
    assert content(second / "data" / "filter") == content(built / "data" / "filter")
    assert "Running stage" not in dvc(second, "repro", "validate")


@pytest.mark.slow
def test_empty_raw_is_one_clear_line(project: Path) -> None:
    for film in (project / "data" / "raw").iterdir():
        film.unlink()
    failed = repro(project, "validate")
    assert failed.returncode != 0
    lines = [line for line in failed.stderr.splitlines() if line.startswith("secondeye:")]
    assert len(lines) == 1 and "contains no stereo film" in lines[0] and "secondeye data sample" in lines[0]
    assert "Traceback" not in failed.stderr
