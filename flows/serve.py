"""Run the MLflow UI, the Prefect server, and a worker for the schedules in prefect.yaml.

    python flows/serve.py [--mlflow-port 5000] [--prefect-port 4200]

The servers listen on 127.0.0.1 and log to .prefect/*.log. Ctrl-C stops everything, including running flows;
their next run resumes the work. So does kill -9, after which a watchdog ends what is left.
"""

import argparse
import importlib
import inspect
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

import notify
import psutil
import schedules
import tzlocal
import watchdog
from commands import environment, tied

from secondeye.system.errors import UserError
from secondeye.system.process import lock_dir

PROJECT = Path(__file__).resolve().parent.parent
HOME = PROJECT / ".prefect"
HOST = "127.0.0.1"
POOL = "local"  # the name in prefect.yaml
STARTUP_S = 120  # Prefect takes 20 to 40 s on two cores
_GRACE_S = 20  # from SIGTERM to SIGKILL


def main() -> None:
    """Start all servers, print their addresses, and wait until a signal arrives or one of them exits."""
    arguments = _parse_arguments()
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _interrupt)
    try:
        with lock_dir(HOME):
            serve(arguments.mlflow_port, arguments.prefect_port)
    except (UserError, OSError) as error:
        sys.exit(f"serve: {error}")
    except KeyboardInterrupt:
        print("\nall stopped")


def serve(mlflow_port: int, prefect_port: int) -> None:
    """Start the servers in order and watch them; stop all of them on every exit.

    Raises UserError if a port is in use, a server does not start, or one exits.
    """
    receiver = notify.check_setting()
    _check_parameters()
    _end_leftovers()
    _require_free(mlflow_port, "--mlflow-port")
    _require_free(prefect_port, "--prefect-port")
    mlflow, prefect = f"http://{HOST}:{mlflow_port}", f"http://{HOST}:{prefect_port}"
    mark = watchdog.new_mark(PROJECT)
    variables = _variables(prefect) | {watchdog.VARIABLE: mark}
    servers: dict[str, subprocess.Popen[bytes]] = {}
    guard = _start_watchdog(mark)
    try:
        print("starting MLflow and Prefect (half a minute)", flush=True)
        servers["mlflow"] = _start("mlflow", _mlflow(mlflow_port), variables)
        servers["prefect"] = _start("prefect", _prefect(prefect_port), variables)
        _wait_until_healthy(f"{mlflow}/health", servers)
        _wait_until_healthy(f"{prefect}/api/health", servers)
        _close_lost_runs(f"{prefect}/api/flow_runs")
        _deploy(variables)
        lines = schedules.apply(f"{prefect}/api")  # before the worker runs what is switched off
        schedules.remember_api(f"{prefect}/api")
        servers["worker"] = _start("worker", _worker(), variables)
        print(f"MLflow   {mlflow}\nPrefect  {prefect}\nlogs     {HOME}/*.log\nschedules:")
        print("\n".join(lines))
        print(f"failures are reported to {receiver}")
        print("Ctrl-C stops all", flush=True)
        _watch(servers)
    finally:
        # A second Ctrl-C would interrupt the shutdown and leave servers running.
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)
        _stop(list(servers.values()))
        guard.communicate(watchdog.ORDERED)  # it ends whatever else is left


def _watch(servers: Mapping[str, subprocess.Popen[bytes]]) -> None:
    """Wait until a server exits; report it, and raise UserError."""
    while True:
        try:
            _require_alive(servers)
        except UserError as error:
            notify.notify(f"./run serve in {PROJECT} has ended, and no flow runs any more: {error}")
            raise
        time.sleep(1)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Run the MLflow UI, the Prefect server and a worker on 127.0.0.1"
    )
    parser.add_argument("--mlflow-port", type=_port, default=5000)
    parser.add_argument("--prefect-port", type=_port, default=4200)
    return parser.parse_args()


def _port(given: str) -> int:
    if not given.isdecimal() or not 1 <= int(given) <= 65535:
        raise argparse.ArgumentTypeError(f"must be 1 to 65535, got {given}")
    return int(given)


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _end_leftovers() -> None:
    """End processes of an earlier serve of this project, which is dead: this process holds its lock."""
    ended = watchdog.end_all(lambda mark: watchdog.project_of(mark) == str(PROJECT))
    if ended:
        print(f"ended what an earlier serve of this project had left running: {', '.join(ended)}", flush=True)


def _start_watchdog(mark: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, watchdog.__file__, mark]
    with _log_path("watchdog").open("ab") as log:
        # In its own session, so that neither Ctrl-C nor the end of the terminal reaches it.
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
        )


def _require_free(port: int, option: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"port {port} is in use by {_describe_holder(port)}; stop it, or set {option}"
            ) from error


