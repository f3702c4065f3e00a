"""What a run says it has learnt from."""

import json
from pathlib import Path

import pytest
from conftest import a_film

from secondeye.dataset.schema import AcceptedClip, ClipDisparity, Film, SyntheticShot
from secondeye.dataset.stamp import read_stamp
from secondeye.dataset.tables import write_table
from secondeye.sources import MonoFilm, list_mono_films
from secondeye.system.errors import UserError
from secondeye.training.provenance import hash_mono, inputs_of, licences_of, train_clips


def film(name: str, licence: str) -> Film:
    return a_film(name, name=f"{name}.mp4", licence=licence)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    for name in ("split", "match", "filter", "validate", "synthetic"):
        (tmp_path / name).mkdir()
    films = [film("a", "CC-BY-4.0"), film("b", ""), film("c", "proprietary")]
    write_table(tmp_path / "split" / "films.parquet", films, Film)
    kept = [AcceptedClip("1", "a", "train"), AcceptedClip("2", "b", "train"), AcceptedClip("3", "c", "test")]
    write_table(tmp_path / "filter" / "accepted.parquet", kept, AcceptedClip)
    matched = [ClipDisparity(name, f"key {name}", 0.0, 1.0) for name in "123"]
    write_table(tmp_path / "match" / "match.parquet", matched, ClipDisparity)
    (tmp_path / "validate" / "stamp.json").write_text(json.dumps({"clips": 3, "dataset": "abc"}))
    write_table(
        tmp_path / "synthetic" / "synthetic.parquet", [SyntheticShot("r", "key", 4, 0.0, 0.0)], SyntheticShot
    )
    return tmp_path


def test_licences_are_of_what_was_learnt_from_only(dataset: Path) -> None:
    licences = licences_of(dataset / "split", dataset / "filter", ["CC0-1.0", "licence of svd"])
    assert licences == "CC-BY-4.0, CC0-1.0, licence of svd, not stated"


def test_held_out_clips_teach_nothing(dataset: Path) -> None:
    assert [row.id for row in train_clips(dataset / "filter")] == ["1", "2"]
    write_table(dataset / "filter" / "accepted.parquet", [AcceptedClip("3", "c", "test")], AcceptedClip)
    with pytest.raises(UserError, match="every clip is held out"):
        train_clips(dataset / "filter")


def test_inputs_change_with_what_is_learnt_from_and_with_nothing_else(dataset: Path) -> None:
    def inputs() -> dict[str, str]:
        return inputs_of(dataset / "match", dataset / "filter", dataset / "synthetic")

    before = inputs()
    kept = [AcceptedClip("1", "a", "train"), AcceptedClip("2", "b", "train")]
    write_table(dataset / "filter" / "accepted.parquet", kept, AcceptedClip)
    assert inputs() == before, "a held-out clip less"
    matched = [ClipDisparity(name, f"new key {name}", 0.0, 1.0) for name in "123"]
    write_table(dataset / "match" / "match.parquet", matched, ClipDisparity)
    assert inputs()["clips"] != before["clips"] and inputs()["synthetic"] == before["synthetic"]
    write_table(
        dataset / "synthetic" / "synthetic.parquet", [SyntheticShot("r", "other", 4, 0.0, 0.0)], SyntheticShot
    )
    assert inputs()["synthetic"] != before["synthetic"]
    assert read_stamp(dataset / "validate") == "abc"


def test_films_with_one_eye_have_one_hash(tmp_path: Path) -> None:
    films = [MonoFilm(tmp_path / name, "") for name in ("a.mp4", "b.mp4")]
    for film in films:
        film.path.write_text(film.path.name)
    assert len({hash_mono(part) for part in ([], films[:1], films, films[::-1])}) == 4
    assert len(hash_mono(films)) == len(hash_mono([])) == 64


def test_films_with_one_eye_are_those_called_mono_and_train(tmp_path: Path) -> None:
    assert list_mono_films(tmp_path) == []
    lines = ["film,packing,split,licence", "b.mp4,mono,train,CC0", "a.mp4,mono,train,", "c.mp4,mono,test,"]
    (tmp_path / "sources.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match="which is not in"):
        list_mono_films(tmp_path)
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    assert [(film.path.name, film.licence) for film in list_mono_films(tmp_path)] == [
        ("a.mp4", ""),
        ("b.mp4", "CC0"),
    ]
