from contextlib import nullcontext
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from conftest import coarse_cards, moving_images
from test_stereo_metadata import write_mkv

from secondeye.imaging.arrays import frames_to_uint8
from secondeye.sources import list_sources
from secondeye.sources.packing_detection import check_packing
from secondeye.sources.views import read_stereo_frames
from secondeye.system.errors import UserError
from secondeye.video.write import write_lossless

HEAD = "film,packing,split,licence\n"
WIDE = "film,packing,split,licence,right\n"


def raw(folder: Path, *films: str, table: str | None = None) -> Path:
    for film in films:
        (folder / film).write_bytes(b"")
    if table is not None:
        (folder / "sources.csv").write_text(table)
    return folder


def test_sources_csv_overrides_the_name_and_mono_films_are_skipped(tmp_path: Path) -> None:
    table = HEAD + "a_sbs.mp4,tb,train,CC0-1.0\nm.mp4,mono,,\nb_sbs.mp4,,test,\n"
    found = list_sources(raw(tmp_path, "b_sbs.mp4", "a_sbs.mp4", "m.mp4", "notes.txt", table=table))
    assert [(s.name, s.packing, s.split, s.licence) for s in found] == [
        ("a_sbs.mp4", "tb", "train", "CC0-1.0"),
        ("b_sbs.mp4", "sbs", "test", ""),
    ]
    assert not found[0].remark and "name" in found[1].remark


@pytest.mark.parametrize(
    ("films", "table", "expected"),
    [
        ([], None, "contains no stereo film.*secondeye data sample"),
        (["m.mp4"], HEAD + "m.mp4,mono,,\n", "contains no stereo film"),
        (["a.mp4"], None, "a.mp4: the packing of its views cannot.*sources.csv"),
        (["a.mp4"], HEAD + "b.mp4,sbs,,\n", "b.mp4 is not in"),
        (["a.mp4"], "film,packing\na.mp4,sbs\n", "first line must be film,packing,split,licence"),
        (["a.mp4"], WIDE + "a.mp4,,,,\n", "a.mp4: the packing of its views cannot"),
        (
            ["a.mp4"],
            WIDE + "a.mp4,pair,,,\n",
            "is one view of a pair; name the right view's file in column right",
        ),
        (["a.mp4"], WIDE + "a.mp4,,,,b.mp4\n", "b.mp4 is not in"),
        (
            ["a.mp4", "b.mp4"],
            WIDE + "a.mp4,sbs,,,b.mp4\n",
            "line 2: with a right view, packing must be pair",
        ),
        (["a.mp4", "b.mp4"], WIDE + "a.mp4,,,,../b.mp4\n", "right must be a file name without a folder"),
        (["a.mp4", "b.mp4"], WIDE + "a.mp4,,,,b.mp4\nb.mp4,sbs,,,\n", "b.mp4 appears more than once"),
        (["a.mp4", "b.png"], WIDE + "a.mp4,,,,b.png\n", "a.mp4 and b.png are not a pair"),
        (["a_l.mp4"], None, "a_l.mp4: the packing of its views cannot"),
        (["a.mp4"], HEAD + "a.mp4,sbs\n", "line 2: must have 4 columns"),
        (["a.mp4"], HEAD + "a.mp4,sbs,,,more\n", "line 2: must have 4 columns"),
        (["a.mp4"], HEAD + "a.mp4,sideways,,\n", "line 2: packing must be one of sbs"),
        (["a.mp4"], HEAD + "a.mp4,sbs,validation,\n", "line 2: split must be train, test or empty"),
        (["a.mp4"], HEAD + "../a.mp4,sbs,,\n", "without a folder"),
        (["a.mp4"], HEAD + "a.mp4,sbs,,\na.mp4,tb,,\n", "line 3: a.mp4 already has a line"),
        (
            ["a.mp4", "b.divx"],
            HEAD + "b.divx,sbs,,\n",
            r"b.divx is of an unsupported type \(supported: .3gp",
        ),
        (["a.mp4"], HEAD + ",mono,train,\n", "line 2: film is empty"),
        (["a.mp4"], HEAD + ".,mono,train,\n", "line 2: film must be a file name without a folder"),
        (["a.mp4"], HEAD + f'a.mp4,sbs,,"{"x" * 140_000}\n', "not valid CSV .*quotation mark"),
    ],
)
def test_invalid_sources_are_one_line(
    tmp_path: Path, films: list[str], table: str | None, expected: str
) -> None:
    with pytest.raises(UserError, match=expected) as caught:
        list_sources(raw(tmp_path, *films, table=table))
    assert "\n" not in str(caught.value)