def _describe_holder(port: int) -> str:
    holder = watchdog.port_holder(port)
    if holder is None:
        return "a process of another user"
    try:
        command = " ".join(holder.cmdline())
    except psutil.Error:
        return f"process {holder.pid}"
    mark = watchdog.mark_of(holder)
    owner = f"the ./run serve of {watchdog.project_of(mark)}, " if mark else ""
    return f"{owner}process {holder.pid} ({command[:100]})"


def _variables(prefect: str) -> dict[str, str]:
    """Return the environment of the servers and of the runs that they start."""
    return environment() | {
        "SECONDEYE_HOME": str(PROJECT),
        "SECONDEYE_TIMEZONE": tzlocal.get_localzone_name(),
        "PREFECT_HOME": str(HOME),  # absolute: runs start in other folders
        "PREFECT_API_URL": f"{prefect}/api",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight idle processes of 200 MB each
    }


def _mlflow(port: int) -> list[str]:
    folder = PROJECT / ".mlflow"
    folder.mkdir(exist_ok=True)
    store = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    artifacts = ["--artifacts-destination", str(folder / "artifacts")]
    bind = ["--host", HOST, "--port", str(port), "--workers", "1"]
    return [sys.executable, "-m", "mlflow", "server", *store, *artifacts, *bind]


def _prefect(port: int) -> list[str]:
    return [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]


def _worker() -> list[str]:
    return [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--name", POOL]


def _start(name: str, command: list[str], variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with _log_path(name).open("ab") as log:
        return subprocess.Popen(
            tied(command),
            cwd=PROJECT,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # this process handles Ctrl-C
        )


def _log_path(name: str) -> Path:
    return HOME / f"{name}.log"


def _wait_until_healthy(address: str, servers: Mapping[str, subprocess.Popen[bytes]]) -> None:
    end = time.monotonic() + STARTUP_S
    while not _is_healthy(address):
        _require_alive(servers)
        if time.monotonic() > end:
            raise UserError(f"{address} does not answer after {STARTUP_S} s; see {HOME}/*.log")
        time.sleep(0.5)


def _is_healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False


def _require_alive(servers: Mapping[str, subprocess.Popen[bytes]]) -> None:
    for name, process in servers.items():
        if process.poll() is not None:
            raise UserError(
                f"{name} exited with code {process.returncode}; stopping all; see {_log_path(name)}"
            )


def _close_lost_runs(address: str) -> None:
    """Mark the runs of killed workers as crashed.

    Prefect still counts them as running, and each would block the concurrency limit of its deployment.
    """
    pending = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
    lost = _post(f"{address}/filter", {"flow_runs": pending, "work_pools": {"name": {"any_": [POOL]}}})
    crashed = {"type": "CRASHED", "message": "its worker was stopped; the next run resumes its work"}
    for run in lost:
        _post(f"{address}/{run['id']}/set_state", {"state": crashed, "force": True})


def _post(address: str, content: Mapping[str, object]) -> Any:
    body = json.dumps(content).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def _check_parameters() -> None:
    """Raise UserError if a deployment in prefect.yaml has a parameter that its flow does not take."""
    for deployment in schedules.deployments():
        module, _, name = str(deployment["entrypoint"]).removeprefix("flows/").partition(".py:")
        try:
            flow = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise UserError(
                f"prefect.yaml: deployment {deployment['name']}: {deployment['entrypoint']}: no such flow"
            ) from error
        known = list(inspect.signature(flow.fn).parameters)
        for given in deployment.get("parameters") or {}:
            if given not in known:
                raise UserError(
                    f"prefect.yaml: deployment {deployment['name']}: {name} has no parameter {given!r}; "
                    f"it has {', '.join(known)}"
                )


def _deploy(variables: Mapping[str, str]) -> None:
    """Create or replace the work pool and the deployments of prefect.yaml."""
    pool = ["work-pool", "create", POOL, "--type", "process", "--overwrite"]
    for arguments in (pool, ["deploy", "--all"]):
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        done = subprocess.run(command, cwd=PROJECT, env=variables, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"prefect {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Terminate the servers and their children, the worker first, so that its runs can still report.

    The worker would wait for its runs, so they are terminated with it.
    """
    for process in reversed(processes):
        if process.poll() is None:
            server = psutil.Process(process.pid)
            descendants = server.children(recursive=True)
            for each in [*server.children(), server]:
                with suppress(psutil.NoSuchProcess):
                    each.terminate()
            _, left = psutil.wait_procs([server, *descendants], timeout=_GRACE_S)
            for survivor in left:
                with suppress(psutil.NoSuchProcess):
                    survivor.kill()
        with suppress(ProcessLookupError):  # the group is gone unless a server left children behind
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    main()
