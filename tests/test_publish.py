"""Publishing runs to MLflow: complete, without duplicates, and robust to interruptions."""

import errno
import json
import shutil
import sqlite3
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy.exc

from secondeye import cli
from secondeye.registry.kinds import experiment_name
from secondeye.registry.live_sync import live_sync
from secondeye.registry.publish import LINES, find_runs, publish, publish_all
from secondeye.registry.server import ServerUnreachable, connected, experiment_of
from secondeye.run_folder import Run, copy_record, finish_model, open_run, working_on
from secondeye.system.errors import UserError

UNREACHABLE = "http://127.0.0.1:9"  # the discard port, on which no server listens


@dataclass(frozen=True)
class Settings:
    steps: int
    title: str


@pytest.fixture
def project(with_registry: Path) -> Path:
    return with_registry


def make_run(lines: int, key: str = "0123456789abcdef", stage: str = "train_depth", **tags: str) -> Run:
    run = open_run(Path(".runs"), key, stage, Settings(300, "Café (1)"), {"licences": "CC0-1.0"} | tags)
    log(run, 0, lines)
    return run


def log(run: Run, first: int, stop: int) -> None:
    for number in range(first, stop):
        run.log(10 * number + 9, {"depth/loss": 1 / (number + 1), "depth/edge": float(number)})


def points(name: str = "depth/loss") -> list[tuple[int, float]]:
    """Return (step, value) of every point of this metric in MLflow."""
    with sqlite3.connect(".mlflow/mlflow.db") as database:
        return database.execute(
            "select step, value from metrics where key = ? order by step", [name]
        ).fetchall()


def statuses() -> list[str]:
    """Return the status of every run in MLflow, by start time."""
    with sqlite3.connect(".mlflow/mlflow.db") as database:
        return [row[0] for row in database.execute("select status from runs order by start_time")]


def run_of(stage: str = "train_depth") -> Any:
    """Return the only run in the experiment of a stage."""
    with connected() as client:
        [found] = client.search_runs([experiment_of(client, experiment_name(stage))])
    return found


def test_published_run_has_params_metrics_and_tags(project: Path) -> None:
    run = make_run(3)
    run.finish({"weights": "w"})
    published, there = publish(run.folder), run_of()
    name = f"depth student 01234567, {datetime.now(UTC):%Y-%m-%d}"
    assert published.name.startswith(name) and published.lines == 3 and published.files == 0
    assert there.info.run_name == published.name and there.info.status == published.status == "FINISHED"
    assert there.data.params == {"steps": "300", "title": "Café (1)"}
    assert points() == [(9, 1.0), (19, 0.5), (29, 1 / 3)]
    expected = {"key": run.key, "stage": "train_depth", "licences": "CC0-1.0", "weights": "w", "lines": "3"}
    assert expected.items() <= {k.removeprefix("secondeye."): v for k, v in there.data.tags.items()}.items()
    assert {"secondeye.git_sha", "secondeye.params_hash"} <= there.data.tags.keys()


def test_publishing_again_or_from_a_copy_changes_nothing(project: Path) -> None:
    run = make_run(4)
    run.picture("a.png").write_bytes(b"picture")
    run.finish({})
    publish(run.folder)
    before = points()
    Path("models").mkdir()
    copy_record(run, Path("models/run"))
    for folder in (run.folder, Path("models/run")):
        assert not publish(folder).changed
    assert points() == before and len(statuses()) == 1


def test_publishing_appends_new_lines(project: Path) -> None:
    run = make_run(2)
    publish(run.folder)
    assert len(points()) == 2
    log(run, 2, 5)
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 59, "depth/lo')  # a line that is being written
    assert publish(run.folder).lines == 3
    assert len(points()) == 5


def test_resumed_run_has_every_point_once(project: Path) -> None:
    run = make_run(6)
    publish(run.folder)
    before = points()
    run.rewind(30, "depth/")
    assert len(run.metrics()) == 3
    assert not publish(run.folder).changed
    log(run, 3, 8)
    publish(run.folder)
    assert points()[:6] == before and [step for step, _ in points()] == [9, 19, 29, 39, 49, 59, 69, 79]


def test_batch_with_a_lost_response_is_not_duplicated(project: Path) -> None:
    run = make_run(5)
    publish(run.folder)
    run_id = run_of().info.run_id
    with connected() as client:
        client.set_tag(run_id, LINES, "2+")
    log(run, 5, 7)
    publish(run.folder)
    assert [step for step, _ in points()] == [9, 19, 29, 39, 49, 59, 69]
    assert run_of().data.tags[LINES] == "7"


