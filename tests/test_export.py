"""Shards hold the dataset's files; trainings draw the same samples from them; a kill changes no byte."""

import gc
import http.server
import itertools
import json
import pickle
import shutil
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from small_dataset import row, write_rows, write_small_dataset

from secondeye import cli
from secondeye.dataset.clip_files import write_disparity, write_frames, write_occlusion
from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import ClipOcclusion, SyntheticShot
from secondeye.dataset.shards import ShardedDataset, _read_index, cache_folder, open_dataset
from secondeye.params import Gate
from secondeye.run_folder import open_run
from secondeye.synthetic import two_planes
from secondeye.system.errors import UserError
from secondeye.system.files import hash_file
from secondeye.training import export as module
from secondeye.training.export import decode_clip, export_dataset
from secondeye.training.sample_loader import sample_rng
from secondeye.training.shots import list_shots
from secondeye.training.windows import Windows, read_window

pytestmark = pytest.mark.usefixtures("one_thread")
webdataset = pytest.importorskip("webdataset", reason="the extra `export` is not installed")

PROJECT = Path(__file__).parent.parent


def write_dataset(data: Path) -> Path:
    """Write three clips, the second of which is held out, their splats and a synthetic shot."""
    dataset = Dataset(write_small_dataset(data, held_out=[1]))
    for stage in ("raw", "splat", "synthetic"):
        dataset.folder(stage).mkdir()
    for clip in dataset.clips():
        left, _ = dataset.views(clip)
        write_frames(dataset.file("splat", clip.id, "warped"), left.flip(-1))
        write_occlusion(dataset.file("splat", clip.id, "occlusion"), left[:, :1] > 0.8)
    shot = two_planes(frames=4, height=16, width=64, seed=7)
    for kind, view in (("left", shot.left), ("right", shot.right)):
        write_frames(dataset.file("synthetic", "shot", kind), view)
    offset_px = write_disparity(dataset.file("synthetic", "shot", "disparity"), shot.disparity)
    splats = [row(ClipOcclusion, id=f"clip{n}", key="k") for n in range(3)]
    rows = [row(SyntheticShot, id="shot", key="k", frames=4, offset_px=offset_px)]
    write_rows(data, {ClipOcclusion: splats, SyntheticShot: rows})
    return data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("project") / "data")


@pytest.fixture(scope="module")
def two_shots(data: Path) -> float:
    """Return the size of a shard that holds two shots, megabytes."""
    sizes = [record.bytes for record in module.list_records(Dataset(data), "train")]
    return max(sizes[0] + sizes[1], sizes[1] + sizes[2]) / 1e6


def export(data: Path, out: Path, shard_megabytes: float, split: str = "train") -> str:
    return export_dataset(data, out, split=split, shard_megabytes=shard_megabytes)


