from pathlib import Path

import pytest

from secondeye.refusal import Refusal
from secondeye.sources import list_sources

HEAD = "film,packing,split,licence\n"


def raw(folder: Path, *films: str, table: str | None = None) -> Path:
    for film in films:
        (folder / film).write_bytes(b"")
    if table is not None:
        (folder / "sources.csv").write_text(table)
    return folder


def test_table_beats_name_and_mono_is_passed_over(tmp_path: Path) -> None:
    table = HEAD + "a_sbs.mp4,tb,train,CC0-1.0\nm.mp4,mono,,\nb_sbs.mp4,,test,\n"
    found = list_sources(raw(tmp_path, "b_sbs.mp4", "a_sbs.mp4", "m.mp4", "notes.txt", table=table))
    assert [(s.path.name, s.packing, s.split, s.licence) for s in found] == [
        ("a_sbs.mp4", "tb", "train", "CC0-1.0"),
        ("b_sbs.mp4", "sbs", "test", ""),
    ]
    assert not found[0].remark and "name" in found[1].remark


@pytest.mark.parametrize(
    ("films", "table", "told"),
    [
        ([], None, "holds no stereo film.*secondeye sample"),
        (["m.mp4"], HEAD + "m.mp4,mono,,\n", "holds no stereo film"),
        (["a.mp4"], None, "a.mp4: nothing tells.*sources.csv"),
        (["a.mp4"], HEAD + "b.mp4,sbs,,\n", "names b.mp4, which is not in"),
        (["a.mp4"], "film,packing\na.mp4,sbs\n", "first line must be film,packing,split,licence"),
        (["a.mp4"], HEAD + "a.mp4,sbs\n", "line 2: must have 4 columns"),
        (["a.mp4"], HEAD + "a.mp4,sbs,,,more\n", "line 2: must have 4 columns"),
        (["a.mp4"], HEAD + "a.mp4,sideways,,\n", "line 2: packing must be one of sbs"),
        (["a.mp4"], HEAD + "a.mp4,sbs,validation,\n", "line 2: split must be train, test or empty"),
        (["a.mp4"], HEAD + "../a.mp4,sbs,,\n", "without a folder"),
        (["a.mp4"], HEAD + "a.mp4,sbs,,\na.mp4,tb,,\n", "line 3: a.mp4 has a line already"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    tmp_path: Path, films: list[str], table: str | None, told: str
) -> None:
    with pytest.raises(Refusal, match=told) as caught:
        list_sources(raw(tmp_path, *films, table=table))
    assert "\n" not in str(caught.value)


def test_spreadsheet_marks_are_read_and_other_encodings_refused(tmp_path: Path) -> None:
    raw(tmp_path, "a.mp4")
    (tmp_path / "sources.csv").write_text(HEAD + "a.mp4,sbs,,\n", encoding="utf-8-sig")
    assert list_sources(tmp_path)[0].packing == "sbs"
    (tmp_path / "sources.csv").write_text(HEAD + "a.mp4,sbs,,\n", encoding="utf-16")
    with pytest.raises(Refusal, match="is not UTF-8 text"):
        list_sources(tmp_path)


def test_monocular_film_that_is_listed_need_not_be_there(tmp_path: Path) -> None:
    table = HEAD + "a.mp4,sbs,,\nmono.mp4,mono,test,\n"
    assert len(list_sources(raw(tmp_path, "a.mp4", table=table))) == 1
