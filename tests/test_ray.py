"""Parallel map on a Ray cluster of two local nodes with one core each."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from secondeye.execution import parallel
from secondeye.execution.parallel import WorkerCrashed
from secondeye.execution.parallel.ray import _SETTINGS
from secondeye.system.errors import UserError

pytestmark = pytest.mark.slow(seconds=15)
# Ray replaces 127.0.0.1 by the machine's network address; these addresses stay local.
HEAD, OTHER = "127.0.0.2", "127.0.0.3"
NODE = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 2**20}


@pytest.fixture(scope="session")
def started_cluster() -> Iterator[Any]:
    """Start a cluster of one node, once."""
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _SETTINGS.items():
            patch.setenv(name, value)
        search = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]  # workers import `work` here
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, search)))
        from ray.cluster_utils import Cluster

        cluster = Cluster(True, head_node_args=NODE | {"node_ip_address": HEAD})
        try:
            yield cluster
        finally:
            cluster.shutdown()


@pytest.fixture
def cluster(started_cluster: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return the cluster with a second node, which can be removed, and set its address in the environment."""
    if len(started_cluster.list_all_nodes()) < 2:
        started_cluster.second = started_cluster.add_node(**NODE, node_ip_address=OTHER)
    monkeypatch.setenv("SECONDEYE_RAY_ADDRESS", started_cluster.address)
    monkeypatch.chdir(tmp_path)
    return started_cluster


def work(item: str) -> tuple[str, int]:
    """Append the node id to ITEM.txt and return the thread count; `kill` crashes, `wrong` raises."""
    import torch

    with Path(f"{item}.txt").open("a") as file:
        file.write(f"{_node()}\n")
    if item == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "wrong":
        raise ValueError("this is wrong")
    time.sleep(0.5)
    return item, torch.get_num_threads()


def _node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id()) if ray.is_initialized() else "local"


def nodes(folder: Path) -> set[str]:
    """Return the ids of all nodes that ran an item."""
    return {line for path in folder.glob("*.txt") for line in path.read_text().split()}


def test_cluster_results_equal_those_of_one_process(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [f"item{number}" for number in range(12)]
    distributed = sorted(parallel.map(work, items))
    assert len(nodes(tmp_path)) == 2
    monkeypatch.delenv("SECONDEYE_RAY_ADDRESS")
    monkeypatch.setenv("SECONDEYE_WORKERS", "1")
    assert distributed == sorted(parallel.map(work, items))


def test_crashing_item_is_reported_and_exceptions_keep_their_message(cluster: Any, tmp_path: Path) -> None:
    found = dict(parallel.map(work, ["a", "kill", "b"]))
    assert found[0] == ("a", 1) and found[2] == ("b", 1)
    assert found[1] == WorkerCrashed(
        "its process on the cluster crashed in 2 of 2 attempts: WorkerCrashedError"
    )
    assert len((tmp_path / "kill.txt").read_text().split()) == 2
    with pytest.raises(ValueError, match=r"^this is wrong$"):
        list(parallel.map(work, ["a", "wrong", "b"]))


def test_items_of_a_lost_node_run_on_another(cluster: Any, tmp_path: Path) -> None:
    items = [f"item{number}" for number in range(16)]
    with closing(parallel.map(work, items)) as results:
        found = [next(results) for _ in range(4)]
        while len(nodes(tmp_path)) < 2:
            found.append(next(results))
        cluster.remove_node(cluster.second, allow_graceful=False)
        found += results
    assert sorted(found) == [(number, (item, 1)) for number, item in enumerate(items)]


def test_missing_cluster_is_a_user_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("SECONDEYE_RAY_ADDRESS", "auto")
    with pytest.raises(UserError, match="no cluster runs on this machine"):
        list(parallel.map(work, ["a"]))


def test_unreachable_cluster_is_a_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind((HEAD, 0))
        monkeypatch.setenv("SECONDEYE_RAY_ADDRESS", f"{HEAD}:{free.getsockname()[1]}")
        with pytest.raises(UserError, match=r"no Ray cluster answers at 127.0.0.2:.*ray start --head"):
            list(parallel.map(work, ["a"]))


def test_missing_ray_is_a_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for missing, address, message in (
        ("ray", "auto", r"Ray is missing; install secondeye\[cluster\]"),
        ("grpc", f"ray://{HEAD}:10001", r"Ray's client is missing; install ray\[client\]"),
    ):
        installed = {"ray", "grpc"} - {missing}
        monkeypatch.setattr(
            "secondeye.execution.parallel.ray.find_spec",
            lambda name, installed=installed: name in installed or None,
        )
        monkeypatch.setenv("SECONDEYE_RAY_ADDRESS", address)
        with pytest.raises(UserError, match=message):
            list(parallel.map(work, ["a"]))
