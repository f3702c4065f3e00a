"""Run the MLflow UI, the Prefect server, and a worker for the schedules in prefect.yaml.

    python flows/serve.py [--mlflow-port 5000] [--prefect-port 4200]

All listen on 127.0.0.1 and log to .prefect/*.log. Ctrl-C stops everything, including running flows; the next
run resumes their work.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from commands import environment, tied

from secondeye.system.errors import UserError
from secondeye.system.process import lock_dir

PROJECT = Path(__file__).resolve().parent.parent
HOME = PROJECT / ".prefect"
HOST = "127.0.0.1"
POOL = "local"  # as prefect.yaml names it
STARTUP_S = 120  # Prefect takes 20 to 40 s on two cores
_PATIENCE_S = 20  # grace period before SIGKILL


def main() -> None:
    """Start all servers, print their addresses, and wait until a signal arrives or one of them exits."""
    arguments = _arguments()
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _leave)
    try:
        with lock_dir(HOME):
            serve(arguments.mlflow_port, arguments.prefect_port)
    except UserError as error:
        sys.exit(f"serve: {error}")
    except KeyboardInterrupt:
        print("\nall ended")


def serve(mlflow_port: int, prefect_port: int) -> None:
    """Start the servers in order and watch them; stop all of them on every exit.

    Raises UserError if a port is taken, a server does not start, or one exits.
    """
    _require_free(mlflow_port, "--mlflow-port")
    _require_free(prefect_port, "--prefect-port")
    mlflow, prefect = f"http://{HOST}:{mlflow_port}", f"http://{HOST}:{prefect_port}"
    variables = _variables(prefect)
    parts: dict[str, subprocess.Popen[bytes]] = {}
    try:
        print("starting MLflow and Prefect (half a minute)", flush=True)
        parts["mlflow"] = _start("mlflow", _mlflow(mlflow_port), variables)
        parts["prefect"] = _start("prefect", _prefect(prefect_port), variables)
        _wait_until_healthy(f"{mlflow}/health", parts)
        _wait_until_healthy(f"{prefect}/api/health", parts)
        _close_lost_runs(f"{prefect}/api/flow_runs")
        _deploy(variables)
        parts["worker"] = _start("worker", _worker(), variables)
        print(f"MLflow   {mlflow}\nPrefect  {prefect}\nlogs     {HOME}/*.log\nCtrl-C ends all", flush=True)
        while True:
            _require_alive(parts)
            time.sleep(1)
    finally:
        # A second Ctrl-C would leave behind what has not ended yet.
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_IGN)
        _end(list(parts.values()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="MLflow's UI, Prefect's server and a worker, on 127.0.0.1")
    parser.add_argument("--mlflow-port", type=int, default=5000)
    parser.add_argument("--prefect-port", type=int, default=4200)
    return parser.parse_args()


def _leave(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _require_free(port: int, option: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(f"port {port} is taken; end what listens there, or give {option}") from error


def _variables(prefect: str) -> dict[str, str]:
    """Return the environment of the servers and of the runs that they start."""
    return environment() | {
        "SECONDEYE_HOME": str(PROJECT),
        "PREFECT_HOME": str(HOME),  # absolute: runs start in other folders
        "PREFECT_API_URL": f"{prefect}/api",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight idle processes of 200 MB each
    }


def _mlflow(port: int) -> list[str]:
    folder = PROJECT / ".mlflow"
    folder.mkdir(exist_ok=True)
    store = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    artifacts = ["--artifacts-destination", str(folder / "artifacts")]
    place = ["--host", HOST, "--port", str(port), "--workers", "1"]
    return [sys.executable, "-m", "mlflow", "server", *store, *artifacts, *place]


def _prefect(port: int) -> list[str]:
    return [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]


def _worker() -> list[str]:
    return [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--name", POOL]


def _start(name: str, command: list[str], variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with _log_of(name).open("ab") as log:
        return subprocess.Popen(
            tied(command),
            cwd=PROJECT,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # this process handles Ctrl-C
        )


def _log_of(name: str) -> Path:
    return HOME / f"{name}.log"


def _wait_until_healthy(address: str, parts: Mapping[str, subprocess.Popen[bytes]]) -> None:
    end = time.monotonic() + STARTUP_S
    while not _answers(address):
        _require_alive(parts)
        if time.monotonic() > end:
            raise UserError(f"{address} does not answer after {STARTUP_S} s; see {HOME}/*.log")
        time.sleep(0.5)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False


def _require_alive(parts: Mapping[str, subprocess.Popen[bytes]]) -> None:
    for name, process in parts.items():
        if process.poll() is not None:
            raise UserError(f"{name} ended with {process.returncode}, so all ends; see {_log_of(name)}")


def _close_lost_runs(address: str) -> None:
    """Mark runs as crashed whose worker was killed.

    Prefect still counts them as running, and each would block the concurrency limit of its deployment.
    """
    pending = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
    lost = _post(f"{address}/filter", {"flow_runs": pending, "work_pools": {"name": {"any_": [POOL]}}})
    crashed = {"type": "CRASHED", "message": "its worker was ended; the next run does its work"}
    for run in lost:
        _post(f"{address}/{run['id']}/set_state", {"state": crashed, "force": True})


def _post(address: str, content: Mapping[str, object]) -> Any:
    body = json.dumps(content).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def _deploy(variables: Mapping[str, str]) -> None:
    """Create or replace the work pool and the deployments of prefect.yaml."""
    pool = ["work-pool", "create", POOL, "--type", "process", "--overwrite"]
    for arguments in (pool, ["deploy", "--all"]):
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        done = subprocess.run(command, cwd=PROJECT, env=variables, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"prefect {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Terminate the servers and their children, the worker first, so that its runs can still report.

    The worker would wait for its runs, so they are terminated with it.
    """
    for process in reversed(processes):
        if process.poll() is None:
            part = psutil.Process(process.pid)
            everyone = [part, *part.children(recursive=True)]
            for each in [*part.children(), part]:
                with suppress(psutil.NoSuchProcess):
                    each.terminate()
            _, left = psutil.wait_procs(everyone, timeout=_PATIENCE_S)
            for survivor in left:
                with suppress(psutil.NoSuchProcess):
                    survivor.kill()
        with suppress(ProcessLookupError):  # what a part that died had left behind
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    main()