@pytest.fixture(scope="module")
def shards(data: Path, two_shots: float, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards")
    assert export(data, out, two_shots) == f"{out}: 3 shots in 2 shards"
    return out


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_records_hold_the_files_of_the_stages(data: Path, shards: Path) -> None:
    names = [str(path) for path in sorted(shards.glob("*.tar"))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset leaves the last file open
        records = list(webdataset.WebDataset(names, shardshuffle=False))
        gc.collect()
    assert [record["__key__"] for record in records] == ["clip0", "clip2", "shot"]
    dataset = Dataset(data)
    for record, clip in zip(records, dataset.clips("train"), strict=False):
        decoded = decode_clip(record)
        wanted = (*dataset.views(clip), dataset.disparity(clip), *dataset.splat(clip))
        assert all(torch.equal(*planes) for planes in zip(decoded, wanted, strict=True))  # type: ignore[arg-type]
        part = decode_clip(record, [1, 4])
        assert torch.equal(part.right, decoded.right[[1, 4]])
        about = json.loads(record["json"])
        assert (about["film"], about["licence"], about["fps"]) == (f"film{clip.id[-1]}.mp4", "CC0-1.0", 24)
        del about["correction"]["order_uncertain"]
        with pytest.raises(UserError, match="of an earlier version; export the dataset again"):
            decode_clip(record | {"json": json.dumps(about).encode()})
    shot = decode_clip(records[-1])
    assert torch.equal(shot.left, dataset.synthetic_views(dataset.rows(SyntheticShot)[0])[0])
    assert shot.warped is None and shot.occlusion is None


def test_the_index_names_every_shard(shards: Path) -> None:
    index = json.loads((shards / "index.json").read_text())
    assert index["finished"] and index["shots"] == 3 and index["split"] == "train"
    assert index["licences"] == ["CC0-1.0"] and index["films"] == ["film0.mp4", "film2.mp4"]
    assert sorted(path.name for path in shards.iterdir()) == ["index.json", *sorted(index["shards"])]
    assert [entry["ids"] for _, entry in sorted(index["shards"].items())] == [["clip0", "clip2"], ["shot"]]
    for name, entry in index["shards"].items():
        assert (
            entry["sha256"] == hash_file(shards / name) and entry["bytes"] == (shards / name).stat().st_size
        )


def draw_samples(data: Path, folder: Path) -> list[bytes]:
    """Draw the first samples of a training from whatever SECONDEYE_SHARDS names."""
    run = open_run(folder, "key", "train", Gate(confidence=0.5), {})
    found = []
    for conditioning in ("warp", "splat"):
        pool = pickle.loads(pickle.dumps(list_shots(run, data, (3, 16, 32), conditioning)))  # as a worker
        windows = Windows(pool, 3, mono_share=0.3, seed=0, max_stride=3)
        for number in range(8):
            shot = read_window(*windows.draw(number, sample_rng(0, number)))
            found.append(b"".join(plane.numpy().tobytes() for plane in shot))
    return found


def test_samples_from_shards_are_those_from_files(
    data: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = draw_samples(data, tmp_path / "files")
    monkeypatch.setenv("SECONDEYE_SHARDS", str(shards))
    monkeypatch.setattr(Dataset, "source", lambda *_: pytest.fail("read from a file"))
    assert draw_samples(data, tmp_path / "shards") == wanted and len(set(wanted)) > 12


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    requested: ClassVar[list[str]] = []

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        self.requested.append(self.path)
        super().do_GET()


def test_samples_from_a_url_are_those_from_files(
    data: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = draw_samples(data, tmp_path / "files")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(shards)))
    thread = Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SECONDEYE_SHARDS", f"http://127.0.0.1:{server.server_port}")
    try:
        assert draw_samples(data, tmp_path / "url") == wanted
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    requested = [path for path in QuietHandler.requested if path.endswith(".tar")]
    assert len(requested) == len(set(requested)) == 2, "each shard is downloaded once"


def test_processes_that_start_together_all_read_the_index(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every rank and worker of a machine reads it again, for it may be of an earlier export."""

    def download(location: str, name: str) -> Path:
        time.sleep(0.05)
        return Path(shutil.copy(shards / name, cache_folder(location)))

    def start(late_s: float) -> str:
        time.sleep(late_s)
        return _read_index("https://there")

    def read_slowly(path: Path) -> str:
        time.sleep(0.05)
        return path.read_bytes().decode()

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("secondeye.dataset.shards._fetch", download)
    monkeypatch.setattr(Path, "read_text", read_slowly)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(start, (0, 0.06))  # the second starts before the first has read it
    assert first == second == (shards / "index.json").read_bytes().decode()


def test_shards_that_do_not_fit_the_dataset_are_refused(
    data: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_small_dataset(tmp_path / "other", frames=(5, 6))
    monkeypatch.setenv("SECONDEYE_SHARDS", str(shards))
    with pytest.raises(UserError, match="shards of another dataset"):
        open_dataset(other)
    monkeypatch.setenv("SECONDEYE_SHARDS", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"index.json cannot be read .* must name the folder or URL"):
        open_dataset(data)
    damaged = Path(shutil.copytree(shards, tmp_path / "damaged"))
    first = min(damaged.glob("*.tar"))
    bytes_ = bytearray(first.read_bytes())
    bytes_[len(bytes_) // 3] ^= 255
    first.write_bytes(bytes_)
    dataset = ShardedDataset(data, str(damaged))
    with pytest.raises(UserError, match=r"000000.tar: clip.* is missing or damaged"):
        for clip in dataset.clips("train"):
            dataset.views(clip), dataset.disparity(clip), dataset.splat(clip)


def test_a_repeated_export_keeps_the_same_bytes(
    data: Path, shards: Path, two_shots: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(data, tmp_path, two_shots)
    assert content(tmp_path) == content(shards)
    monkeypatch.setattr(module, "_pack", lambda *arguments: pytest.fail("made again"))
    export(data, tmp_path, two_shots)
    assert content(tmp_path) == content(shards)


@pytest.mark.parametrize("at", [("_pack", 1), ("_pack", 2), ("_content", 2), ("_write_index", 2)])
def test_a_killed_export_continues_to_the_same_bytes(
    data: Path,
    shards: Path,
    two_shots: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: tuple[str, int],
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
            export(data, tmp_path, two_shots)
    monkeypatch.setenv("SECONDEYE_SHARDS", str(tmp_path))
    with pytest.raises(UserError, match="the export is not finished"):
        open_dataset(data)
    (tmp_path / ".index.part.json").touch()  # as kill -9 leaves it
    export(data, tmp_path, two_shots)
    assert content(tmp_path) == content(shards)


def test_the_index_is_not_written_for_each_of_many_shards(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lists all shards, so writing it for each would take a time that grows with their square."""
    listed: list[int] = []
    monkeypatch.setattr(module, "plan_shards", lambda records, size: [[]] * 1000)
    monkeypatch.setattr(module, "_pack", lambda path, records: {"ids": []})
    monkeypatch.setattr(module, "_write_index", lambda out, index: listed.append(len(index["shards"])))
    export(data, tmp_path, 1.0)
    assert listed[:3] == [0, 1, 2] and listed[-1] == 1000 and len(listed) < 400
    assert all(after - before <= 0.01 * after + 1 for before, after in itertools.pairwise(listed))


def test_a_missing_truncated_or_damaged_shard_is_made_again(
    data: Path, shards: Path, two_shots: float, tmp_path: Path
) -> None:
    for damage in ("flip", "truncate", "unlink"):
        export(data, tmp_path, two_shots)
        first = min(tmp_path.glob("*.tar"))
        if damage == "flip":
            first.write_bytes(bytes(first.stat().st_size))
        elif damage == "truncate":
            first.write_bytes(b"")
        else:
            first.unlink()
        export(data, tmp_path, two_shots)
        assert content(tmp_path) == content(shards)


def test_a_folder_with_another_export_is_refused(data: Path, two_shots: float, tmp_path: Path) -> None:
    export(data, tmp_path, two_shots)
    before = content(tmp_path)
    for shard_megabytes, split in ((0.001, "train"), (two_shots, "test")):
        with pytest.raises(UserError, match="holds an export of another dataset"):
            export(data, tmp_path, shard_megabytes, split)
    assert content(tmp_path) == before
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"holds notes.txt, which this export does not write"):
        export(data, tmp_path, two_shots)
    (tmp_path / "notes.txt").unlink()
    (tmp_path / "index.json").write_text("[1")
    with pytest.raises(UserError, match="not an index of an export"):
        export(data, tmp_path, two_shots)


def test_nothing_is_written_without_disk_space_or_webdataset(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "secondeye.system.disk.shutil.disk_usage", lambda folder: type("", (), {"free": 1000})
    )
    with pytest.raises(UserError, match="free disk space"):
        export(data, tmp_path, 1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["index.json"]
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'secondeye\[export\]'"):
        export(data, tmp_path, 1.0)


def test_only_the_validated_dataset_is_exported(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data")
    (data / "validate" / "stamp.json").unlink()
    with pytest.raises(UserError, match="build and validate the dataset first"):
        export(data, tmp_path / "shards", 1.0)


def test_the_command_reports_what_it_wrote(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(data.parent)
    cli.export(tmp_path, split="test")
    assert "1 shot in 1 shard\n" in capsys.readouterr().out
    with pytest.raises(UserError, match="no clip is in the split 'all'"):
        cli.export(tmp_path, split="all")


def test_ids_are_unique_over_kinds(data: Path) -> None:
    ids = [record.id for record in module.list_records(Dataset(data), "train")]
    assert len(ids) == len(set(ids)) and np.all(np.array(ids) == np.array(["clip0", "clip2", "shot"]))
