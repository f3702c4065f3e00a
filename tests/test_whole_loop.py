"""End to end on small films: dataset, training, evaluation, gate, registry, conversion."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from test_dvc import built, built_once, content, environment, kill_when, repro

from secondeye.run_folder import Run
from secondeye.system.files import hash_weights

__all__ = ["built", "built_once"]  # fixtures

QUICK = {"steps": 2, "batch_size": 2, "learning_rate": 0.001, "checkpoint_every": 2, "seed": 0}


@pytest.fixture
def small(built: Path, make_registry: Callable[[Path], None]) -> Path:
    """Return the project with its dataset, whose test split is two films, and a few training steps."""
    make_registry(built)
    params = yaml.safe_load((built / "params.yaml").read_text())
    params["synthetic"] |= {"shots": 3, "frames": 4, "height": 96, "width": 160}
    depth, light, diffusion, deep3d = (
        params[f"train_{name}"] for name in ("depth", "light", "diffusion", "deep3d")
    )
    depth |= {"height": 96, "width": 160, "frames": 2}
    light |= {"height": 64, "width": 64}
    diffusion |= {"height": 64, "width": 64, "frames": 2}
    deep3d |= {"height": 32, "width": 64}
    for hyperparams in (
        depth["optimizer"],
        light["optimizer"],
        diffusion["autoencoder"],
        diffusion["network"],
        deep3d["optimizer"],
    ):
        hyperparams |= QUICK
    depth["optimizer"]["steps"] = 14  # enough that it is still running when killed
    params["evaluate"] |= {"max_frames": 2, "min_films": 2}
    (built / "params.yaml").write_text(yaml.safe_dump(params))
    return built


def secondeye(project: Path, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "secondeye", *map(str, arguments)]
    variables = environment() | variables
    return subprocess.run(command, cwd=project, env=variables, capture_output=True, text=True)


def spoil(weights: Path) -> None:
    """Overwrite weights with noise."""
    torch.manual_seed(0)
    tensors = load_file(weights)
    save_file({name: torch.randn_like(tensor.float()) for name, tensor in tensors.items()}, weights)


@pytest.mark.slow(seconds=215)
@pytest.mark.timeout(1800)  # all stages, from films to a champion
def test_dataset_to_champion_end_to_end_with_a_killed_training(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreachable = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}  # no server listens there
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", unreachable["MLFLOW_TRACKING_URI"])
        patch.setenv("SECONDEYE_WORKERS", "1")  # saves starting others
        wanted = weights_of_a_killed_training(small)
    command = [sys.executable, "-m", "dvc", "repro"]
    first = subprocess.run(
        command, cwd=small, env=environment() | unreachable, capture_output=True, text=True
    )
    assert first.returncode == 0, first.stdout + first.stderr
    warnings = [line for line in first.stderr.splitlines() if "cannot be reached" in line]
    assert len(warnings) == 6, "one warning per stage that trains or evaluates"
    assert "Running stage" not in repro(small).stdout
    require_finished(small, wanted)

    runs = sorted(Run(path).read()["stage"] for path in (small / ".runs").iterdir())
    trainings = ("autoencoder", "deep3d", "depth", "diffusion", "light")
    assert runs == ["evaluate", *(f"train_{name}" for name in trainings)]
    failed = secondeye(small, "model", "publish", **unreachable)
    assert failed.returncode == 4 and "cannot be reached" in failed.stderr
    assert "6 runs, 6 of them updated" in secondeye(small, "model", "publish").stdout

    gate_rejects_noise(small)
    film = small / "data" / "raw" / "cards0_sbs.mp4"
    made = secondeye(small, "convert", film, "--mono", "--model", "models:/secondeye@champion")
    assert made.returncode == 0, made.stderr
    assert (
        "model: secondeye version" in made.stdout and (film.with_name("cards0_sbs_LRF_Full_SBS.mp4")).exists()
    )


def gate_rejects_noise(small: Path) -> None:
    """Check that noise does not replace the champion. Promoting by hand and back is in test_champion.py."""
    for path in (small / "models").rglob("*.safetensors"):
        spoil(path)
    rejected = secondeye(small, "model", "gate", SECONDEYE_WORKERS="1")
    assert rejected.returncode == 0, rejected.stderr
    report = (small / "reports" / "gate.md").read_text()
    assert "Version 1 remains the champion" in report and "does not replace" in report
    assert "insufficient evidence" not in report


def weights_of_a_killed_training(small: Path) -> str:
    """Train the student, delete the result and kill the training; return the hash of its weights."""
    assert repro(small, "train_depth").returncode == 0
    weights = hash_weights(small / "models" / "depth")
    for made in ("models", ".runs", ".dvc/cache/runs"):  # DVC would fetch weights from its cache
        shutil.rmtree(small / made)
    lock = yaml.safe_load((small / "dvc.lock").read_text())
    del lock["stages"]["train_depth"]
    (small / "dvc.lock").write_text(yaml.safe_dump(lock))
    kill_when(small, "train_depth", lambda: checkpoint_of(small) >= 2)
    assert not (small / "models" / "depth" / "run" / "run.json").exists()
    return weights


def require_finished(small: Path, weights: str) -> None:
    """Check that the killed training was continued, to these weights."""
    assert hash_weights(small / "models" / "depth") == weights
    run = Run(small / "models" / "depth" / "run")
    assert run.finished and run.read()["tags"]["weights"] == weights
    assert content(small / "models" / "depth")


def checkpoint_of(project: Path) -> int:
    """Return the step of the newest checkpoint of all runs, or 0."""
    found = (project / ".runs").glob("*/checkpoints/[!.]*.safetensors")  # none half-written
    return max((int(path.stem.rpartition("_")[2]) for path in found), default=0)
