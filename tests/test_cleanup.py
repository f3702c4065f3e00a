"""Cleanup finds only what nothing refers to, and deletes only what it found."""

import json
import os
import time
from pathlib import Path

import pytest

from secondeye.maintenance import cleanup
from secondeye.maintenance.cleanup import WEEK_S, Finding, delete, describe, find_leftovers
from secondeye.system.errors import UserError
from secondeye.system.process import lock_dir

CLIP, GONE = "a" * 16, "b" * 16


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Runs in MLflow: key -> finished."""
    runs: dict[str, bool] = {}
    monkeypatch.setattr(cleanup, "published_runs", lambda: runs)
    return runs


def write(path: Path, text: str = "x", age_s: float = 2 * WEEK_S) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    for place in (path, path.parent):
        os.utime(place, (time.time() - age_s,) * 2)
    return path


def a_run(project: Path, key: str, *, finished: bool, age_s: float = 2 * WEEK_S) -> Path:
    text = json.dumps({"key": key, "stage": "train_depth", "finished": finished})
    return write(project / ".runs" / key / "run.json", text, age_s).parent


def deletable(project: Path) -> list[str]:
    found = find_leftovers(project)
    return sorted(str(one.path.relative_to(project)) for one in found if not one.kept)


def test_orphaned_and_temporary_files_are_deleted(tmp_path: Path, published: dict[str, bool]) -> None:
    match = tmp_path / "data" / "match"
    listed = {f"{CLIP}.disparity.mkv": {"bytes": 1, "sha256": ""}}
    write(match / f"{CLIP}.json", json.dumps({"files": listed}))
    for name in (f"{CLIP}.disparity.mkv", f"{CLIP}.left.mkv", "match.parquet", f".{GONE}.left.part.mkv"):
        write(match / name)
    write(match / f"{GONE}.left.mkv", age_s=60)  # its entry may be about to be written
    write(tmp_path / "data" / "raw" / f"{GONE}.mkv")
    write(tmp_path / "data" / "filter" / f"{GONE}.mkv")  # a folder without side entries is left alone
    lost = [f"data/match/.{GONE}.left.part.mkv", f"data/match/{CLIP}.left.mkv"]
    assert deletable(tmp_path) == lost
    with lock_dir(tmp_path / "data" / "match"):
        assert deletable(tmp_path) == []
        assert delete([Finding(match / f"{CLIP}.left.mkv", 1, "")]) == []
    assert len(delete(find_leftovers(tmp_path))) == 2
    assert deletable(tmp_path) == [] and (match / f"{CLIP}.disparity.mkv").exists()


def test_files_of_entries_without_checksums_are_kept(tmp_path: Path, published: dict[str, bool]) -> None:
    write(tmp_path / "data" / "match" / f"{CLIP}.json", json.dumps({"files": [f"{CLIP}.disparity.mkv"]}))
    write(tmp_path / "data" / "match" / f"{CLIP}.disparity.mkv")
    assert deletable(tmp_path) == []


def test_abandoned_conversions_are_deleted_without_foreign_files(
    tmp_path: Path, published: dict[str, bool]
) -> None:
    old = write(tmp_path / "films" / ".a.mp4.unfinished" / "key").parent
    for name in ("shot_00000.mp4", "segment.part", "segment_000000_000240.mp4", "inpaint_000240.safetensors"):
        write(old / name)
    write(tmp_path / "films" / ".b.mp4.unfinished" / "key", age_s=WEEK_S / 2)
    assert deletable(tmp_path) == ["films/.a.mp4.unfinished"]
    write(old / "holiday.txt")
    delete(find_leftovers(tmp_path))
    assert [path.name for path in old.iterdir()] == ["holiday.txt"]


def test_runs_in_mlflow_without_references_are_deleted(tmp_path: Path, published: dict[str, bool]) -> None:
    keys = {name: name[0] * 32 for name in ("1 used", "2 replaced", "3 unpublished", "4 open", "5 abandoned")}
    for name, key in keys.items():
        finished = name[0] in "123"
        a_run(tmp_path, key, finished=finished, age_s=60 if name == "4 open" else 2 * WEEK_S)
        if name != "3 unpublished":
            published[key] = finished
    write(tmp_path / "models" / "depth" / "run" / "run.json", json.dumps({"key": keys["1 used"]}))
    assert deletable(tmp_path) == [f".runs/{keys[name]}" for name in ("2 replaced", "5 abandoned")]
    why = {one.path.name[0]: one.reason for one in find_leftovers(tmp_path) if one.kept}
    assert "refer to it" in why["1"] and "publish" in why["3"] and "last week" in why["4"]
    delete(find_leftovers(tmp_path))
    assert sorted(path.name[0] for path in (tmp_path / ".runs").iterdir()) == ["1", "3", "4"]


def test_a_finished_run_that_is_unfinished_in_mlflow_is_kept(
    tmp_path: Path, published: dict[str, bool]
) -> None:
    a_run(tmp_path, "1" * 32, finished=True)
    published["1" * 32] = False
    assert deletable(tmp_path) == []


def test_all_runs_are_kept_while_mlflow_is_unreachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable() -> dict[str, bool]:
        raise UserError("MLflow cannot be reached")

    a_run(tmp_path, "1" * 32, finished=True)
    monkeypatch.setattr(cleanup, "published_runs", unreachable)
    (kept,) = find_leftovers(tmp_path)
    assert kept.kept and "MLflow cannot be reached" in kept.reason


def test_links_are_neither_followed_nor_deleted(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, published: dict[str, bool]
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    a_run(elsewhere, "1" * 32, finished=True)
    published["1" * 32] = True
    write(elsewhere / "data" / "match" / ".x.part.mkv")
    for name in (".runs", "data"):
        (tmp_path / name).symlink_to(elsewhere / name)
    write(tmp_path / "reports" / "note.md")
    (tmp_path / "reports" / ".y.part.md").symlink_to(tmp_path / "reports" / "note.md")
    assert find_leftovers(tmp_path) == []


def test_description_gives_sizes(tmp_path: Path, published: dict[str, bool]) -> None:
    assert describe(tmp_path, find_leftovers(tmp_path)) == ["nothing to delete"]
    write(tmp_path / "reports" / ".x.part.md", "x" * 2048)
    write(tmp_path / ".dvc" / "cache" / "files" / "f", "x" * 1024)
    lines = describe(tmp_path, find_leftovers(tmp_path))
    assert "2.0 KiB  reports/.x.part.md: an unfinished temporary file" in lines[0]
    assert lines[1] == "1 can be deleted, 2.0 KiB"
    assert "DVC's cache holds 1.0 KiB; `dvc gc --workspace --all-commits`" in lines[2]


def test_published_runs_come_from_mlflow(with_registry: Path) -> None:
    from secondeye.params import Gate
    from secondeye.registry.publish import publish
    from secondeye.registry.published_runs import published_runs
    from secondeye.run_folder import open_run

    assert published_runs() == {}
    run = open_run(Path(".runs"), "1" * 32, "gate", Gate(confidence=0.9), {})
    publish(run.folder)
    assert published_runs() == {"1" * 32: False}
    run.finish({})
    publish(run.folder)
    assert published_runs() == {"1" * 32: True}
