"""Work spread over a Ray cluster: one task an item, one core a task.

Every machine must see the project's folder under the same path: tasks read and write its files themselves.
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
from secondeye.system.process import use_one_thread

_PATIENCE_S = 5.0  # for a cluster to say that it is there
_AHEAD = 1024  # tasks the cluster knows of at a time: enough to keep it busy, few enough to take back
# Read when Ray is imported: nothing is told to anybody, GPUs are as visible as without Ray, and a task that
# takes all the memory is given up like one that dies of anything else.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_task_oom_retries": str(ATTEMPTS - 1),
}

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_on_ray(
    work: Callable[[Item], Result], items: Sequence[Item], address: str
) -> Generator[tuple[int, Result | WorkerCrashed], None, None]:
    """Yield (position, result) as results come. Raises Refusal where Ray or the cluster is missing."""
    with _connected(address) as ray:
        task = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(_work_there)
        folder, coming = Path.cwd(), iter(enumerate(items))
        waiting: dict[Any, int] = {}  # Ray's reference of a result -> position
        try:
            while True:
                while len(waiting) < _AHEAD and (following := next(coming, None)) is not None:
                    position, item = following
                    waiting[task.remote(folder, work, item)] = position
                if not waiting:
                    return
                for reference in ray.wait(list(waiting), num_returns=1)[0]:
                    yield waiting.pop(reference), _result_of(ray, reference)
        finally:
            for reference in waiting:
                ray.cancel(reference)


def _work_there(folder: Path, work: Callable[[Item], Result], item: Item) -> Result:
    """One item, on a machine of the cluster."""
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not on {socket.gethostname()}; all machines of a cluster must see the project's "
            "folder under the same path"
        )
    os.chdir(folder)
    use_one_thread()
    return work(item)


def _result_of(ray: Any, reference: Any) -> Any:
    died = (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError)
    try:
        return ray.get(reference)
    except died as error:
        return WorkerCrashed(
            f"its process on the cluster ended, {ATTEMPTS} times of {ATTEMPTS}: {type(error).__name__}"
        )
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error  # what the work raised, without Ray's frame


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Ray, connected to the cluster for as long as the block lasts."""
    if find_spec("ray") is None:
        raise UserError("SECONDEYE_RAY_ADDRESS is set and Ray is missing; install secondeye[cluster]")
    if address.startswith("ray://") and find_spec("grpc") is None:
        raise UserError(f"SECONDEYE_RAY_ADDRESS {address}: Ray's client is missing; install ray[client]")
    os.environ.update({name: value for name, value in _SETTINGS.items() if name not in os.environ})
    import ray

    found = _require_answer(address, ray.util.get_node_ip_address())
    one_thread = {"env_vars": {"NUMBA_NUM_THREADS": "1"}}  # read when numba is imported, before any task
    ray.init(found, log_to_driver=False, logging_level=logging.ERROR, runtime_env=one_thread)
    try:
        yield ray
    finally:
        ray.shutdown()


def _require_answer(address: str, own: str) -> str:
    """The address to give to Ray, which waits minutes for one that does not answer. Raises Refusal."""
    found = _recorded() if address == "auto" else address
    if not found:
        raise UserError("SECONDEYE_RAY_ADDRESS auto: `ray start` has started no cluster on this machine")
    parts = urlsplit(found if "://" in found else f"//{found}")
    # Ray takes this machine's own address for these.
    host = own if parts.hostname in ("localhost", "127.0.0.1") and parts.scheme != "ray" else parts.hostname
    try:
        socket.create_connection((host, parts.port or 0), _PATIENCE_S).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"SECONDEYE_RAY_ADDRESS {address}: no Ray cluster answers at {host}:{parts.port} ({error}); "
            "start one with `ray start --head`, or unset the variable"
        ) from error
    return found


def _recorded() -> str:
    """Where `ray start` on this machine says that its cluster is; "" where it says nothing."""
    folder = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    record = folder / "ray" / "ray_current_cluster"
    return os.environ.get("RAY_ADDRESS") or (record.read_text().strip() if record.is_file() else "")
