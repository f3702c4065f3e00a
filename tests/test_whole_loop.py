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
from test_dvc import content, environment, kill_when, project, repro, write_sources

from secondeye.run_folder import Run
from secondeye.system.files import hash_weights

__all__ = ["project"]  # a fixture

QUICK = {"steps": 6, "batch_size": 2, "learning_rate": 0.001, "checkpoint_every": 2, "seed": 0}


@pytest.fixture
def small(project: Path, make_registry: Callable[[Path], None]) -> Path:
    """Return the project with seven films, five of them held out, and a few training steps."""
    make_registry(project)
    write_sources(project / "data" / "raw", 7)
    lines = [f"cards{n}_sbs.mp4,sbs,{'train' if n < 2 else 'test'},CC0-1.0\n" for n in range(7)]
    (project / "data" / "raw" / "sources.csv").write_text("film,packing,split,licence\n" + "".join(lines))
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["synthetic"] |= {"shots": 3, "frames": 4, "height": 96, "width": 160}
    depth, light, diffusion = (
        params["train_depth"],
        params["train_light"],
        params["train_diffusion"],
    )
    depth |= {"height": 96, "width": 160, "frames": 2}
    light |= {"height": 64, "width": 64}
    diffusion |= {"height": 64, "width": 64, "frames": 2}
    for hyperparams in (
        depth["optimizer"],
        light["optimizer"],
        diffusion["autoencoder"],
        diffusion["network"],
    ):
        hyperparams |= QUICK
    depth["optimizer"]["steps"] = 14  # enough that it is still running when killed
    params["evaluate"]["max_frames"] = 2
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    return project


def secondeye(project: Path, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "secondeye", *map(str, arguments)]
    variables = environment() | variables
    return subprocess.run(command, cwd=project, env=variables, capture_output=True, text=True)


def spoil(weights: Path) -> None:
    """Overwrite weights with noise."""
    torch.manual_seed(0)
    tensors = load_file(weights)
    save_file({name: torch.randn_like(tensor.float()) for name, tensor in tensors.items()}, weights)


@pytest.mark.slow(seconds=190)
@pytest.mark.timeout(1800)  # all stages, from films to a champion
def test_dataset_to_champion_end_to_end_with_a_training_killed_twice(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreachable = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}  # no server listens there
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", unreachable["MLFLOW_TRACKING_URI"])
        wanted = weights_of_a_killed_training(small)
    command = [sys.executable, "-m", "dvc", "repro"]
    first = subprocess.run(
        command, cwd=small, env=environment() | unreachable, capture_output=True, text=True
    )
    assert first.returncode == 0, first.stdout + first.stderr
    warnings = [line for line in first.stderr.splitlines() if "cannot be reached" in line]
    assert len(warnings) == 5, "one warning per stage that trains or evaluates"
    assert "Running stage" not in repro(small).stdout
    require_finished(small, wanted)

    runs = sorted(Run(path).read()["stage"] for path in (small / ".runs").iterdir())
    assert runs == ["evaluate", "train_autoencoder", "train_depth", "train_diffusion", "train_light"]
    failed = secondeye(small, "model", "publish", **unreachable)
    assert failed.returncode == 4 and "cannot be reached" in failed.stderr
    assert "5 runs, 5 of them updated" in secondeye(small, "model", "publish").stdout

    gate_with_sabotage(small)
    film = small / "data" / "raw" / "cards0_sbs.mp4"
    made = secondeye(small, "convert", film, "--mono", "--model", "models:/secondeye@champion")
    assert made.returncode == 0, made.stderr
    assert (
        "model: secondeye version" in made.stdout and (film.with_name("cards0_sbs_LRF_Full_SBS.mp4")).exists()
    )


def gate_with_sabotage(small: Path) -> None:
    """Check that the gate rejects noise, and that promote and rollback move the alias."""
    trained = {path: path.read_bytes() for path in (small / "models").rglob("*.safetensors")}
    for path in trained:
        spoil(path)
    rejected = secondeye(small, "model", "gate")
    assert rejected.returncode == 0, rejected.stderr
    report = (small / "reports" / "gate.md").read_text()
    assert "Version 1 remains the champion" in report and "does not replace" in report

    register_noise = (
        "from pathlib import Path\n"
        "from secondeye.conversion.bundle import Bundle, write_bundle\n"
        "from secondeye.registry.champion import register_and_promote\n"
        "from secondeye.registry.register import VersionFacts\n"
        "light = Path('models/inpaint/light')\n"
        "bundle = write_bundle(Path('noise'), Bundle('motion', 'light', 3.0, 0.5), None, light)\n"
        "register_and_promote(bundle, VersionFacts({}, 'noise'), expected=1, why='noise')\n"
    )
    subprocess.run([sys.executable, "-c", register_noise], cwd=small, env=environment(), check=True)
    for path, weights in trained.items():
        path.write_bytes(weights)
    assert "champion: version 1" in secondeye(small, "model", "rollback").stdout
    assert "champion: version 2" in secondeye(small, "model", "promote", "2").stdout


def weights_of_a_killed_training(small: Path) -> str:
    """Train the student, delete the result and kill the training twice; return the hash of its weights."""
    assert repro(small, "train_depth").returncode == 0
    weights = hash_weights(small / "models" / "depth")
    for made in ("models", ".runs", ".dvc/cache/runs"):  # DVC would fetch weights from its cache
        shutil.rmtree(small / made)
    lock = yaml.safe_load((small / "dvc.lock").read_text())
    del lock["stages"]["train_depth"]
    (small / "dvc.lock").write_text(yaml.safe_dump(lock))
    for steps in (2, 4):
        kill_when(small, "train_depth", lambda n=steps: checkpoint_of(small) >= n)
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
