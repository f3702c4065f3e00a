"""The dataset reader: each table is read once, joined once, and stays behind when it is pickled."""

import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_dataset import write_small_dataset

from secondeye.dataset import reader, tables
from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import AcceptedClip, ClipDisparity, ClipOcclusion, Correction
from secondeye.dataset.tables import write_table
from secondeye.system.errors import UserError


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each table was read."""
    count: Counter[str] = Counter()

    def read_table(path: Path, row_type: type) -> list[Any]:
        count[path.name] += 1
        return tables.read_table(path, row_type)

    monkeypatch.setattr(reader, "read_table", read_table)
    return count


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_small_dataset(tmp_path / "data", frames=[4] * 12, held_out=(3, 7))


def test_clips_are_joined_and_split(data: Path) -> None:
    dataset = Dataset(data)
    assert [clip.id for clip in dataset.clips("test")] == ["clip3", "clip7"]
    assert len(dataset.clips("train")) == 10 and len(dataset.clips()) == 12
    (clip,) = [clip for clip in dataset.clips() if clip.id == "clip7"]
    assert dataset.clip("clip7") == clip
    assert (clip.split, clip.film.name, clip.clip.stop, clip.correction.id) == (
        "test",
        "film7.mp4",
        4,
        "clip7",
    )
    assert clip.disparity.id == clip.quality.id == "clip7"
    assert clip.get(ClipOcclusion) is None, "no such table was written"
    with pytest.raises(
        UserError, match=r"splat/splat\.parquet: has no row for clip clip7; run dvc repro splat"
    ):
        _ = clip.occlusion


def test_arrays_are_those_of_the_clip(data: Path) -> None:
    dataset = Dataset(data)
    clip = dataset.clips()[0]
    left, right = dataset.views(clip)
    assert left.shape == right.shape == (4, 3, 16, 64)
    assert dataset.disparity(clip).shape == (4, 1, 16, 64)
    assert torch.equal(dataset.raw_views(clip.id)[0], left)


@pytest.mark.parametrize("swapped", [False, True])
def test_the_right_view_alone_is_that_of_both(data: Path, swapped: bool) -> None:
    dataset = Dataset(data)
    clip = dataset.clips()[0]
    changed = replace(clip.correction, swapped=swapped, vertical_px=-2, shift_px=3, red_gain=0.5)
    clip = replace(clip, rows={**clip.rows, Correction: changed})
    assert torch.equal(dataset.right_view(clip, [1, 3]), dataset.views(clip, [1, 3])[1])


def test_each_table_is_read_once_however_many_clips(data: Path, read: Counter[str]) -> None:
    dataset = Dataset(data)
    for _ in range(3):
        for clip in dataset.clips():
            dataset.views(clip), dataset.disparity(clip), dataset.clip(clip.id)
        dataset.join(Correction, ClipDisparity), dataset.require_validated(), dataset.rows(AcceptedClip)
    assert len(read) == 6 and set(read.values()) == {1}, read


def test_join_reads_only_what_it_is_asked_for_and_drops_clips_without_a_row(
    data: Path, read: Counter[str]
) -> None:
    dataset = Dataset(data)
    matched = [row for row in dataset.rows(ClipDisparity) if row.id != "clip0"]
    write_table(dataset.path(ClipDisparity), matched, ClipDisparity)
    dataset, read = Dataset(data), read
    read.clear()
    assert len(dataset.join(Correction)) == 12
    assert set(read) == {"clips.parquet", "films.parquet", "shift.parquet"}
    assert len(dataset.join(Correction, ClipDisparity)) == 11


def test_pickles_carry_no_table(data: Path, read: Counter[str]) -> None:
    dataset = Dataset(data)
    clip = dataset.clips()[0]
    assert len(pickle.dumps(dataset)) < 300
    assert len(pickle.dumps(clip)) < 4000
    read.clear()
    copy, same = pickle.loads(pickle.dumps((dataset, clip)))
    assert torch.equal(copy.views(same)[0], dataset.views(clip)[0])
    assert same == clip and not read


def test_a_dataset_that_changed_or_is_not_there_is_refused(data: Path, tmp_path: Path) -> None:
    Dataset(data).require_validated()
    write_table(Dataset(data).path(AcceptedClip), Dataset(data).rows(AcceptedClip)[1:], AcceptedClip)
    with pytest.raises(UserError, match="run dvc repro validate"):
        Dataset(data).require_validated()
    with pytest.raises(UserError, match="has no clip clip0"):
        Dataset(data).clip("clip0")
    with pytest.raises(UserError, match=r"clips\.parquet: .*dvc repro"):
        Dataset(tmp_path / "nowhere").clips()
