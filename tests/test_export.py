"""Shards hold the dataset's windows bit for bit, and are the same bytes after a kill or in parallel."""

import gc
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from small_dataset import write_small_dataset

from secondeye import cli
from secondeye.dataset.reader import Dataset
from secondeye.system.errors import UserError
from secondeye.system.files import hash_file
from secondeye.training import export as module
from secondeye.training.clip_windows import WindowDataset, WindowSettings, keep_fitting, list_clips
from secondeye.training.export import ExportPlan, decode_sample, export, plan_export, sample_bytes

webdataset = pytest.importorskip("webdataset", reason="the extra `export` is not installed")

PROJECT = Path(__file__).parent.parent
SETTINGS = WindowSettings(height=12, width=40, weight_exponent_per_px=0.5, frames=3, max_stride=3)
TWO_SAMPLES = 2.5 * sample_bytes(SETTINGS) / 1e6  # megabytes of a shard


@pytest.fixture(autouse=True)
def one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECONDEYE_WORKERS", "1")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_dataset(tmp_path_factory.mktemp("project") / "data", held_out=[1])


def plan(data: Path, **changed: Any) -> ExportPlan:
    clips = keep_fitting(list_clips(Dataset(data), "train"), SETTINGS)
    given = {"seed": 3, "samples": 5, "shard_megabytes": TWO_SAMPLES} | changed
    return plan_export(Dataset(data), "train", clips, SETTINGS, **given)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def shards(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECONDEYE_WORKERS", "1")
        export(Dataset(data), out, plan(data))
    return out


def read_shards(folder: Path) -> list[dict[str, Any]]:
    names = [str(path) for path in sorted(folder.glob("*.tar"))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset leaves the last file open
        records = list(webdataset.WebDataset(names, shardshuffle=False))
        gc.collect()
    return records


def test_shards_decode_to_the_windows_of_the_dataset_exactly(data: Path, shards: Path) -> None:
    clips = tuple(list_clips(Dataset(data), "train"))
    wanted = list(WindowDataset(Dataset(data), clips, SETTINGS, seed=3, count=5))
    read = read_shards(shards)
    assert [record["__key__"] for record in read] == [f"{n:08d}" for n in range(5)]
    for record, sample in zip(read, wanted, strict=True):
        assert all(torch.equal(*planes) for planes in zip(decode_sample(record), sample, strict=True))
        entry = json.loads(record["json"])
        assert entry["clip"] in ("clip0", "clip2") and entry["dataset"] == Dataset(data).validated_hash
        assert (entry["film"], entry["licence"], entry["fps"]) == (
            f"film{entry['clip'][-1]}.mp4",
            "CC0-1.0",
            24,
        )
        assert entry["frames"] == 3 and entry["start"] + 2 * entry["stride"] < 12


def test_the_index_names_every_shard(shards: Path) -> None:
    index = json.loads((shards / "index.json").read_text())
    assert index["finished"] and index["samples"] == 5 and index["split"] == "train"
    assert index["licences"] == ["CC0-1.0"] and index["films"] == ["film0.mp4", "film2.mp4"]
    assert sorted(path.name for path in shards.iterdir()) == ["index.json", *sorted(index["shards"])]
    assert [entry["samples"] for _, entry in sorted(index["shards"].items())] == [2, 2, 1]
    for name, entry in index["shards"].items():
        assert entry["sha256"] == hash_file(shards / name) and entry["bytes"] <= TWO_SAMPLES * 1e6


def test_a_repeated_export_keeps_the_same_bytes(
    data: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(Dataset(data), tmp_path, plan(data))
    assert content(tmp_path) == content(shards)
    monkeypatch.setattr(module, "_write_sample", lambda *arguments: pytest.fail("made again"))
    export(Dataset(data), tmp_path, plan(data))
    assert content(tmp_path) == content(shards)


@pytest.mark.parametrize(
    "at", [("_write_sample", 1), ("_write_sample", 4), ("_pack", 2), ("_write_index", 3)]
)
def test_a_killed_export_continues_to_the_same_bytes(
    data: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: tuple[str, int]
) -> None:
    name, calls = at
    function, count = getattr(module, name), 0

    def killed(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == calls:
            raise KeyboardInterrupt
        return function(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, killed)
        with pytest.raises(KeyboardInterrupt):
            export(Dataset(data), tmp_path, plan(data))
    done = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.tar")}
    (tmp_path / ".index.part.json").touch()  # as kill -9 leaves it
    kept = json.loads((tmp_path / "index.json").read_text())["shards"]
    export(Dataset(data), tmp_path, plan(data))
    assert content(tmp_path) == content(shards)
    assert all((tmp_path / shard).stat().st_mtime_ns == done[shard] for shard in kept)


def test_a_missing_truncated_or_damaged_shard_is_made_again(data: Path, shards: Path, tmp_path: Path) -> None:
    export(Dataset(data), tmp_path, plan(data))
    first, second, third = sorted(tmp_path.glob("*.tar"))
    first.write_bytes(bytes(first.stat().st_size))
    second.write_bytes(b"")
    third.unlink()
    export(Dataset(data), tmp_path, plan(data))
    assert content(tmp_path) == content(shards)


def test_a_folder_with_another_export_is_refused(data: Path, tmp_path: Path) -> None:
    export(Dataset(data), tmp_path, plan(data))
    before = content(tmp_path)
    for other in ({"seed": 4}, {"samples": 6}, {"shard_megabytes": 1.0}):
        with pytest.raises(UserError, match="holds an export of another dataset"):
            export(Dataset(data), tmp_path, plan(data, **other))
    assert content(tmp_path) == before
    (tmp_path / "index.json").write_text("[1")
    with pytest.raises(UserError, match="not an index of an export"):
        export(Dataset(data), tmp_path, plan(data))
    (tmp_path / "index.json").unlink()
    with pytest.raises(
        UserError, match=r"holds secondeye-train-000000\.tar, which this export does not write"
    ):
        export(Dataset(data), tmp_path, plan(data))


def test_a_file_beside_the_shards_is_refused(data: Path, shards: Path, tmp_path: Path) -> None:
    export(Dataset(data), tmp_path, plan(data))
    (tmp_path / "secondeye-train-000003.tar").touch()  # glob would read it
    with pytest.raises(
        UserError, match=r"holds secondeye-train-000003\.tar, which this export does not write"
    ):
        export(Dataset(data), tmp_path, plan(data))


def test_nothing_is_written_without_disk_space_or_webdataset(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "secondeye.system.disk.shutil.disk_usage", lambda folder: type("", (), {"free": 1000})
    )
    with pytest.raises(UserError, match="free disk space"):
        export(Dataset(data), tmp_path, plan(data))
    assert [path.name for path in tmp_path.iterdir()] == ["index.json"]
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'secondeye\[export\]'"):
        export(Dataset(data), tmp_path, plan(data))


@pytest.mark.slow
def test_any_number_of_processes_makes_the_same_bytes(
    data: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECONDEYE_WORKERS", "2")
    export(Dataset(data), tmp_path, plan(data))
    assert content(tmp_path) == content(shards)


def test_the_command_reports_what_it_wrote(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(PROJECT / "params.yaml", data.parent)
    monkeypatch.chdir(data.parent)
    cli.export(tmp_path, frames=10, height=8, width=32)
    assert "1 window of 10 frames of 32x8 in 1 shard\n" in (output := capsys.readouterr().out)
    assert "from 1 clip; too short or too small: 1\n" in output
    with pytest.raises(UserError, match="no clip is in the split 'all'"):
        cli.export(tmp_path, split="all")
    with pytest.raises(UserError, match="25 frames of 64x64: the longest has 12 frames"):
        cli.export(tmp_path)