def test_spaces_around_a_cell_and_hidden_files_are_ignored(tmp_path: Path) -> None:
    raw(tmp_path, "a.mp4", "._a.mp4", table=HEAD + "a.mp4, sbs ,train,   \n")
    (source,) = list_sources(tmp_path)
    assert (source.packing, source.split, source.licence) == ("sbs", "train", "")


def test_skipped_files_that_look_like_films_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("disc", "truth", "image_l", "image_r", "photos_sbs"):
        (tmp_path / folder).mkdir()
    passed = ["a_sbs.rmvb", "b_tb.divx", "disc/c_sbs.mp4"]
    silent = [
        "f_sbs.mp4",
        "f_sbs.srt",
        "f_sbs.mp4.dvc",
        "notes.txt",
        "._f_sbs.bin",
        "disc/d.mp4",
        "truth/f_sbs.npz",
        "image_l/x_sbs.png",
    ]
    list_sources(raw(tmp_path, *passed, *silent))
    line = f"skipped: {', '.join([*passed[:2], 'photos_sbs', passed[2]])} "
    assert capsys.readouterr().out == line + f"(file type not supported, or not directly in {tmp_path})\n"
    list_sources(raw(tmp_path, *(f"disc/{k}_sbs.mp4" for k in range(9))))
    assert " and 8 more (" in capsys.readouterr().out


