"""The flows: their commands, prefect.yaml, and (slow) a run without a server and a schedule that fires."""

import fcntl
import inspect
import json
import logging
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import psutil
import pytest
import yaml
from test_conversion_options import option_types

from secondeye.conversion.bundle import settings_from_bundle
from secondeye.system.errors import UserError

PROJECT = Path(__file__).parent.parent
DEPLOYMENTS = yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """Restore the signal handlers, which `serve` changes: commands of later tests would ignore SIGTERM."""
    changed = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {each: signal.getsignal(each) for each in changed}
    yield
    for each, handler in handlers.items():
        signal.signal(each, handler)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def wait_for(condition: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.1)


# Commands


def test_run_command_logs_lines_in_order(flows: SimpleNamespace) -> None:
    lines: list[str] = []
    code = "import sys; print('one'); print('two', file=sys.stderr); print(); print('three')"
    flows.commands.run_command(python(code), lines.append)
    assert lines == ["one", "two", "three"]


def test_run_command_logs_while_the_command_runs(
    flows: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    times: list[float] = []
    code = "import time; print('one'); time.sleep(1); print('two')"
    flows.commands.run_command(python(code), lambda line: times.append(time.monotonic()))
    assert times[1] - times[0] > 0.5


def test_failed_command_raises_with_last_line_and_exit_code(flows: SimpleNamespace) -> None:
    with pytest.raises(flows.commands.CommandFailed, match=r"ended with 7: the disk is full$") as failure:
        flows.commands.run_command(python("print('begun'); print('the disk is full'); exit(7)"), print)
    assert failure.value.code == 7


def test_reason_is_the_last_secondeye_error_before_dvc_output(flows: SimpleNamespace) -> None:
    code = "print('secondeye: data/raw: empty'); print('ERROR: failed to reproduce'); exit(1)"
    with pytest.raises(UserError, match=r"ended with 1: secondeye: data/raw: empty$"):
        flows.commands.run_command(python(code), print)
    code = "print('secondeye: warning: 10 bits'); print('KeyError: x'); exit(1)"
    with pytest.raises(UserError, match=r"ended with 1: KeyError: x$"):
        flows.commands.run_command(python(code), print)


def test_run_command_finds_tools_beside_this_python(flows: SimpleNamespace) -> None:
    lines: list[str] = []
    flows.commands.run_command(python("import shutil; print(shutil.which('secondeye'))"), lines.append)
    assert lines == [str(Path(sys.executable).parent / "secondeye")]


PARENT_AND_CHILD = (
    "import os, subprocess, sys, time;"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
    "print(os.getpid(), child.pid); time.sleep(60)"
)


def test_stopped_flow_ends_its_command_and_its_children(flows: SimpleNamespace) -> None:
    family: list[int] = []

    def stop(line: str) -> None:
        family.extend(int(pid) for pid in line.split())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flows.commands.run_command(python(PARENT_AND_CHILD), stop)
    assert len(family) == 2
    wait_for(lambda: not any(is_running(pid) for pid in family), 5)


def test_killed_flow_ends_its_command(flows: SimpleNamespace) -> None:
    code = f"from commands import run_command; run_command({python(PARENT_AND_CHILD)!r}, print)"
    search = {"PYTHONPATH": str(PROJECT / "flows"), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(python(code), stdout=subprocess.PIPE, text=True, env=os.environ | search) as flow:
        assert flow.stdout
        command, child = (int(pid) for pid in flow.stdout.readline().split())
        flow.kill()
    wait_for(lambda: not is_running(command), 5)
    os.kill(child, signal.SIGKILL)  # after SIGKILL only the command itself is ended


def test_errors_are_logged_without_traceback_if_expected(flows: SimpleNamespace) -> None:
    def record(error: Exception) -> logging.LogRecord:
        exc_info = (type(error), error, None)
        return logging.LogRecord("prefect.flow_runs", logging.ERROR, "", 0, "failed", None, exc_info)

    expected, unexpected = record(flows.commands.CommandFailed(["dvc"], 1, [])), record(KeyError("x"))
    assert flows.commands._without_traceback(expected) and flows.commands._without_traceback(unexpected)
    assert expected.exc_info is None and unexpected.exc_info


# Tasks and flows


@pytest.mark.parametrize(
    ("module", "flow", "steps"),
    [
        ("dataset", "build_dataset", ["repro"]),
        ("training", "train_and_promote", ["repro", "show", "publish", "gate", "show"]),
    ],
)
def test_flows_on_the_data_exclude_each_other(
    flows: SimpleNamespace,
    lines: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    flow: str,
    steps: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    unlocked: list[str] = []

    def step(name: str, *given: object) -> None:
        lines.append(name)
        with flows.turn.LOCK.open("w") as another, suppress(BlockingIOError):
            fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unlocked.append(name)

    for name in set(steps):
        monkeypatch.setattr(getattr(flows, module), name, partial(step, name))
    Path(".prefect").mkdir()
    with flows.turn.LOCK.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        thread = threading.Thread(target=getattr(getattr(flows, module), flow).fn)
        thread.start()
        wait_for(lambda: lines, 5)
        time.sleep(0.3)
        assert lines == ["another flow of this project is working; waiting until it ends"]
    thread.join(10)
    assert lines[1:] == steps
    assert not unlocked, "the lock must be held during every step"


def test_tasks_run_dvc_and_secondeye(
    flows: SimpleNamespace, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    echo = "import sys; print(sys.argv[1:]); print('champion: version 3; the report is gate.md')"
    for module, name in ((flows.dvc_stages, "DVC"), (flows.training, "SECONDEYE")):
        monkeypatch.setattr(module, name, python(echo))
    flows.training.repro.fn("evaluate")
    assert flows.training.gate.fn() == "champion: version 3"
    assert lines[::2] == ["['repro', 'evaluate']", "['model', 'gate']"]


def test_unreachable_mlflow_does_not_stop_the_training_flow(
    flows: SimpleNamespace, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        flows.training, "SECONDEYE", python("print('secondeye: MLflow is unreachable'); exit(4)")
    )
    flows.training.publish.fn()
    assert "MLflow is unreachable; the runs stay in .runs" in lines[-1]
    monkeypatch.setattr(flows.training, "SECONDEYE", python("print('secondeye: no such run'); exit(1)"))
    with pytest.raises(UserError, match="no such run"):
        flows.training.publish.fn()


def test_training_flow_shows_each_report_after_its_step(
    flows: SimpleNamespace, lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done: list[str] = []
    for name in ("repro", "show", "publish", "gate"):
        monkeypatch.setattr(
            flows.training, name, lambda *given, name=name: done.append(" ".join([name, *map(str, given)]))
        )
    flows.training.train_and_promote.fn(timeout_hours=2.0, share_machine=True)
    assert done == [
        "repro evaluate 2.0 True",
        "show reports/evaluation.md",
        "publish",
        "gate",
        "show reports/gate.md",
    ]


def git(*arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=b", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change into a project under Git, with a remote, that a flow has worked in."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    git("init", "-q", "-b", "main")
    Path("code.py").write_text("1")
    Path("params.yaml").write_text("steps: 1")
    git("add", ".")
    git("commit", "-q", "-m", "code")
    git("init", "-q", "--bare", "../remote")
    git("remote", "add", "origin", "../remote")
    for name in ("dvc.lock", "reports/gate.md", "data/raw/sources.csv", "data/raw/film_sbs.mp4"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("night 1")
    Path("params.yaml").write_text("steps: 2")
    Path(".gitignore").write_text("reports\ndata/raw/*\n.prefect\n")
    return tmp_path / "project"


def test_nights_are_kept_on_a_branch_and_pushed(
    flows: SimpleNamespace, lines: list[str], repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    for name in ("repro", "show", "publish", "gate"):
        monkeypatch.setattr(flows.training, name, lambda *given, name=name: done.append(name))
    monkeypatch.setattr(flows.training, "keep_night", flows.night.keep_night.fn)
    monkeypatch.setattr(flows.training, "push_night", flows.night.push_night.fn)
    monkeypatch.setattr(
        flows.night, "DVC", python("import sys; print('store', 's3://bucket', *sys.argv[1:])")
    )
    before = git("status", "--porcelain=v1"), git("rev-parse", "HEAD", "--abbrev-ref", "HEAD")
    flows.training.train_and_promote.fn(history_branch="nights")
    assert done[-1] == "show" and "store s3://bucket push" in lines
    assert (git("status", "--porcelain=v1"), git("rev-parse", "HEAD", "--abbrev-ref", "HEAD")) == before
    kept = "code.py data/raw/sources.csv dvc.lock params.yaml reports/gate.md"
    assert git("ls-tree", "-r", "--name-only", "nights").split() == kept.split()
    assert git("show", "nights:params.yaml") == "steps: 2"
    first = git("rev-parse", "nights")
    assert git("-C", "../remote", "rev-parse", "nights") == first
    assert "Training and evaluation, 20" in git("log", "-1", "--format=%s", "nights")

    flows.training.train_and_promote.fn(history_branch="nights")
    assert git("rev-parse", "nights") == first, "nothing has changed"
    Path("dvc.lock").write_text("night 2")
    flows.training.train_and_promote.fn(history_branch="nights")
    assert git("log", "--format=%P", "-1", "nights") == first
    git("commit", "-q", "-a", "-m", "other code")
    Path("dvc.lock").write_text("night 3")
    flows.training.train_and_promote.fn(history_branch="nights")
    assert git("log", "--format=%P", "-1", "nights").split() == [
        git("rev-parse", "nights~"),
        git("rev-parse", "HEAD"),
    ]
    shown = [git("show", f"{commit}:dvc.lock") for commit in ("nights", "nights~", "nights~2")]
    assert shown == ["night 3", "night 2", "night 1"]
    assert git("-C", "../remote", "rev-parse", "nights") == git("rev-parse", "nights")

    third = git("rev-parse", "nights")
    git("branch", "-D", "nights")  # as in a fresh clone
    Path("dvc.lock").write_text("night 4")
    flows.training.train_and_promote.fn(history_branch="nights")
    assert git("rev-parse", "nights~") == third
    assert git("-C", "../remote", "rev-parse", "nights") == git("rev-parse", "nights")


def test_nights_are_not_kept_where_they_would_disturb(
    flows: SimpleNamespace, lines: list[str], repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, reason in (("main", "is checked out"), ("a..b", "check-ref-format")):
        with pytest.raises(UserError, match=reason):
            flows.night.keep_night.fn(name, "Dataset")
    git("config", "remote.origin.url", str(repository / "gone"))
    monkeypatch.setattr(flows.night, "DVC", python(""))
    flows.night.keep_night.fn("nights", "Dataset")
    with pytest.raises(UserError, match="git push origin"):
        flows.night.push_night.fn("nights")
    assert git("show", "nights:dvc.lock") == "night 1", "the commit exists, and is pushed the next time"
    monkeypatch.chdir(repository.parent)
    with pytest.raises(UserError, match="`git rev-parse` failed: fatal: not a git repository"):
        flows.night.keep_night.fn("nights", "Dataset")


@pytest.fixture
def folders(
    conversion: ModuleType,
    lines: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[Path, Path]:
    """Create an inbox and an outbox, and stub `secondeye` to write its model argument to the output."""
    stub = tmp_path / "stub.py"
    stub.write_text(
        "import sys\n"
        "if sys.argv[1:3] == ['model', 'init']:\n"
        "    print('champion: version 3')\n"
        "    sys.exit()\n"
        "if sys.argv[1:3] == ['model', 'record']:\n"
        "    print('recorded', *sys.argv[3:])\n"
        "    sys.exit(4)  # MLflow is away\n"
        "command, film, _, model, _, output, *options = sys.argv[1:]\n"
        "content = ' '.join([model, *options])\n"
        "sys.exit('secondeye: cannot be read') if 'bad' in film else open(output, 'w').write(content)\n"
    )
    monkeypatch.setattr(conversion, "SECONDEYE", [sys.executable, str(stub)])
    inbox, outbox = tmp_path / "inbox", tmp_path / "outbox"
    conversion.convert_folder.fn(str(inbox), str(outbox))  # creates both folders
    return inbox, outbox


def put(film: Path, inbox: Path, name: str, age_s: float = 3600) -> None:
    shutil.copy(film, inbox / name)
    os.utime(inbox / name, (time.time() - age_s,) * 2)


def test_new_films_are_converted_with_the_champion_and_recorded(
    flows: SimpleNamespace, folders: tuple[Path, Path], lines: list[str], make_film: Callable[..., Path]
) -> None:
    inbox, outbox = folders
    film, silent = make_film(), make_film("pcm.mkv", sound=False)
    put(film, inbox, "a.mp4")
    put(silent, inbox, "b.MKV")
    put(film, inbox, "done.mp4")
    (outbox / "done_LRF_Full_SBS.mkv").write_text("before")
    put(film, inbox, "half_copied.mp4", age_s=1)
    put(film, inbox, ".hidden.mp4")
    (inbox / "notes.txt").write_text("no film")
    flows.conversion.convert_folder.fn(str(inbox), str(outbox))
    made = {path.name: path.read_text() for path in outbox.iterdir()}
    champion = "models:/secondeye/3"
    assert made == {
        "a_LRF_Full_SBS.mp4": champion,
        "b_LRF_Full_SBS.mp4": champion,
        "done_LRF_Full_SBS.mkv": "before",
    }
    recorded = [line.split("--seconds=")[0] for line in lines if line.startswith("recorded")]
    assert recorded == [f"recorded {outbox / name} " for name in ("a_LRF_Full_SBS.mp4", "b_LRF_Full_SBS.mp4")]
    shown = flows.conversion.artifacts
    assert [[*artifact] for artifact in shown] == [["film-a-lrf-full-sbs"], ["film-b-lrf-full-sbs"]]
    (row,) = shown[0]["film-a-lrf-full-sbs"]
    assert (row["film"], row["run in MLflow"]) == (str(outbox / "a_LRF_Full_SBS.mp4"), "not in MLflow yet")


def test_each_film_has_its_turn_unless_the_machine_is_shared(
    flows: SimpleNamespace, folders: tuple[Path, Path], lines: list[str], make_film: Callable[..., Path]
) -> None:
    inbox, outbox = folders
    put(make_film(), inbox, "a.mp4")
    flows.turn.LOCK.parent.mkdir()
    with flows.turn.LOCK.open("w") as training:
        fcntl.flock(training, fcntl.LOCK_EX)
        flows.conversion.convert_folder.fn(str(inbox), str(outbox), share_machine=True)
        assert (outbox / "a_LRF_Full_SBS.mp4").exists()
        put(make_film("b.mp4"), inbox, "b.mp4")
        run = partial(flows.conversion.convert_folder.fn, str(inbox), str(outbox))
        thread = threading.Thread(target=run)
        thread.start()
        wait_for(lambda: "another flow of this project is working; waiting until it ends" in lines, 5)
        assert not (outbox / "b_LRF_Full_SBS.mp4").exists()
    thread.join(10)
    assert (outbox / "b_LRF_Full_SBS.mp4").exists()


def test_flow_passes_its_options_to_the_command(
    flows: SimpleNamespace, folders: tuple[Path, Path], make_film: Callable[..., Path]
) -> None:
    inbox, outbox = folders
    put(make_film(), inbox, "a.mp4")
    flows.conversion.convert_folder.fn(
        str(inbox), str(outbox), tiles=2, steps=4, max_memory_gb=1.5, offload=True, workers="auto"
    )
    made = (outbox / "a_LRF_Full_SBS.mp4").read_text()
    assert made == ("models:/secondeye/3 --tiles=2 --steps=4 --offload --max-memory-gb=1.5 --workers=auto")


def test_flow_has_every_option_that_the_champion_leaves_open(
    flows: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = option_types(settings_from_bundle)
    del wanted["depth"], wanted["depth_resolution"], wanted["inpainter"]  # the champion's own
    flow = flows.conversion.convert_folder.fn
    assert option_types(flow) == wanted
    defaults = {name: given.default for name, given in inspect.signature(flow).parameters.items()}
    assert {defaults.pop("inbox"), defaults.pop("outbox")} == {inspect.Parameter.empty}
    own = {"attempts": 3, "timeout_hours": None, "share_machine": False}  # the flow's
    assert {name: defaults.pop(name) for name in own} == own
    assert defaults == {name: False if kind == "boolean" else None for name, kind in wanted.items()}
    values = {"double": 1.0, "long": 2, "string": "3", "boolean": True}
    chosen = {name: values[kind] for name, kind in wanted.items()}
    monkeypatch.setattr(sys, "argv", ["flow", "in", "out", *flows.conversion.command_options(**chosen)])
    parsed = vars(flows.conversion._parse_arguments())
    assert parsed == {"inbox": "in", "outbox": "out", **own, **chosen}
    assert {type(parsed[name]) for name in ("crf", "steps")} == {int}


def test_failed_films_are_reported_after_all_others(
    flows: SimpleNamespace, folders: tuple[Path, Path], make_film: Callable[..., Path]
) -> None:
    inbox, outbox = folders
    film = make_film()
    for name in ("a.mp4", "bad.mp4", "z.mp4"):
        put(film, inbox, name)
    (inbox / "broken.mp4").write_text("no film at all")
    os.utime(inbox / "broken.mp4", (0, 0))
    with pytest.raises(
        UserError, match=r"^2 of 4 films failed: bad.mp4 \(attempt 1 of 3\): .*cannot be read; broken.mp4 "
    ) as end:
        flows.conversion.convert_folder.fn(str(inbox), str(outbox))
    assert "\n" not in str(end.value)
    assert {path.name for path in outbox.iterdir()} == {"a_LRF_Full_SBS.mp4", "z_LRF_Full_SBS.mp4"}


# prefect.yaml, settings, serve


def test_deployments() -> None:
    assert [deployment["name"] for deployment in DEPLOYMENTS] == ["dataset", "training", "conversion"]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_deployment_matches_its_flow(flows: SimpleNamespace, deployment: dict) -> None:
    from prefect import Flow

    path, name = deployment["entrypoint"].split(":")
    assert path == f"flows/{deployment['name']}.py"
    flow = getattr(getattr(flows, deployment["name"]), name)
    assert isinstance(flow, Flow)
    inspect.signature(flow.fn).bind(**deployment["parameters"])
    assert deployment["work_pool"] == {"name": flows.serve.POOL}
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
    for schedule in deployment["schedules"]:
        assert schedule.get("active", True) == (deployment["name"] != "training")
        assert schedule["timezone"] == "{{ $SECONDEYE_TIMEZONE }}"
        written = {"cron": schedule["cron"], "timezone": "Europe/Berlin"}
        line = flows.schedules.describe(deployment["name"], written, active=True)
        assert re.fullmatch(r"  armed  \w+ +next 20\d\d-\d\d-\d\d \d\d:\d\d CES?T", line)


def test_a_schedule_is_switched_on_and_off_and_stays_so(
    flows: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copy(PROJECT / "prefect.yaml", tmp_path)
    monkeypatch.setattr(flows.schedules, "PROJECT", tmp_path)
    server = {
        name: {"id": name, "schedule": {"cron": "0 2 * * *", "timezone": "UTC"}, "active": name != "training"}
        for name in ("dataset", "training")
    }

    def request(url: str, content: dict[str, object], method: str = "POST") -> object:
        if method == "DELETE":
            del server[url.rpartition("/")[2]]
            return None
        if method == "PATCH":
            server[url.rpartition("/")[2]] |= content
            return None
        return [{"id": name, "name": name, "schedules": [dict(found)]} for name, found in server.items()]

    monkeypatch.setattr(flows.schedules, "_request", request)
    monkeypatch.setattr(sys, "argv", ["schedules.py", "arm", "training"])
    flows.schedules.main()
    assert capsys.readouterr().out == "training: armed when ./run serve starts\n"
    assert server["training"]["active"] is False, "another project may serve on this port"
    monkeypatch.setattr(flows.schedules, "is_dir_locked", lambda folder: True)
    flows.schedules.remember_api("http://server/api")
    for action, armed in (("arm", True), ("disarm", False), ("arm", True)):
        monkeypatch.setattr(sys, "argv", ["schedules.py", action, "training"])
        flows.schedules.main()
        assert server["training"]["active"] is armed and server["dataset"]["active"] is True
        first, second = capsys.readouterr().out.splitlines()
        assert first.startswith("  armed  dataset      next ") and second.startswith(
            "  armed  training" if armed else "  off    training"
        )
    server["training"]["active"] = False  # as `prefect deploy` leaves it
    flows.schedules.apply("http://server/api")
    assert server["training"]["active"] is True
    server["renamed"] = dict(server["training"])  # of an earlier prefect.yaml
    flows.schedules.apply("http://server/api")
    assert [*server] == ["dataset", "training"]
    monkeypatch.setattr(sys, "argv", ["schedules.py", "arm", "trainig"])
    with pytest.raises(SystemExit, match=r"trainig: not in prefect\.yaml, which has dataset, training"):
        flows.schedules.main()


def test_prefect_reads_the_settings_in_pyproject(in_project: Path) -> None:
    code = (
        "from prefect.settings import get_current_settings; s = get_current_settings();"
        "print(s.home, s.server.analytics_enabled, s.server.ephemeral.startup_timeout_seconds)"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(python(code), env=clean, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [".prefect", "False", "120"]


def test_serve_refuses_a_parameter_that_the_flow_does_not_have(
    flows: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        (PROJECT / "prefect.yaml")
        .read_text()
        .replace("outbox: data/outbox,", "outbox: data/outbox, tile: 2,")
    )
    (tmp_path / "prefect.yaml").write_text(text)
    monkeypatch.setattr(flows.schedules, "PROJECT", tmp_path)
    wanted = (
        r"^prefect\.yaml: deployment conversion: convert_folder has no parameter 'tile'; it has inbox, outbox"
    )
    with pytest.raises(UserError, match=wanted):
        flows.serve.serve(free_port(), free_port())


@pytest.mark.parametrize("damage", ["deployments: [", "deployments:\n  - name: a\n", "- a"])
def test_a_damaged_file_is_one_line(
    flows: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(flows.schedules, "PROJECT", tmp_path)
    (tmp_path / "prefect.yaml").write_text(damage)
    with pytest.raises(UserError, match=r"prefect\.yaml: cannot be read: ") as error:
        flows.serve.serve(free_port(), free_port())
    assert "\n" not in str(error.value)
    shutil.copy(PROJECT / "prefect.yaml", tmp_path)
    (tmp_path / ".prefect").mkdir()
    (tmp_path / ".prefect" / "armed.json").write_text("")
    with pytest.raises(UserError, match=r"armed\.json: cannot be read"):
        flows.schedules.apply("http://server/api")


def test_the_end_of_a_server_is_reported(flows: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[str] = []
    monkeypatch.setattr(flows.notify, "notify", reports.append)
    with subprocess.Popen(python("exit(3)")) as server:
        server.wait()
        with pytest.raises(UserError, match="worker exited with code 3"):
            flows.serve._watch({"worker": server})
    assert len(reports) == 1 and "worker exited with code 3" in reports[0]


def test_serve_names_the_port_in_use(flows: SimpleNamespace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"^port {port} .* process {os.getpid()} .*--prefect-port$"):
            flows.serve.serve(free_port(), port)


# Starts a process, which starts another in a session of its own, prints both ids, and ends.
SPAWN_DETACHED = """
import subprocess, sys
child = "import time; time.sleep(60)"
parent = (
    "import subprocess, sys, time;"
    f"print(subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True).pid, flush=True);"
    "time.sleep(60)"
)
started = subprocess.Popen(
    [sys.executable, "-c", parent], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
)
print(started.pid, started.stdout.readline())
"""


def start_marked(flows: SimpleNamespace, mark: str) -> list[int]:
    """Start a process with a mark, and through it one in a session of its own."""
    marked = os.environ | {flows.watchdog.VARIABLE: mark}
    done = subprocess.run(python(SPAWN_DETACHED), env=marked, capture_output=True, text=True, check=True)
    return [int(pid) for pid in done.stdout.split()]


def test_watchdog_ends_a_killed_serve_and_nothing_else(flows: SimpleNamespace, tmp_path: Path) -> None:
    mark, other = (flows.watchdog.new_mark(tmp_path) for _ in range(2))
    family, stranger = start_marked(flows, mark), start_marked(flows, other)
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); import subprocess, watchdog;"
        "subprocess.Popen([sys.executable, watchdog.__file__, sys.argv[2]], stdin=subprocess.PIPE);"
        "print(flush=True); time.sleep(60)"
    )
    command = [*python(code), str(PROJECT / "flows"), mark]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as serve:
        assert serve.stdout and serve.stdout.read(1)
        assert all(is_running(pid) for pid in family)
        serve.kill()
        wait_for(lambda: not any(is_running(pid) for pid in family), 10)
    assert len(family) == len(stranger) == 2
    assert all(is_running(pid) for pid in stranger), "another serve's processes must live"
    flows.watchdog.end_all(lambda found: found == other)
    assert not any(is_running(pid) for pid in stranger)


def test_serve_first_ends_what_an_earlier_one_left(
    flows: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(flows.serve, "PROJECT", tmp_path)
    monkeypatch.setattr(flows.serve, "HOME", tmp_path)
    left = start_marked(flows, flows.watchdog.new_mark(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(UserError):
        flows.serve.serve(other.getsockname()[1], free_port())
    assert not any(is_running(pid) for pid in left)
    said = capsys.readouterr().out
    assert all(f"{pid} " in said for pid in left)


def test_serve_ends_all_servers_when_one_exits(
    flows: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows.serve, "PROJECT", tmp_path)
    monkeypatch.setattr(flows.serve, "HOME", tmp_path)
    pid = tmp_path / "pid"
    sleeping = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    exiting = (
        f"import os, time\nwhile not os.path.exists({str(pid)!r}): time.sleep(0.1)\nprint('no port'); exit(3)"
    )
    monkeypatch.setattr(flows.serve, "_mlflow", lambda port: python(sleeping))
    monkeypatch.setattr(flows.serve, "_prefect", lambda port: python(exiting))
    with pytest.raises(UserError, match=r"^prefect exited with code 3; stopping all; see .*prefect.log$"):
        flows.serve.serve(free_port(), free_port())
    assert (tmp_path / "prefect.log").read_text() == "no port\n"
    assert not is_running(int(pid.read_text()))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


# Slow: real servers, on a project of one stage


@pytest.fixture
def small_project(tmp_path: Path) -> Path:
    """Create a DVC project with the flows and one stage, `validate`, that prints a line."""
    shutil.copytree(PROJECT / "flows", tmp_path / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "prefect.yaml"):
        shutil.copy(PROJECT / name, tmp_path)
    stages = {"stages": {"validate": {"cmd": "echo hello from the stage", "always_changed": True}}}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(stages))
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=tmp_path, check=True)
    return tmp_path


def without_prefect() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}


@pytest.mark.slow(seconds=26)
def test_flow_runs_without_a_server(small_project: Path) -> None:
    command = [sys.executable, "flows/dataset.py", "--share-machine"]  # it does not wait for other tests
    done = subprocess.run(command, cwd=small_project, env=without_prefect(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Task run 'stage validate' - hello from the stage" in done.stderr
    assert "Flow run 'dataset: validate' - Finished in state Completed()" in done.stderr
    assert (small_project / ".prefect/prefect.db").exists()

    done = subprocess.run(
        [*command, "nonsense"], cwd=small_project, env=without_prefect(), capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "\ndataset: `dvc repro nonsense` ended with 255: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow(seconds=62)
def test_serve_runs_a_schedule_leaves_nothing_when_killed_and_ends_cleanly(
    small_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_schedule_frequent(small_project / "prefect.yaml")
    mlflow, prefect = free_port(), free_port()
    reports = small_project / "reports.txt"
    write = f"import sys; open({str(reports)!r}, 'a').write(sys.argv[1] + chr(10))"
    monkeypatch.setenv("SECONDEYE_NOTIFY", shlex.join(python(write)))
    with serving(small_project, mlflow, prefect) as server:
        wait_for(lambda: "dataset: validate" in {run["name"] for run in completed_runs(prefect)}, 180)
        family = psutil.Process(server.pid).children(recursive=True)
        server.kill()
    assert len(family) >= 4
    wait_for(lambda: not any(is_running(part.pid) for part in family), 10)
    for port in (mlflow, prefect):
        socket.create_server(("127.0.0.1", port)).close()  # raises if it is in use

    with serving(small_project, mlflow, prefect) as server:
        family = psutil.Process(server.pid).children(recursive=True)
        server.terminate()
        assert server.wait(90) == 0
    assert len(family) >= 4
    assert not [part for part in family if is_running(part.pid)]
    assert [line.split()[5:7] for line in reports.read_text().splitlines()] == [["was", "killed;"]]
    assert (small_project / ".mlflow/mlflow.db").exists()


def make_schedule_frequent(deployments: Path) -> None:
    """Let the dataset be built every ten seconds, whatever other tests run on this machine."""
    content = yaml.safe_load(deployments.read_text())
    (dataset,) = (each for each in content["deployments"] if each["name"] == "dataset")
    dataset["schedules"] = [{"interval": 10}]
    dataset["parameters"]["share_machine"] = True
    deployments.write_text(yaml.safe_dump(content))


@contextmanager
def serving(project: Path, mlflow: int, prefect: int) -> Iterator[subprocess.Popen]:
    """Run `./run serve` of a project; the block begins when everything is up."""
    ports = ["--mlflow-port", str(mlflow), "--prefect-port", str(prefect)]
    command = [sys.executable, "flows/serve.py", *ports]
    often = {"PREFECT_WORKER_QUERY_SECONDS": "1"}
    with subprocess.Popen(
        command, cwd=project, env=without_prefect() | often, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout
            printed: list[str] = []
            wait_for(lambda: printed.append(server.stdout.readline()) or "Ctrl-C" in printed[-1], 180)
            assert [line.split()[:2] for line in printed[-5:-2]] == [
                ["armed", "conversion"],
                ["armed", "dataset"],
                ["off", "training"],
            ]
            yield server
        finally:
            server.terminate()


def completed_runs(port: int) -> list[dict]:
    """Return the completed runs that a schedule started."""
    wanted = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    address = f"http://127.0.0.1:{port}/api/flow_runs/filter"
    request = urllib.request.Request(
        address, json.dumps(wanted).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return [run for run in json.load(answer) if run["auto_scheduled"]]