def test_more_lines_than_one_batch_holds_are_published(project: Path) -> None:
    publish(make_run(1101).folder)
    assert len(points("depth/edge")) == 1101


def test_timestamps_lie_between_start_and_last_line(project: Path) -> None:
    run = make_run(3)
    publish(run.folder)
    time.sleep(0.05)
    log(run, 3, 6)
    publish(run.folder)
    run_id = run_of().info.run_id
    with connected() as client:
        history = client.get_metric_history(run_id, "depth/loss")
    stamps = [point.timestamp for point in sorted(history, key=lambda point: point.step)]
    assert stamps == sorted(stamps)
    assert stamps[0] >= run_of().info.start_time
    assert stamps[-1] == (run.folder / "metrics.jsonl").stat().st_mtime_ns // 1_000_000


def test_pictures_and_tables_are_artifacts_and_are_replaced(project: Path) -> None:
    run = make_run(1)
    run.picture("a.png").write_bytes(b"first")
    run.picture(".b.part.png").write_bytes(b"half")
    run.table("scores.md").write_text("| a |")
    assert publish(run.folder).files == 2
    stored = Path(run_of().info.artifact_uri.removeprefix("file://"))
    assert sorted(path.name for path in stored.rglob("*.*")) == ["a.png", "scores.md"]
    run.picture("a.png").write_bytes(b"second")
    assert publish(run.folder).files == 2 and publish(run.folder).files == 0
    assert (stored / "pictures" / "a.png").read_bytes() == b"second"


def test_invalid_characters_in_metric_names_are_replaced(project: Path) -> None:
    run = make_run(0)
    run.log(0, {"Big (final), 2/psnr_db": 31.5})
    publish(run.folder)
    assert run_of().data.metrics == {"Big _final__ 2/psnr_db": 31.5}


def test_run_deleted_in_mlflow_stays_deleted(project: Path) -> None:
    run = make_run(1)
    publish(run.folder)
    run_id = run_of().info.run_id
    with connected() as client:
        client.delete_run(run_id)
    log(run, 1, 3)
    again = publish(run.folder)
    assert again.deleted and not again.changed
    assert len(statuses()) == 1


def test_find_runs_prefers_the_finished_copy(project: Path) -> None:
    done = make_run(2, "a" * 16)
    done.finish({})
    Path("models/depth").mkdir(parents=True)
    copy_record(done, Path("models/depth/run"))
    shutil.rmtree(done.folder)
    make_run(1, "a" * 16)
    make_run(1, "b" * 16)
    roots = [Path(".runs"), Path("models"), Path("data/nothing")]
    assert [run.folder for run in find_runs(roots)] == [Path("models/depth/run"), Path(".runs") / ("b" * 16)]
    assert [published.lines for published in publish_all(roots)] == [2, 1]
    assert not any(published.changed for published in publish_all(roots))
    assert sorted(statuses()) == ["FINISHED", "KILLED"]


