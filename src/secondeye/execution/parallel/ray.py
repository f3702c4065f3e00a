"""Map a function over items on a Ray cluster: one task per item, one core and at most one GPU per task.

Every machine must see the project's folder under the same path, because tasks read and write files there.
"""

import logging
import os
import socket
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from secondeye.execution.parallel.crash import ATTEMPTS, WorkerCrashed
from secondeye.system.errors import UserError
from secondeye.system.process import use_threads

_CONNECT_TIMEOUT_S = 5.0
_MAX_PENDING = 1024  # tasks submitted at a time: enough to keep the cluster busy, few enough to cancel
# Read when Ray is imported: no telemetry, GPUs as visible as without Ray, and a task that runs out of memory
# is retried as often as one that crashes for another reason.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_task_oom_retries": str(ATTEMPTS - 1),
}

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_on_ray(
    work: Callable[[Item], Result], items: Sequence[Item], address: str, on_gpu: bool
) -> Generator[tuple[int, Result | WorkerCrashed], None, None]:
    """Yield (position, result) in the order of completion. Raises UserError if the cluster is missing.

    With `on_gpu` a task has a GPU for itself, if the cluster has any.
    """
    with _connected(address) as ray:
        gpus = 1 if on_gpu and ray.cluster_resources().get("GPU", 0) else 0
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=ATTEMPTS - 1)(_run_task)
        folder, remaining = Path.cwd(), iter(enumerate(items))
        waiting: dict[Any, int] = {}  # Ray's reference of a result -> position
        try:
            while True:
                while len(waiting) < _MAX_PENDING and (upcoming := next(remaining, None)) is not None:
                    position, item = upcoming
                    waiting[task.remote(folder, work, item)] = position
                if not waiting:
                    return
                for reference in ray.wait(list(waiting), num_returns=1)[0]:
                    yield waiting.pop(reference), _fetch_result(ray, reference)
        finally:
            for reference in waiting:
                ray.cancel(reference)


def _run_task(folder: Path, work: Callable[[Item], Result], item: Item) -> Result:
    """Process one item on a machine of the cluster."""
    if not folder.is_dir():
        raise UserError(
            f"{folder}: not found on {socket.gethostname()}; all machines of the cluster must see the "
            "project's folder under the same path"
        )
    os.chdir(folder)
    use_threads(1)
    return work(item)


def _fetch_result(ray: Any, reference: Any) -> Any:
    crashes = (
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.NodeDiedError,
        ray.exceptions.OutOfMemoryError,
    )
    try:
        return ray.get(reference)
    except crashes as error:
        return WorkerCrashed(
            f"its process on the cluster crashed in {ATTEMPTS} of {ATTEMPTS} attempts: {type(error).__name__}"
        )
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error  # the exception of `work`, without Ray's wrapper


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Connect to the cluster for the duration of the block."""
    if find_spec("ray") is None:
        raise UserError("SECONDEYE_RAY_ADDRESS is set, but Ray is missing; install secondeye[cluster]")
    if address.startswith("ray://") and find_spec("grpc") is None:
        raise UserError(f"SECONDEYE_RAY_ADDRESS {address}: Ray's client is missing; install ray[client]")
    os.environ.update({name: value for name, value in _SETTINGS.items() if name not in os.environ})
    import ray

    reachable = _require_cluster(address, ray.util.get_node_ip_address())
    one_thread = {"env_vars": {"NUMBA_NUM_THREADS": "1"}}  # read when numba is imported, before any task
    ray.init(reachable, log_to_driver=False, logging_level=logging.ERROR, runtime_env=one_thread)
    try:
        yield ray
    finally:
        ray.shutdown()


def _require_cluster(address: str, own: str) -> str:
    """Return the address for Ray. Raises UserError if nothing answers; Ray itself would wait minutes."""
    found = _local_cluster() if address == "auto" else address
    if not found:
        raise UserError(
            "SECONDEYE_RAY_ADDRESS auto: no cluster runs on this machine; start one with `ray start --head`"
        )
    parts = urlsplit(found if "://" in found else f"//{found}")
    # Ray listens on this machine's own address instead of these.
    host = own if parts.hostname in ("localhost", "127.0.0.1") and parts.scheme != "ray" else parts.hostname
    try:
        socket.create_connection((host, parts.port or 0), _CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"SECONDEYE_RAY_ADDRESS {address}: no Ray cluster answers at {host}:{parts.port} ({error}); "
            "start one with `ray start --head`, or unset the variable"
        ) from error
    return found


def _local_cluster() -> str:
    """Return the address that `ray start` recorded on this machine, or "" if there is none."""
    folder = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    record = folder / "ray" / "ray_current_cluster"
    return os.environ.get("RAY_ADDRESS") or (record.read_text().strip() if record.is_file() else "")