def test_a_folder_named_sources_csv_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "sources.csv").mkdir()
    with pytest.raises(UserError, match=r"sources.csv: is a folder"):
        list_sources(tmp_path)


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a_sbs.flv", "flv", "yuv420p"),
        ("a_sbs.vob", "mpeg2video", "yuv420p"),
        ("a_sbs.3gp", "mpeg4", "yuv420p"),
        ("a_sbs.ogv", "libvpx", "yuv420p"),
        ("a_sbs.hevc", "libx265", "yuv420p"),
    ],
)
def test_less_common_film_types_are_read(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    with av.open(str(tmp_path / name), "w") as film:
        stream = film.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 192, 96, pixels
        for image in moving_images(6, 96, 192):
            film.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        film.mux(stream.encode(None))
    (found,) = list_sources(tmp_path)
    assert [pair.left.shape for pair in read_stereo_frames(found)] == [(96, 96, 3)] * 6


@pytest.mark.parametrize("name", ["a_sbs.webp", "a_sbs.tif"])
def test_less_common_image_types_are_read(tmp_path: Path, name: str) -> None:
    cv2.imwrite(str(tmp_path / name), moving_images(1, 24, 80)[0])
    (found,) = list_sources(tmp_path)
    assert [pair.left.shape for pair in read_stereo_frames(found)] == [(24, 40, 3)]


def test_byte_order_marks_are_read_and_other_encodings_rejected(tmp_path: Path) -> None:
    raw(tmp_path, "a.mp4")
    (tmp_path / "sources.csv").write_text(HEAD + "a.mp4,sbs,,\n", encoding="utf-8-sig")
    assert list_sources(tmp_path)[0].packing == "sbs"
    (tmp_path / "sources.csv").write_text(HEAD + "a.mp4,sbs,,\n", encoding="utf-16")
    with pytest.raises(UserError, match="not UTF-8 text"):
        list_sources(tmp_path)


def test_a_listed_monocular_film_may_be_missing(tmp_path: Path) -> None:
    table = HEAD + "a.mp4,sbs,,\nmono.mp4,mono,test,\n"
    assert len(list_sources(raw(tmp_path, "a.mp4", table=table))) == 1


def test_names_that_differ_in_left_and_right_are_a_pair(tmp_path: Path) -> None:
    for folder in ("image_l", "image_r", "truth"):
        (tmp_path / folder).mkdir()
    films = [
        "a_L.mp4",
        "a_R.mp4",
        "b-left.mkv",
        "B-Right.mkv",
        "c_l.png",
        "c_r.png",
        "cover.jpg",
        "both_sbs.jpg",
    ]
    found = list_sources(raw(tmp_path, *films, table=HEAD + "a_L.mp4,,test,CC0-1.0\n"))
    assert [(s.packing, *(path.name for path in s.paths)) for s in found] == [
        ("pair", "a_L.mp4", "a_R.mp4"),
        ("pair", "b-left.mkv", "B-Right.mkv"),
        ("sbs", "both_sbs.jpg"),
        ("pair", "c_l.png", "c_r.png"),
        ("pair", "image_l", "image_r"),
    ]
    assert (found[0].name, found[0].split, found[0].licence) == ("a_L.mp4", "test", "CC0-1.0")
    assert "pair with a_R.mp4 inferred from the names" in found[0].remark
    assert "25 fps" in found[-1].remark


def test_sources_csv_makes_a_pair_and_overrides_an_inferred_one(tmp_path: Path) -> None:
    films = ["one.mp4", "two.mp4", "a_l.mp4", "a_r.mp4"]
    table = WIDE + "one.mp4,pair,train,,two.mp4\na_l.mp4,mono,,,\na_r.mp4,sbs,,,\n"
    found = list_sources(raw(tmp_path, *films, table=table))
    assert [(s.name, s.packing, s.remark) for s in found] == [("a_r.mp4", "sbs", ""), ("one.mp4", "pair", "")]


@pytest.mark.parametrize(
    ("name", "mode", "packing"),
    [
        ("film.mkv", "left_right", "sbs"),  # 64 x 32: its views are as wide as high
        ("narrow.mkv", "right_left", "half-sbs-right-first"),  # 48 x 32
        ("film_sbs.mkv", "left_right", "sbs"),
        ("film_hsbs.mkv", "right_left", "half-sbs-right-first"),
        ("film_rl.mkv", "right_left", "sbs-right-first"),
        ("film_tb.mkv", "bottom_top", "tb-right-first"),
    ],
)
def test_metadata_give_the_axis_and_the_name_or_shape_the_rest(
    tmp_path: Path, name: str, mode: str, packing: str
) -> None:
    write_mkv(tmp_path / name, "ffv1", "bgr0", mode, width=48 if "narrow" in name else 64)
    (found,) = list_sources(tmp_path)
    assert found.packing == packing
    assert f"packing {packing} inferred from the stream's metadata" in found.remark


@pytest.mark.parametrize(
    ("name", "mode", "expected"),
    [
        ("film_tb.mkv", "left_right", "its metadata says sbs, its name says tb; add a line to"),
        ("film_rl.mkv", "left_right", "its metadata says sbs, its name says sbs-right-first; add a line to"),
        (
            "film.mkv",
            "checkerboard_lr",
            "packing checkerboard is not supported; convert the film to side by side",
        ),
    ],
)
def test_metadata_and_name_that_contradict_each_other_are_an_error(
    tmp_path: Path, name: str, mode: str, expected: str
) -> None:
    write_mkv(tmp_path / name, "ffv1", "bgr0", mode)
    with pytest.raises(UserError, match=expected):
        list_sources(tmp_path)
    (tmp_path / "sources.csv").write_text(HEAD + f"{name},half-tb,,\n")
    assert list_sources(tmp_path)[0].packing == "half-tb"


@pytest.mark.parametrize(
    ("axis", "shape", "packing"),
    [(2, (96, 160), "sbs"), (2, (160, 96), "half-sbs"), (1, (96, 160), "tb"), (1, (48, 160), "half-tb")],
)
def test_pixels_decide_the_packing_if_nothing_else_does(
    tmp_path: Path, axis: int, shape: tuple[int, int], packing: str
) -> None:
    shot = coarse_cards(3, 96, 160, near_px=12, far_px=4, card_px=48, seed=0)
    views = [
        np.stack([cv2.resize(image, shape[::-1]) for image in frames_to_uint8(view).numpy()])
        for view in (shot.left, shot.right)
    ]
    write_lossless(tmp_path / "film.mkv", np.concatenate(views, axis))
    (found,) = list_sources(tmp_path)
    assert found.packing == packing
    assert "pixels and aspect ratio" in found.remark


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "film_htb.mkv",
            "film_htb.mkv: packing half-tb inferred from the file name, but its pixels say sbs; add a line",
        ),
        ("film_sbs-tb.mkv", "film_sbs-tb.mkv: the file name says both sbs and tb; add a line to"),
        ("film_top-bottom_sbs.mkv", "the file name says both sbs and tb"),
        ("film_half_sbs_rl.mkv", ""),
        ("ici_ou_la_sbs.mkv", ""),
        ("ab_10_Uhr_hsbs.mkv", ""),
    ],
)
def test_a_name_that_contradicts_itself_or_the_pixels_is_an_error(
    tmp_path: Path, name: str, expected: str
) -> None:
    shot = coarse_cards(3, 96, 160, near_px=12, far_px=4, card_px=48, seed=0)
    views = [frames_to_uint8(view).numpy() for view in (shot.left, shot.right)]
    write_lossless(tmp_path / name, np.concatenate(views, 2))
    with pytest.raises(UserError, match=expected) if expected else nullcontext():
        check_packing(*list_sources(tmp_path))
    (tmp_path / "sources.csv").write_text(HEAD + f"{name},tb,,\n")
    (film,) = list_sources(tmp_path)
    assert film.packing == "tb"
    check_packing(film)


