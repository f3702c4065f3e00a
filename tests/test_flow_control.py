"""Flows take turns, retry and time out, show DVC's stages, and report failures and new champions."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from test_flows import is_running, python, wait_for

from secondeye.system.errors import UserError


@contextmanager
def started(command: list[str], folder: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command that waits; end it after the block."""
    with subprocess.Popen(command, cwd=folder, env=os.environ | variables) as process:
        try:
            wait_for(lambda: len(psutil.Process(process.pid).cmdline()) == len(command), 5)
            yield process
        finally:
            process.kill()


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write programs called dvc and secondeye that do nothing for a minute; work in a project beside them."""
    for name in ("dvc", "secondeye"):
        (tmp_path / name).write_text("import time; time.sleep(60)")
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "here", "waited_for", "waited_for_if_shared"),
    [
        (["dvc", "repro", "validate"], True, True, True),
        (["dvc", "repro"], False, True, False),
        (["secondeye", "convert", "film.mp4"], False, True, False),
        (["secondeye", "stage", "train_depth"], True, True, False),
        (["dvc", "status"], True, False, False),
        (["secondeye", "model", "publish"], True, False, False),
        (["secondeye", "depth", "film.mp4"], False, True, False),
        (["dvc", "-v", "exp", "run"], True, True, True),
        (["dvc", "exp", "show"], True, False, False),
    ],
)
def test_commands_started_by_hand_are_waited_for(
    flows: SimpleNamespace,
    others_at_work: Callable[..., list[str]],
    tools: Path,
    command: list[str],
    here: bool,
    waited_for: bool,
    waited_for_if_shared: bool,
) -> None:
    program, *arguments = command
    folder = tools / "project" if here else tools
    with started([sys.executable, str(tools / program), *arguments], folder) as process:
        found = f"process {process.pid} ({' '.join(command)})"
        for shared, expected in ((False, waited_for), (True, waited_for_if_shared)):
            assert (found in others_at_work(shared)) is expected
        process.send_signal(19)  # SIGSTOP: a stopped command would never end
        wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, 5)
        assert found not in others_at_work(False)
    assert found not in others_at_work(False)


@pytest.mark.parametrize(
    ("command", "program"),
    [
        ("/x/.venv/bin/python3.11 -u -m dvc repro", "dvc"),
        ("/x/.venv/bin/python /x/.venv/bin/secondeye stage match", "secondeye"),
        ("secondeye convert a.mp4", "secondeye"),
        ("ssh gpu dvc repro", ""),
        ("tmux new dvc repro", ""),
        ("python -c pass dvc repro", ""),
        ("vim repro dvc", ""),
        ("", ""),
    ],
)
def test_only_the_program_itself_is_work(flows: SimpleNamespace, command: str, program: str) -> None:
    assert flows.turn.program_of(command.split()) == program


def test_a_flow_that_waits_for_an_hour_is_reported_once(
    flows: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([["process 1 (dvc repro)"]] * 4 + [[]])
    monkeypatch.setattr(flows.turn, "_POLL_S", 0.01)
    monkeypatch.setattr(flows.turn, "_LONG_S", 0.0)
    monkeypatch.setattr(flows.turn, "others_at_work", lambda share_machine: next(found))
    reports: list[str] = []
    monkeypatch.setattr(flows.notify, "notify", reports.append)
    flows.turn.wait_for_others(lambda line: None)
    assert len(reports) == 1 and reports[0].endswith("process 1 (dvc repro)")


def test_commands_of_flows_of_this_project_are_not_waited_for(
    flows: SimpleNamespace, others_at_work: Callable[..., list[str]], tools: Path
) -> None:
    command = [sys.executable, str(tools / "dvc"), "repro"]
    own, other = str(tools / "project"), str(tools / "another")
    for project, waited_for in ((own, False), (other, True)):
        with started(command, tools / "project", SECONDEYE_FLOW=project) as process:
            assert any(f"process {process.pid} " in each for each in others_at_work(False)) is waited_for
    lines: list[str] = []
    flows.commands.run_command(python("import os; print(os.environ['SECONDEYE_FLOW'])"), lines.append)
    assert lines == [own]


def test_a_turn_waits_for_hand_run_work_and_says_for_which(
    flows: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(flows.turn, "_POLL_S", 0.01)
    found = iter([["process 1 (dvc repro)"]] * 3 + [["process 2 (secondeye convert a.mp4)"], []])
    monkeypatch.setattr(flows.turn, "others_at_work", lambda share_machine=False: next(found))
    lines: list[str] = []
    with flows.turn.turn(lines.append):
        lines.append("working")
    assert lines == [
        "waiting for what was started by hand: process 1 (dvc repro)",
        "waiting for what was started by hand: process 2 (secondeye convert a.mp4)",
        "working",
    ]


@pytest.fixture
def others_at_work(flows: SimpleNamespace) -> Callable[..., list[str]]:
    """Return the real function, which the fixture `flows` replaces."""
    code = compile(Path(flows.turn.__file__).read_text(), flows.turn.__file__, "exec")
    namespace: dict[str, object] = {"__name__": "turn"}
    exec(code, namespace)
    return namespace["others_at_work"]  # type: ignore[return-value]


BUSY = """
print("ERROR: failed to reproduce 'splat': '/p/data/match' is busy, it is being blocked by:")
print("  (PID 17): dvc repro")
print("  (PID 18): dvc gc")
print()
print("If there are no processes with such PIDs, you can manually remove '/p/.dvc/tmp/rwlock' and try again.")
exit(255)
"""


@pytest.mark.parametrize(
    ("code", "transient"),
    [
        (BUSY, True),
        ("print('secondeye: MLflow is unreachable'); exit(4)", True),
        ("import os; os.kill(os.getpid(), 9)", True),
        ("print('ERROR: failed to reproduce x: failed to run: x, exited with -9'); exit(255)", True),
        ("print('ERROR: failed to reproduce x: failed to run: x, exited with 4'); exit(255)", True),
        ("print('ERROR: failed to reproduce x: failed to run: x, exited with 1'); exit(255)", False),
        ("print('secondeye: data/raw: empty'); exit(1)", False),
    ],
)
def test_failures_that_may_pass_are_tried_again(flows: SimpleNamespace, code: str, transient: bool) -> None:
    with pytest.raises(flows.commands.CommandFailed) as failure:
        flows.commands.run_command(python(code), print)
    state = SimpleNamespace(data=failure.value)
    assert flows.commands.is_transient(None, None, state) is transient
    assert not flows.commands.is_transient(None, None, SimpleNamespace(data=KeyError("x")))
    reason = str(failure.value).rpartition("` ended with ")[2]
    assert "rwlock" not in reason and "\n" not in reason
    if code is BUSY:
        blocked = "'/p/data/match' is busy, it is being blocked by (PID 17): dvc repro, (PID 18): dvc gc"
        assert str(failure.value).endswith(blocked)


def test_every_step_that_talks_to_others_is_tried_again(flows: SimpleNamespace) -> None:
    tasks = (
        flows.dvc_stages.repro,
        flows.training.gate,
        flows.conversion.convert,
        flows.night.push_night,
    )
    assert {task.name: (task.retries, task.retry_delay_seconds) for task in tasks} == {
        task.name: (2, [30, 300]) for task in tasks
    }


def test_a_command_that_takes_too_long_is_stopped_and_fails(flows: SimpleNamespace) -> None:
    family: list[int] = []
    began = time.monotonic()
    code = (
        "import os, subprocess, sys, time;"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        "print(os.getpid(), child.pid); time.sleep(60)"
    )
    with pytest.raises(flows.commands.CommandFailed, match=r"took longer than 0.0003 hours and was") as end:
        flows.commands.run_command(python(code), lambda line: family.extend(map(int, line.split())), 0.0003)
    assert time.monotonic() - began < 10
    assert not end.value.is_transient, "it would take as long again"
    wait_for(lambda: not any(is_running(pid) for pid in family), 5)
    flows.commands.run_command(python("print(1)"), family.append, 1.0)
    assert len(family) == 3 and family[-1] == "1"


REPRO = """
import sys
print("Stage 'cuts' didn't change, skipping")
print("Running stage 'match':")
print("> secondeye stage match")
print("match:  40%|####      | 4/10")
print("match: 100%|##########| 10/10")
print("Running stage 'train_depth':")
print("secondeye: no clips")
sys.exit(CODE)
"""


@pytest.mark.parametrize("code", [0, 1])
def test_each_dvc_stage_is_a_task_with_its_log_and_progress(
    flows: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    logs: dict[str, list[str]] = {}
    running: list[str] = ["repro"]
    progress: list[tuple[str, float]] = []

    def run_stage(name: str, lines: Iterator[str]) -> str:
        running.append(name)
        try:
            return str(run_stage_itself(name, lines))
        finally:
            running.pop()

    def create(percent: float, *, key: str, description: str) -> str:
        progress.append((key, percent))
        return key

    run_stage_itself = flows.dvc_stages.run_stage.fn
    monkeypatch.setattr(flows.dvc_stages, "run_stage", run_stage)
    monkeypatch.setattr(flows.dvc_stages, "run_log", lambda: logs.setdefault(running[-1], []).append)
    monkeypatch.setattr(flows.dvc_stages, "create_progress_artifact", create)
    monkeypatch.setattr(
        flows.dvc_stages, "update_progress_artifact", lambda key, percent: progress.append((key, percent))
    )
    monkeypatch.setattr(flows.dvc_stages, "wait_for_others", lambda log, share_machine: None)
    monkeypatch.setattr(flows.dvc_stages, "DVC", python(REPRO.replace("CODE", str(code))))
    if code:
        with pytest.raises(flows.commands.CommandFailed, match="no clips"):
            flows.dvc_stages.repro.fn("validate")
    else:
        flows.dvc_stages.repro.fn("validate")
    match = ["> secondeye stage match", "match:  40%|####      | 4/10", "match: 100%|##########| 10/10"]
    assert logs == {
        "repro": ["Stage 'cuts' didn't change, skipping", "Running stage 'match':"],
        "match": match,
        "train_depth": ["secondeye: no clips"],
    }
    first = [("stage-match", percent) for percent in (0.0, 40.0, 100.0, 100.0)]
    assert progress == [*first, ("stage-train-depth", 0.0), *[("stage-train-depth", 100.0)] * (not code)]


# Reports


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Set SECONDEYE_NOTIFY to a server that collects the JSON posted to it."""
    received: list[object] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(404 if self.path == "/gone" else 200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("SECONDEYE_NOTIFY", f"http://127.0.0.1:{server.server_port}/secret")
        yield received
        server.shutdown()


def test_failed_and_crashed_flows_are_reported_to_a_webhook(
    flows: SimpleNamespace, webhook: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, renamed = SimpleNamespace(name="tan-anteater", id=7), SimpleNamespace(name="dataset: validate")
    client = SimpleNamespace(read_flow_run=lambda number: renamed if number == 7 else None)
    monkeypatch.setattr("prefect.get_client", lambda sync_client: nullcontext(client))
    for name in ("Failed", "Crashed"):
        reason = "Flow run encountered an exception: CommandFailed: `dvc repro validate` ended with 1: empty"
        flow, state = SimpleNamespace(name="build-dataset"), SimpleNamespace(name=name, message=reason)
        flows.notify.report_failure(flow, run, state)
    text = "secondeye: build-dataset, run dataset: validate, {}: `dvc repro validate` ended with 1: empty"
    assert webhook == [{"text": text.format(name)} for name in ("failed", "crashed")]
    for module, flow in (
        ("dataset", "build_dataset"),
        ("training", "train_and_promote"),
        ("conversion", "convert_folder"),
    ):
        found = getattr(getattr(flows, module), flow)
        assert found.on_failure_hooks == found.on_crashed_hooks == [flows.notify.report_failure]


def test_a_report_is_the_last_argument_of_a_command_and_never_reaches_a_shell(
    flows: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "tell it.py"
    script.write_text("import json, sys; json.dump(sys.argv[1:], open(sys.argv[1], 'w'))")
    out = tmp_path / "out"
    monkeypatch.setenv("SECONDEYE_NOTIFY", f"{sys.executable} '{script}' {out}")
    flows.notify.notify("a; touch /tmp/x $(id)")
    assert json.loads(out.read_text()) == [str(out), "secondeye: a; touch /tmp/x $(id)"]


def test_a_report_that_cannot_be_sent_is_a_line_without_the_address(
    flows: SimpleNamespace, webhook: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = os.environ["SECONDEYE_NOTIFY"]
    for setting in (
        address.replace("/secret", "/gone"),
        "http://127.0.0.1:9/secret",
        "/no/such/secret",
        "false secret",
    ):
        lines: list[str] = []
        monkeypatch.setenv("SECONDEYE_NOTIFY", setting)
        flows.notify.notify("it failed", lines.append)
        assert len(lines) == 1 and lines[0].startswith("SECONDEYE_NOTIFY: the message could not be sent (")
        assert lines[0].endswith("): it failed") and "secret" not in lines[0]
    monkeypatch.delenv("SECONDEYE_NOTIFY")
    flows.notify.notify("it failed", lines.append)
    assert len(lines) == 1, "nobody wants it"


def test_a_new_champion_is_announced_once(
    flows: SimpleNamespace,
    lines: list[str],
    webhook: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    history: list[dict[str, object]] = []

    def happens(event: str, version: int, previous: int | None) -> None:
        number = len(history) + 1
        history.append(
            {"number": number, "event": event, "version": version, "previous": previous, "why": "W"}
        )
        monkeypatch.setattr(flows.notify, "SECONDEYE", python(f"print({json.dumps(history)!r})"))

    happens("promoted", 1, None)
    flows.notify.announce_champion()
    flows.notify.announce_champion()
    happens("vetoed", 1, None)
    flows.notify.announce_champion()
    happens("promoted", 2, 1)
    happens("rolled back", 1, 2)
    address = os.environ["SECONDEYE_NOTIFY"]
    monkeypatch.setenv("SECONDEYE_NOTIFY", "false")
    flows.notify.announce_champion()  # nobody hears it
    monkeypatch.setenv("SECONDEYE_NOTIFY", address)
    flows.notify.announce_champion()
    assert webhook == [
        {"text": "secondeye: champion: version 1, promoted: W"},
        {"text": "secondeye: champion: version 1, before: 2, rolled back: W"},
    ]
    monkeypatch.setattr(flows.notify, "SECONDEYE", python("print('secondeye: MLflow is away'); exit(4)"))
    flows.notify.announce_champion()
    assert len(webhook) == 2 and lines[-1].endswith("MLflow is away")


def test_the_setting_is_checked_and_shown_without_its_secret(
    flows: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = {
        "": "nobody; set SECONDEYE_NOTIFY to a webhook's address or a command",
        "https://hooks.example.org/T0/secret": "hooks.example.org",
        "notify-send 'a title'": "notify-send",
    }
    for setting, expected in shown.items():
        monkeypatch.setenv("SECONDEYE_NOTIFY", setting)
        assert flows.notify.check_setting() == expected
    for unusable in ("https://user:word@hooks.example.org/T0", "https://hooks.example.org/T0 /x"):
        monkeypatch.setenv("SECONDEYE_NOTIFY", unusable)
        with pytest.raises(UserError, match=r"neither a user nor a space") as error:
            flows.notify.check_setting()
        assert "word" not in str(error.value)
    monkeypatch.setenv("SECONDEYE_NOTIFY", "mail 'me")
    with pytest.raises(UserError, match=r"^SECONDEYE_NOTIFY: cannot be read as a command: No closing"):
        flows.notify.check_setting()


def test_a_killed_serve_is_reported_and_a_stopped_one_is_not(
    flows: SimpleNamespace, webhook: list[object], tmp_path: Path
) -> None:
    for said, reports in ((flows.watchdog.ORDERED, 0), (b"", 1)):
        mark = flows.watchdog.new_mark(tmp_path)
        subprocess.run([sys.executable, flows.watchdog.__file__, mark], input=said, check=True)
        assert len(webhook) == reports
    assert webhook[0]["text"].startswith(f"secondeye: ./run serve in {tmp_path} was killed; ended 0 of")