def test_unreachable_server_is_a_user_error_and_the_run_is_published_later(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(3)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", UNREACHABLE)
    begin = time.monotonic()
    with pytest.raises(
        ServerUnreachable, match=r"http://127.0.0.1:9 cannot be reached .*`secondeye model publish`"
    ) as error:
        publish(run.folder)
    assert time.monotonic() - begin < 10 and "\n" not in str(error.value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    publish_all([Path(".runs")])
    assert len(points()) == 3


def run_command_line(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["secondeye", *arguments])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize("trouble", ["locked", "locked for writing", "not a database"])
def test_unusable_database_is_one_line_and_exit_code_4_and_nothing_is_lost(
    project: Path, trouble: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    publish(make_run(2).folder)
    log(make_run(0), 2, 5)
    database, good = Path(".mlflow/mlflow.db"), Path("good.db")
    shutil.copyfile(database, good)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database.absolute()}?timeout=0.1")
    with sqlite3.connect(database, isolation_level=None) as other, monkeypatch.context() as patch:
        if trouble == "locked":
            other.execute("BEGIN EXCLUSIVE")
        elif trouble == "locked for writing":
            # In place of MLflow's own timeout of 20 s, which it sets for every session.
            patch.setattr("secondeye.registry.publish._send_tags", refuse_write)
        else:
            database.write_bytes(b"garbage" * 1000)
        assert run_command_line(patch, "model", "publish") == 4
    other.close()
    [line] = capfd.readouterr().err.splitlines()
    assert f"{database.absolute()}?timeout=0.1 cannot be reached" in line
    if trouble == "not a database":
        shutil.copyfile(good, database)
    assert run_command_line(monkeypatch, "model", "publish") == 0
    assert [step for step, _ in points()] == [9, 19, 29, 39, 49]


def refuse_write(*arguments: object) -> None:
    raise sqlalchemy.exc.OperationalError("INSERT", {}, sqlite3.OperationalError("database is locked"))


def test_disk_that_fills_up_is_a_user_error(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "artifacts/a.png")

    monkeypatch.setattr("secondeye.registry.publish._send_files", full)
    with pytest.raises(ServerUnreachable, match=r"\(artifacts/a.png: No space left on device\)"):
        publish(make_run(1).folder)


def test_error_omits_the_password(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    with pytest.raises(ServerUnreachable, match=r"http://127.0.0.1:9 can"):
        publish(make_run(1).folder)


def test_moved_project_is_rejected(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(1)
    publish(run.folder)
    shutil.copytree(project, project / "elsewhere", ignore=shutil.ignore_patterns("elsewhere"))
    monkeypatch.chdir(project / "elsewhere")
    with pytest.raises(UserError, match=f"elsewhere/.mlflow: has been moved.* {project}/.mlflow/artifacts"):
        publish(run.folder)


def test_deleted_experiment_is_rejected(project: Path) -> None:
    run = make_run(1)
    publish(run.folder)
    with connected() as client:
        client.delete_experiment(experiment_of(client, experiment_name("train_depth")))
    with pytest.raises(
        UserError, match="experiment secondeye-train-depth was deleted; restore it with `mlflow experiments"
    ):
        publish(run.folder)


@pytest.mark.slow(seconds=7)
def test_live_sync_publishes_while_the_run_grows(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secondeye.registry.live_sync._INTERVAL_SECONDS", 0.1)
    with live_sync(Path(".runs")):
        run = make_run(2)
        until = time.monotonic() + 60
        while not points() and time.monotonic() < until:
            time.sleep(0.2)
        assert points()[:2] == [(9, 1.0), (19, 0.5)]
        log(run, 2, 5)
        run.finish({})
    assert len(points()) == 5 and statuses() == ["FINISHED"]


@pytest.mark.slow(seconds=12)
@pytest.mark.parametrize("kind", ["deleted", "locked", "locked from the start"])
def test_live_sync_continues_when_the_database_is_back(
    project: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("secondeye.registry.live_sync._INTERVAL_SECONDS", 0.1)
    database = Path(".mlflow/mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database.absolute()}?timeout=1")
    with live_sync(Path(".runs")):
        run = make_run(2)
        until = time.monotonic() + 60
        while kind != "locked from the start" and not points() and time.monotonic() < until:
            time.sleep(0.2)
        if kind == "deleted":
            database.unlink()
            log(run, 2, 5)
        else:
            with sqlite3.connect(database, isolation_level=None) as other:
                other.execute("BEGIN EXCLUSIVE")
                log(run, 2, 5)
                until = time.monotonic() + 60
                while not (printed := capfd.readouterr().err) and time.monotonic() < until:
                    time.sleep(0.2)
                assert "database is locked" in printed and printed.count("\n") == 1
            other.close()
        run.finish({})
    assert [step for step, _ in points()] == [9, 19, 29, 39, 49] and statuses() == ["FINISHED"]


def test_live_sync_without_a_server_warns_once(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", UNREACHABLE)
    monkeypatch.setattr("secondeye.registry.live_sync._INTERVAL_SECONDS", 0.1)
    with live_sync(Path(".runs")):
        for lines in range(3):
            log(make_run(0), lines, lines + 1)
            time.sleep(0.3)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and "cannot be reached" in lines[0]


def test_start_time_comes_from_origin_json(project: Path) -> None:
    run = make_run(1)
    publish(run.folder)
    started = datetime.fromisoformat(run_of().data.tags["secondeye.started"])
    assert run_of().info.start_time == started.timestamp() * 1000


def test_status_follows_the_process_that_works_on_the_run(project: Path) -> None:
    run = make_run(1)

    def status() -> str:
        assert publish(run.folder).status == run_of().info.status
        return str(run_of().info.status)

    with working_on(run):
        assert status() == "RUNNING"
    assert status() == "KILLED", "no process works on it"
    with pytest.raises(ValueError, match="broken"), working_on(run):
        assert status() == "RUNNING"
        raise ValueError("broken\nin two lines")
    assert status() == "FAILED" and run_of().data.tags["secondeye.failure"] == "ValueError: broken"
    with pytest.raises(KeyboardInterrupt), working_on(run):
        assert status() == "RUNNING" and run_of().data.tags["secondeye.failure"] == ""
        raise KeyboardInterrupt
    assert status() == "KILLED"
    run.finish({})
    assert status() == "FINISHED"


def test_training_that_raises_is_a_failed_run(project: Path) -> None:
    def train(run: Run) -> None:
        raise UserError("too many skipped steps")

    run = make_run(1)
    with pytest.raises(UserError):
        finish_model(Path("models/depth"), run, train)
    publish(run.folder)
    assert statuses() == ["FAILED"]


def test_evaluation_joins_trainings_and_gate_to_a_pipeline(project: Path) -> None:
    make_run(1, "1" * 32, dataset="d" * 64)
    make_run(1, "2" * 32, "train_light", dataset="d" * 64)
    judged = {"manifest": "m" * 64, "run.depth": "1" * 32, "run.light": "2" * 32}
    make_run(0, "e" * 32, "evaluate", **judged)
    make_run(0, "f" * 32, "gate", evaluation="e" * 32, part="depth", manifest="m" * 64)
    make_run(1, "3" * 32, "train_diffusion")
    publish_all([Path(".runs")])
    for stage in ("train_depth", "train_light", "evaluate", "gate"):
        assert run_of(stage).data.tags["secondeye.pipeline"] == "e" * 8
    assert "secondeye.pipeline" not in run_of("train_diffusion").data.tags
    make_run(0, "a" * 32, "evaluate", **judged)
    shutil.rmtree(Path(".runs") / ("e" * 32))
    publish_all([Path(".runs")])
    assert run_of("train_depth").data.tags["secondeye.pipeline"] == f"{'a' * 8} {'e' * 8}"


def test_run_names_its_data_as_mlflow_datasets(project: Path) -> None:
    make_run(0, "1" * 32, dataset="d" * 64)
    make_run(0, "e" * 32, "evaluate", manifest="m" * 64)
    for _ in range(2):
        publish_all([Path(".runs")])
    for stage, name, digest, context in (
        ("train_depth", "dataset", "d" * 16, "train"),
        ("evaluate", "held-out clips", "m" * 16, "test"),
    ):
        [logged] = run_of(stage).inputs.dataset_inputs
        assert (logged.dataset.name, logged.dataset.digest) == (name, digest)
        assert {tag.key: tag.value for tag in logged.tags} == {"mlflow.data.context": context}


def test_evaluation_has_headline_metrics_and_a_table_of_all_scores(project: Path) -> None:
    run = make_run(0, stage="evaluate")
    scores = {"haarpsi": 0.8, "ssim": 0.9, "disparity_error_percent": 2.0}
    run.log(0, {f"{method}/{name}": value for method in ("light", "Telea") for name, value in scores.items()})
    for _ in range(2):
        publish(run.folder)
    there = run_of("evaluate")
    assert there.data.metrics == {
        "HaarPSI/light": 0.8,
        "disparity error percent - lower is better/light": 2.0,
    }
    stored = Path(there.info.artifact_uri.removeprefix("file://")) / "all_scores.json"
    table = json.loads(stored.read_text())
    assert table["columns"] == ["method", "haarpsi", "ssim", "disparity_error_percent"]
    assert table["data"] == [["light", 0.8, 0.9, 2.0], ["Telea", 0.8, 0.9, 2.0]]


def test_run_keeps_the_uncommitted_changes(project: Path) -> None:
    for command in (
        ["init", "-q"],
        ["add", "code.py"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first"],
    ):
        Path("code.py").write_text("before\n")
        subprocess.run(["git", *command], check=True)
    clean = make_run(0, "1" * 32)
    assert not (clean.folder / "uncommitted.patch").exists()
    Path("code.py").write_text("after\n")
    changed = make_run(0, "2" * 32, "train_light")
    publish_all([Path(".runs")])
    assert run_of("train_depth").data.tags["secondeye.git_dirty"] == "False"
    there = run_of("train_light")
    assert there.data.tags["secondeye.git_dirty"] == "True"
    stored = Path(there.info.artifact_uri.removeprefix("file://")) / "uncommitted.patch"
    assert "-before\n+after" in stored.read_text()
    assert changed.read()["tags"] == clean.read()["tags"], "the record does not depend on them"
