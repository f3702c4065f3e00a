"""Training on several machines: what every rank draws and waits for, and what happens when a node dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import PROJECT
from draw_on_processes import BATCH, READ_S, SEED, STEPS, WINDOWS
from draw_on_processes import draw as draw_slowly
from small_dataset import write_rows, write_small_dataset
from small_training import an_optimizer
from torch import Tensor, tensor

from secondeye.dataset.schema import SyntheticShot
from secondeye.training.sample_loader import SampleShare, load_micro_batches, sample_rng
from secondeye.training.sample_order import SampleOrder

RANKS = 32  # four nodes of eight GPUs
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")


def test_an_epoch_of_32_ranks_visits_every_window_once() -> None:
    """Also if it ends within a batch; every rank draws one sample in each step."""
    order = SampleOrder(np.random.default_rng(0).integers(1, 9, size=40).tolist(), SEED)
    assert order.length % RANKS, "an epoch ends within a batch"

    def draw(number: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
        return tensor(number), tensor(order.shot(number))

    steps = -(-2 * order.length // RANKS)
    shot_of: dict[int, int] = {}
    for rank in range(RANKS):
        share = SampleShare(batch_size=RANKS, micro_batches=RANKS, rank=rank, ranks=RANKS)
        batches = list(load_micro_batches(draw, an_optimizer(steps=steps, batch_size=RANKS), share, 0, 0))
        assert [len(numbers) for numbers, _ in batches] == [1] * steps
        shot_of |= {int(number): int(shot) for number, shot in batches}
    assert sorted(shot_of) == list(range(steps * RANKS)), "no sample is drawn twice or left out"
    once = Counter(dict(enumerate(order.windows.tolist())))
    for epoch in range(2):
        assert Counter(shot_of[epoch * order.length + n] for n in range(order.length)) == once


@pytest.mark.slow(seconds=17)
@pytest.mark.parametrize(("ranks", "workers"), [(2, 2), (4, 1)])
def test_no_rank_waits_longer_than_its_share_for_a_slow_storage(
    tmp_path: Path, ranks: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Path(__file__).with_name("draw_on_processes.py")
    command = (*TORCHRUN, "--standalone", f"--nproc_per_node={ranks}", script, tmp_path, str(workers))
    subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(ranks)]
    samples = [sample for rank in found for batch in rank["drawn"] for sample in batch]
    monkeypatch.setattr("draw_on_processes.READ_S", 0)
    alone = [[float(v) for v in draw_slowly(n, sample_rng(SEED, n))[:3]] for n in range(BATCH * STEPS)]
    assert sorted(sample[:3] for sample in samples) == alone, "as one process draws them"
    for epoch in range(2):
        visited = [shot for _, shot, *_ in alone][epoch * sum(WINDOWS) :][: sum(WINDOWS)]
        assert Counter(visited) == Counter(dict(enumerate(WINDOWS)))
    for rank in found:
        drawn_by = Counter(process for batch in rank["drawn"] for *_, process, _ in batch)
        assert len(drawn_by) == workers, "every worker draws"
        assert max(drawn_by.values()) - min(drawn_by.values()) <= BATCH // ranks, "one batch more at most"
        reading_s = sum(took for batch in rank["drawn"] for *_, took in batch)
        assert reading_s >= READ_S * BATCH * STEPS / ranks
        # The first batch waits for the workers to start.
        assert sum(rank["waited_s"][1:]) <= 1.5 * reading_s / workers + 1


@pytest.mark.slow(seconds=40)
def test_a_training_on_two_nodes_ends_with_a_node_and_continues_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes of one process each, started as docs/training.md says, end as one machine does."""
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # none; publishing would take longest
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    first, second = start_nodes("models/nodes", ".runs/nodes")
    checkpoints = tmp_path / ".runs" / "nodes"
    while not list(checkpoints.glob("*/checkpoints/light_00000004.safetensors")):
        assert first.poll() is None and second.poll() is None
        time.sleep(0.02)
    second.send_signal(signal.SIGKILL)
    second.wait()
    assert first.wait(timeout=300) != 0, "a node does not wait for one that is gone"
    assert not (tmp_path / "models" / "nodes" / "model.safetensors").exists()
    nodes = start_nodes("models/nodes", ".runs/nodes")
    assert [node.wait(timeout=300) for node in nodes] == [0, 0]
    alone = (*TORCHRUN, "--standalone", "--nproc-per-node=2", *stage("models/alone", ".runs/alone"))
    subprocess.run(alone, check=True)
    weights, record = (
        [Path("models", name, file).read_bytes() for name in ("nodes", "alone")]
        for file in ("model.safetensors", "run/metrics.jsonl")
    )
    assert weights[0] == weights[1] and record[0] == record[1]


def write_project(folder: Path) -> None:
    write_small_dataset(folder / "data", height=48)
    (folder / "data" / "raw").mkdir()
    write_rows(folder / "data", {SyntheticShot: []})
    params: dict[str, Any] = yaml.safe_load((PROJECT / "params.yaml").read_text())
    params["train_light"] |= {"height": 32, "width": 32, "mono_share": 0.0}
    params["train_light"]["optimizer"] |= {"steps": 12, "batch_size": 4, "checkpoint_every": 4}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def start_nodes(out: str, runs: str) -> list[subprocess.Popen[bytes]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = ("--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={port}")
    command = (*TORCHRUN, *shared)
    return [subprocess.Popen([*command, f"--node-rank={n}", *stage(out, runs)]) for n in range(2)]


def stage(out: str, runs: str) -> tuple[str, ...]:
    return "-m", "secondeye", "stage", "train_light", "data", out, runs
