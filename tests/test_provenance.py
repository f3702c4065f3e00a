"""Hashes and licences of the training data."""

from pathlib import Path

import pytest
from conftest import a_clip, a_film

from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import AcceptedClip, Clip, ClipDisparity, Film, SyntheticShot
from secondeye.dataset.tables import write_table
from secondeye.sources import list_mono_films
from secondeye.system.errors import UserError
from secondeye.training.provenance import hash_inpaint_inputs, hash_inputs, join_licences, train_clips


def film(name: str, licence: str) -> Film:
    return a_film(name, name=f"{name}.mp4", licence=licence)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    for name in ("split", "match", "filter", "synthetic"):
        (tmp_path / name).mkdir()
    films = [film("a", "CC-BY-4.0"), film("b", ""), film("c", "proprietary")]
    write_table(tmp_path / "split" / "films.parquet", films, Film)
    clips = [a_clip(name, of) for name, of in zip("123", "abc", strict=True)]
    write_table(tmp_path / "split" / "clips.parquet", clips, Clip)
    kept = [AcceptedClip("1", "a", "train"), AcceptedClip("2", "b", "train"), AcceptedClip("3", "c", "test")]
    write_table(tmp_path / "filter" / "accepted.parquet", kept, AcceptedClip)
    matched = [ClipDisparity(name, f"key {name}", 0.0, 1.0) for name in "123"]
    write_table(tmp_path / "match" / "match.parquet", matched, ClipDisparity)
    write_table(
        tmp_path / "synthetic" / "synthetic.parquet", [SyntheticShot("r", "key", 4, 0.0, 0.0)], SyntheticShot
    )
    return tmp_path


def test_licences_are_those_of_the_training_data(dataset: Path) -> None:
    licences = join_licences(Dataset(dataset), ["CC0-1.0", "licence of svd"])
    assert licences == "CC-BY-4.0, CC0-1.0, licence of svd, not stated"


def test_held_out_clips_are_not_trained_on(dataset: Path) -> None:
    assert [row.id for row in train_clips(Dataset(dataset))] == ["1", "2"]
    write_table(dataset / "filter" / "accepted.parquet", [AcceptedClip("3", "c", "test")], AcceptedClip)
    with pytest.raises(UserError, match="every clip is held out"):
        train_clips(Dataset(dataset))


def test_hashes_depend_on_the_training_data_alone(dataset: Path) -> None:
    def inputs() -> dict[str, str]:
        return hash_inputs(Dataset(dataset))

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


def test_hash_of_an_inpainter_depends_on_its_monocular_films(dataset: Path) -> None:
    raw = dataset / "raw"
    raw.mkdir()

    def hashes(*films: str) -> dict[str, str]:
        for name in films:
            (raw / name).write_text(name)
        lines = [f"{name},mono,train," for name in films]
        (raw / "sources.csv").write_text("\n".join(["film,packing,split,licence", *lines]) + "\n")
        return hash_inpaint_inputs(Dataset(dataset), "warp")

    made = [hashes(), hashes("a.mp4"), hashes("a.mp4", "b.mp4")]
    assert len({part.pop("mono") for part in made}) == 3
    assert all(part == hash_inputs(Dataset(dataset)) for part in made)


def test_monocular_training_films_are_listed(tmp_path: Path) -> None:
    assert list_mono_films(tmp_path) == []
    lines = ["film,packing,split,licence", "b.mp4,mono,train,CC0", "a.mp4,mono,train,", "c.mp4,mono,test,"]
    (tmp_path / "sources.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"b\.mp4 is not in"):
        list_mono_films(tmp_path)
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    assert [(film.path.name, film.licence) for film in list_mono_films(tmp_path)] == [
        ("a.mp4", ""),
        ("b.mp4", "CC0"),
    ]