def test_a_mono_film_is_not_taken_for_a_stereo_film(tmp_path: Path) -> None:
    write_lossless(tmp_path / "film.mkv", moving_images(3, 128, 192))
    with pytest.raises(UserError, match="the packing of its views cannot be detected; add a line to"):
        list_sources(tmp_path)


def test_still_image_types_imply_their_packing(tmp_path: Path) -> None:
    found = list_sources(raw(tmp_path, "a.jps", "b.mpo"))
    assert [(s.name, s.packing) for s in found] == [("a.jps", "sbs-right-first"), ("b.mpo", "multiview")]


def test_packing_of_real_films_is_detected(footage: Path, tmp_path: Path) -> None:
    for film in ("sv_candle_ego/candle_ego_sbs_2560x720.mp4", "pair_packings/AB_tc-0720-hd-ab.jpg"):
        (tmp_path / f"untagged{film[-4:]}").symlink_to(footage / film)
    (tmp_path / "sources.csv").write_text(HEAD + "untagged.jpg,,,\n")
    assert [source.packing for source in list_sources(tmp_path)] == ["tb", "sbs"]
    (tmp_path / "untagged.mp4").unlink()
    (tmp_path / "untagged.mp4").symlink_to(footage / "mono_bikes/bikes.mp4")
    with pytest.raises(UserError, match="cannot be detected"):
        list_sources(tmp_path)


def test_sources_csv_as_spreadsheets_save_it_is_read(tmp_path: Path) -> None:
    film = "Caf\N{LATIN SMALL LETTER E WITH ACUTE}_sbs.mp4"
    table = f"Film; Packing;split;LICENCE\n{film};tb;test;CC0-1.0\n;;;\n;;;;;\n;\n  \n\n"
    apart = "Cafe\N{COMBINING ACUTE ACCENT}_sbs.mp4"  # as macOS stores the same name
    (found,) = list_sources(raw(tmp_path, apart, table=table))
    assert (found.packing, found.split, found.licence) == ("tb", "test", "CC0-1.0")
    assert found.paths == (tmp_path / apart,)
    (tmp_path / apart).rename(tmp_path / f"{apart}.divx")
    (tmp_path / "sources.csv").write_text(HEAD + f"{film}.divx,tb,,\n")
    with pytest.raises(UserError, match="is of an unsupported type"):
        list_sources(tmp_path)


def test_two_files_whose_names_differ_only_in_unicode_form_are_an_error(tmp_path: Path) -> None:
    names = ("Caf\N{LATIN SMALL LETTER E WITH ACUTE}_sbs.mp4", "Cafe\N{COMBINING ACUTE ACCENT}_sbs.mp4")
    with pytest.raises(UserError, match="exists twice, with accents encoded in two ways; remove"):
        list_sources(raw(tmp_path, *names))


def test_the_views_of_a_pair_may_differ_in_suffix_if_the_partner_is_unambiguous(tmp_path: Path) -> None:
    (pair,) = list_sources(raw(tmp_path, "a_left.mp4", "a_right.mkv"))
    assert [path.name for path in pair.paths] == ["a_left.mp4", "a_right.mkv"]
    raw(tmp_path, "a_right.webm", "a_right.jpg")
    with pytest.raises(UserError, match="the packing of 3 films is unclear"):
        list_sources(tmp_path)
    raw(tmp_path, "a_right.mp4")  # the same suffix takes precedence
    with pytest.raises(UserError, match="the packing of 2 films is unclear"):
        list_sources(tmp_path)


def test_all_films_of_unclear_packing_are_reported_at_once(tmp_path: Path) -> None:
    raw(tmp_path, "a.mp4", "b_sbs.mp4", "c_sbs-tb.mp4", "d.mkv")
    with pytest.raises(UserError) as caught:
        list_sources(tmp_path)
    first, *films, remedy = str(caught.value).split("\n")
    assert first.endswith("the packing of 3 films is unclear:")
    assert films == [
        "  a.mp4: the packing of its views cannot be detected",
        "  c_sbs-tb.mp4: the file name says both sbs and tb",
        "  d.mkv: the packing of its views cannot be detected",
    ]
    assert "sources.csv" in remedy and "right view's file in a fifth column" in remedy
