"""The pages that docs/training.md leads to, in a browser: what its six steps name is there."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np
import pytest
from make_tour import BROWSER_OPTIONS, wait_for

from secondeye.registry.kinds import experiment_name
from secondeye.registry.publish import publish_all
from secondeye.registry.server import connected, experiment_of
from secondeye.run_folder import Run, open_run

BROWSER = shutil.which("chromium")
DATASET = "d" * 64
TRAINING_VIEW = "workflowType=machine_learning"
_LOADING_MS = 30_000  # virtual time in which a page loads its content


@dataclass(frozen=True)
class Settings:
    steps: int


def train(key: str, steps: int) -> Run:
    tags = {"dataset": DATASET, "licences": "CC0-1.0"}
    run = open_run(Path(".runs"), key, "train_depth", Settings(steps), tags)
    for step in range(0, steps, 10):
        run.log(step, {"depth/loss": 1 / (step + 1)})
    cv2.imwrite(str(run.picture("depth.png")), np.full((32, 32, 3), 128, np.uint8))
    run.finish({})
    return run


@pytest.fixture
def server(with_registry: Path) -> Iterator[str]:
    """Publish two trainings, an evaluation and a version, and serve them; returns the address."""
    trained = [train(key * 32, steps) for key, steps in (("1", 40), ("2", 150))]
    evaluation = open_run(
        Path(".runs"), "e" * 32, "evaluate", Settings(1), {"manifest": "m" * 64, "run.depth": trained[1].key}
    )
    evaluation.log(0, {"student_fill/haarpsi": 0.8, "student_fill/disparity_error_percent": 2.0})
    evaluation.finish({})
    publish_all([Path(".runs")])
    with connected() as client:
        client.create_registered_model("secondeye")
        client.create_model_version("secondeye", "file:///nowhere", description="The first version.")
        client.set_registered_model_alias("secondeye", "champion", "1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = ["--backend-store-uri", f"sqlite:///{with_registry}/.mlflow/mlflow.db"]
    files = ["--artifacts-destination", str(with_registry / ".mlflow" / "artifacts")]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        *store,
        *files,
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (with_registry / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}/#"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def browse(tmp_path: Path) -> Callable[..., str]:
    """Return a function that opens a page in Chromium and returns its document."""
    if BROWSER is None:
        pytest.skip("Chromium is not installed")

    def open_page(address: str) -> str:
        options = [
            f"--user-data-dir={tmp_path}/profile",
            f"--virtual-time-budget={_LOADING_MS}",
            "--dump-dom",
        ]
        command = [BROWSER, *BROWSER_OPTIONS, *options, address]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, env=os.environ | {"HOME": str(tmp_path)}
        )
        return done.stdout

    return open_page


@pytest.mark.slow(seconds=60)
def test_the_six_steps_lead_to_what_they_name(browse: Callable[[str], str], server: str) -> None:
    with connected() as client:
        experiment = experiment_of(client, experiment_name("train_depth"))
        runs = client.search_runs([experiment])
    ids = [run.info.run_id for run in runs]

    page = browse(f"{server}/experiments?{TRAINING_VIEW}")
    assert "Model registry" in page, "the view for training"
    for stage in ("train_depth", "evaluate"):
        assert experiment_name(stage) in page
    page = browse(f"{server}/experiments/{experiment}/runs?{TRAINING_VIEW}")
    assert all(run.info.run_name in page for run in runs)
    assert f"dataset ({DATASET[:16]})" in page and "lower is better" in page and "Columns" in page
    page = browse(f"{server}/experiments/{experiment}/runs?{TRAINING_VIEW}&compareRunsMode=CHART")
    assert "depth/loss" in page
    both, of = quote(json.dumps(ids)), quote(json.dumps([experiment]))
    page = browse(f"{server}/compare-runs?runs={both}&experiments={of}")
    assert "Comparing 2 Runs from 1 Experiment" in page
    assert all(text in page for text in ("Parameters", "Metrics", ">40<", ">150<"))
    page = browse(f"{server}/experiments/{experiment}/runs/{ids[0]}?{TRAINING_VIEW}")
    for text in ("Finished", f"dataset ({DATASET[:16]})", "CC0-1.0", "Model metrics", "Artifacts"):
        assert text in page
    page = browse(f"{server}/experiments/{experiment}/runs/{ids[0]}/artifacts?{TRAINING_VIEW}")
    assert "pictures" in page
    page = browse(f"{server}/models/secondeye")
    assert all(text in page for text in ("Version 1", "champion", "The first version."))
