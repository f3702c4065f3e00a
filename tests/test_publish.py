"""Publishing runs to MLflow: complete, without duplicates, and robust to interruptions."""

import errno
import shutil
import sqlite3
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy.exc

from secondeye import cli
from secondeye.registry.live_sync import live_sync
from secondeye.registry.publish import LINES, Published, find_runs, publish, publish_all
from secondeye.registry.server import ServerUnreachable, connected, experiment_of
from secondeye.run_folder import Run, copy_record, open_run
from secondeye.system.errors import UserError

UNREACHABLE = "http://127.0.0.1:9"  # the discard port, on which no server listens


@dataclass(frozen=True)
class Settings:
    steps: int
    title: str


@pytest.fixture
def project(with_registry: Path) -> Path:
    return with_registry


def make_run(lines: int, key: str = "0123456789abcdef", stage: str = "train_depth") -> Run:
    run = open_run(Path(".runs"), key, stage, Settings(300, "Café (1)"), {"licences": "CC0-1.0"})
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


def only_run():  # type: ignore[no-untyped-def]
    with connected() as client:
        [found] = client.search_runs([experiment_of(client)])
    return found


def test_published_run_has_params_metrics_and_tags(project: Path) -> None:
    run = make_run(3)
    run.finish({"weights": "w"})
    assert publish(run.folder) == Published("train_depth 01234567", lines=3, files=0)
    there = only_run()
    assert there.info.run_name == "train_depth 01234567" and there.info.status == "FINISHED"
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
    assert statuses() == ["RUNNING"] and len(points()) == 2
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
    run_id = only_run().info.run_id
    with connected() as client:
        client.set_tag(run_id, LINES, "2+")
    log(run, 5, 7)
    publish(run.folder)
    assert [step for step, _ in points()] == [9, 19, 29, 39, 49, 59, 69]
    assert only_run().data.tags[LINES] == "7"


def test_more_lines_than_one_batch_holds_are_published(project: Path) -> None:
    publish(make_run(1101).folder)
    assert len(points("depth/edge")) == 1101


def test_timestamps_lie_between_start_and_last_line(project: Path) -> None:
    run = make_run(3)
    publish(run.folder)
    time.sleep(0.05)
    log(run, 3, 6)
    publish(run.folder)
    run_id = only_run().info.run_id
    with connected() as client:
        history = client.get_metric_history(run_id, "depth/loss")
    stamps = [point.timestamp for point in sorted(history, key=lambda point: point.step)]
    assert stamps == sorted(stamps)
    assert stamps[0] >= only_run().info.start_time
    assert stamps[-1] == (run.folder / "metrics.jsonl").stat().st_mtime_ns // 1_000_000


def test_pictures_and_tables_are_artifacts_and_are_replaced(project: Path) -> None:
    run = make_run(1)
    run.picture("a.png").write_bytes(b"first")
    run.picture(".b.part.png").write_bytes(b"half")
    run.table("scores.md").write_text("| a |")
    assert publish(run.folder).files == 2
    stored = Path(only_run().info.artifact_uri.removeprefix("file://"))
    assert sorted(path.name for path in stored.rglob("*.*")) == ["a.png", "scores.md"]
    run.picture("a.png").write_bytes(b"second")
    assert publish(run.folder).files == 2 and publish(run.folder).files == 0
    assert (stored / "pictures" / "a.png").read_bytes() == b"second"


def test_invalid_characters_in_metric_names_are_replaced(project: Path) -> None:
    run = make_run(0)
    run.log(0, {"psnr_db/Big (final), 2": 31.5})
    publish(run.folder)
    assert only_run().data.metrics == {"psnr_db/Big _final__ 2": 31.5}


def test_run_deleted_in_mlflow_stays_deleted(project: Path) -> None:
    run = make_run(1)
    publish(run.folder)
    run_id = only_run().info.run_id
    with connected() as client:
        client.delete_run(run_id)
    log(run, 1, 3)
    assert publish(run.folder) == Published("train_depth 01234567", 0, 0, deleted=True)
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
    assert sorted(statuses()) == ["FINISHED", "RUNNING"]


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
        client.delete_experiment(experiment_of(client))
    with pytest.raises(
        UserError, match="experiment secondeye was deleted; restore it with `mlflow experiments"
    ):
        publish(run.folder)


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


@pytest.mark.slow(seconds=15)
@pytest.mark.parametrize("kind", ["deleted", "locked"])
def test_live_sync_continues_when_the_database_is_back(
    project: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("secondeye.registry.live_sync._INTERVAL_SECONDS", 0.1)
    database = Path(".mlflow/mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database.absolute()}?timeout=0.1")
    with live_sync(Path(".runs")):
        run = make_run(2)
        until = time.monotonic() + 60
        while not points() and time.monotonic() < until:
            time.sleep(0.2)
        if kind == "deleted":
            database.unlink()
            log(run, 2, 5)
        else:
            with sqlite3.connect(database, isolation_level=None) as other:
                other.execute("BEGIN EXCLUSIVE")
                log(run, 2, 5)
                until = time.monotonic() + 60
                while not (told := capfd.readouterr().err) and time.monotonic() < until:
                    time.sleep(0.2)
                assert "database is locked" in told and told.count("\n") == 1
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
    started = datetime.fromisoformat(only_run().data.tags["secondeye.started"])
    assert only_run().info.start_time == started.timestamp() * 1000
