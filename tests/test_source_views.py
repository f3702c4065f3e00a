import os
from collections.abc import Callable
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from conftest import damage, moving_images
from PIL import Image

from secondeye.film.packing import packing_axis
from secondeye.sources import Source, hash_source
from secondeye.sources.clip_reader import ClipReader
from secondeye.sources.views import read_stereo_frames, spherical_reason, view_info
from secondeye.system.errors import UserError
from secondeye.video.encoders import Encoding
from secondeye.video.probe import TruncatedFilm, UnreadableFilm
from secondeye.video.read import decode_film
from secondeye.video.write import FilmWriter, write_film, write_lossless

LEFT, RIGHT = (moving_images(6, 24, 40, seed) for seed in (0, 1))
PACKED = ("sbs", "sbs-right-first", "tb", "tb-right-first")


def source(packing: str, *paths: Path) -> Source:
    return Source(paths[0].name, paths, packing, "", "", "")


def packed(packing: str, left: np.ndarray = LEFT, right: np.ndarray = RIGHT) -> np.ndarray:
    views = (right, left) if packing.endswith("right-first") else (left, right)
    return np.concatenate(views, axis=2 if packing_axis(packing) == "sbs" else 1)


def stored(folder: Path, packing: str) -> Source:
    """The film of LEFT and RIGHT without loss, packed in one of the ways."""
    if packing == "folders":
        for name, view in (("l", LEFT), ("r", RIGHT)):
            (folder / name).mkdir()
            for index, image in enumerate(view):
                cv2.imwrite(str(folder / name / f"frame{index + 8}.png"), image[..., ::-1])
        return source("pair", folder / "l", folder / "r")
    if packing == "pair":
        write_lossless(folder / "l.mkv", LEFT)
        write_lossless(folder / "r.mkv", RIGHT)
        return source("pair", folder / "l.mkv", folder / "r.mkv")
    write_lossless(folder / "film.mkv", packed(packing))
    return source(packing, folder / "film.mkv")


def stack(film: Source, **options: int | tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray]:
    pairs = list(read_stereo_frames(film, **options))  # type: ignore[arg-type]
    return np.stack([pair.left for pair in pairs]), np.stack([pair.right for pair in pairs])


@pytest.mark.parametrize("packing", [*PACKED, "pair", "folders"])
def test_all_packings_give_the_same_views(tmp_path: Path, packing: str) -> None:
    film = stored(tmp_path, packing)
    left, right = stack(film)
    assert np.array_equal(left, LEFT)
    assert np.array_equal(right, RIGHT)
    info = view_info(film)
    assert (info.height, info.width, info.pixel_aspect, info.still) == (24, 40, 1, False)


@pytest.mark.parametrize("axis", ["sbs", "tb"])
@pytest.mark.parametrize("order", ["", "-right-first"])
def test_half_packing_keeps_the_stored_pixels_and_stretches_their_aspect(
    tmp_path: Path, axis: str, order: str
) -> None:
    """Doubled columns (rows) lose nothing when squeezed: doubling a half view again gives the full one."""
    along = 2 if axis == "sbs" else 1
    full = [np.repeat(view, 2, along) for view in (LEFT, RIGHT)]
    write_lossless(tmp_path / "half.mkv", packed(axis + order))
    write_lossless(tmp_path / "full.mkv", packed(axis + order, *full))
    half, whole = (
        source(f"half-{axis}{order}", tmp_path / "half.mkv"),
        source(axis + order, tmp_path / "full.mkv"),
    )
    for view, wanted in zip(stack(half), stack(whole), strict=True):
        assert np.array_equal(np.repeat(view, 2, along), wanted)
    shapes = [Fraction(i.width, i.height) * i.pixel_aspect for i in (view_info(half), view_info(whole))]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("packing", [*PACKED, "pair", "folders"])
def test_reading_from_a_timestamp_gives_the_rest_of_the_film(tmp_path: Path, packing: str) -> None:
    film = stored(tmp_path, packing)
    stamps = [pair.pts for pair in read_stereo_frames(film)]
    assert stamps == sorted(set(stamps))
    left, right = stack(film, start_pts=stamps[2])
    assert np.array_equal(left, LEFT[2:])
    assert np.array_equal(right, RIGHT[2:])


@pytest.mark.parametrize("packing", [*PACKED, "pair", "folders"])
def test_views_are_scaled_separately(tmp_path: Path, packing: str) -> None:
    left, right = stack(stored(tmp_path, packing), size=(12, 20))
    assert left.shape == right.shape == (6, 12, 20, 3)
    for small, view in ((left, LEFT), (right, RIGHT)):
        wanted = cv2.resize(view[0], (20, 12), interpolation=cv2.INTER_AREA)
        assert np.abs(small[0].astype(float) - wanted).mean() < 2


def write_from(path: Path, images: np.ndarray, first: int, base: Fraction = Fraction(1, 25)) -> Path:
    height, width = images.shape[1:3]
    ticks = Fraction(1, 25) / base
    with FilmWriter(
        path, width, height, fps=Fraction(25), time_base=base, encoding=Encoding(crf=1)
    ) as writer:
        for index, image in enumerate(images):
            writer.write(image, round((first + index) * ticks))
    return path


def test_frames_of_a_pair_are_matched_by_display_time(tmp_path: Path) -> None:
    """The right film begins two frames later and ends two later, on another clock."""
    images = moving_images(14, 24, 40)
    left = write_from(tmp_path / "a_l.mp4", images[:12], 0)
    right = write_from(tmp_path / "a_r.mp4", images[2:], 2, Fraction(1, 1001))
    film = source("pair", left, right)
    pairs = list(read_stereo_frames(film))
    assert [pair.pts for pair in pairs] == [
        pair.pts for pair in read_stereo_frames(source("pair", left, left))
    ][2:]
    for pair, wanted in zip(pairs, images[2:12], strict=True):
        assert np.abs(pair.left.astype(int) - pair.right).mean() < 4  # the next image differs by 15
        assert np.abs(pair.left.astype(int) - wanted).mean() < 4
    late = list(read_stereo_frames(film, start_pts=pairs[5].pts))
    assert [pair.pts for pair in late] == [pair.pts for pair in pairs[5:]]
    assert all(np.array_equal(a.right, b.right) for a, b in zip(late, pairs[5:], strict=True))


@pytest.mark.parametrize(
    ("lefts", "rights", "paired", "alone"),
    [
        ((0, 1, 2, 3), (0, 1, 2, 3), [(0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3)], ""),
        (
            (0, 1, 2, 3),
            (0, 1, 3),
            [(0, 0, 0), (1, 1, 1), (3, 3, 3)],
            "1 image, first left view/cam2_002.png",
        ),
        (
            (0, 2, 4),
            (0, 1, 2, 4),
            [(0, 0, 0), (2, 2, 2), (3, 4, 4)],
            "1 image, first right view/cam2_001.png",
        ),
        ((0, 1, 2), (1, 2, 3), [(1, 1, 1), (2, 2, 2)], "2 images, first left view/cam2_000.png"),
        ((0, 1), (10, 11), [(0, 0, 10), (1, 1, 11)], ""),
    ],
)
def test_folders_are_paired_by_number(
    tmp_path: Path,
    lefts: tuple[int, ...],
    rights: tuple[int, ...],
    paired: list[tuple[int, int, int]],  # timestamp, left, right
    alone: str,
) -> None:
    for name, numbers in (("l", lefts), ("r", rights)):
        (tmp_path / name).mkdir()
        for number in numbers:
            image = np.full((24, 40, 3), 10 * number, np.uint8)
            cv2.imwrite(str(tmp_path / name / f"cam2_{number:03}.png"), image)
    film, notes = source("pair", tmp_path / "l", tmp_path / "r"), list[str]()
    pairs = list(read_stereo_frames(film, log=notes.append))
    assert [(p.pts, int(p.left[0, 0, 0]) // 10, int(p.right[0, 0, 0]) // 10) for p in pairs] == paired
    assert [pair.pts for pair in read_stereo_frames(film, start_pts=pairs[1].pts)] == [
        pair.pts for pair in pairs[1:]
    ]
    assert notes == ([f"dropped without a partner: {alone}"] if alone else [])


def test_time_jumps_only_where_a_partner_is_missing(tmp_path: Path) -> None:
    images = moving_images(12, 24, 40)
    for name, left_out in (("l", (4, 7, 8)), ("r", (7, 8))):  # 7 and 8: an uneven frame rate of both
        with FilmWriter(
            tmp_path / f"{name}.mp4", 40, 24, fps=Fraction(25), time_base=Fraction(1, 25)
        ) as film:
            for index in sorted({*range(12)} - {*left_out}):
                film.write(images[index], index)
    pairs = list(read_stereo_frames(source("pair", tmp_path / "l.mp4", tmp_path / "r.mp4")))
    assert len(pairs) == 9 and [k for k, pair in enumerate(pairs) if pair.after_gap] == [4]


def test_folders_without_numbers_need_as_many_images(tmp_path: Path) -> None:
    for name, stems in (("l", "abc"), ("r", "abd"), ("few", "ab")):
        (tmp_path / name).mkdir()
        for stem in stems:
            cv2.imwrite(str(tmp_path / name / f"{stem}.png"), LEFT[0])
    assert len(list(read_stereo_frames(source("pair", tmp_path / "l", tmp_path / "r")))) == 3
    with pytest.raises(
        UnreadableFilm, match="its views have 3 and 2 images, and their names have no numbers"
    ):
        list(read_stereo_frames(source("pair", tmp_path / "l", tmp_path / "few")))


@pytest.mark.parametrize(
    ("name", "first", "frames", "note"),
    [
        ("r.ts", 35, 12, "views paired from their first frames, since their timestamps start 1.400 s apart"),
        ("r.ts", 2, 12, "views paired from their first frames, since their timestamps start 0.080 s apart"),
        (
            "r.mp4",
            100,
            12,
            "views paired from their first frames, since their timestamps start 4.000 s apart",
        ),
        (
            "r.mkv",
            100,
            12,
            "views paired from their first frames, since their timestamps start 4.000 s apart",
        ),
        ("r.mp4", 0, 10, "dropped without a partner: 2 frames"),
    ],
)
def test_views_on_two_clocks_are_paired_from_their_first_frames(
    tmp_path: Path, name: str, first: int, frames: int, note: str
) -> None:
    images = moving_images(12, 24, 40)
    left = write_from(tmp_path / "l.mp4", images, 0)
    right = write_from(tmp_path / "r.mp4", images[:frames], first)
    if name != "r.mp4":
        right = remuxed(right, tmp_path / name)
    film, notes = source("pair", left, right), list[str]()
    pairs = list(read_stereo_frames(film, log=notes.append))
    assert len(pairs) == frames and notes == [note]
    assert all(np.abs(pair.left.astype(int) - pair.right).mean() < 4 for pair in pairs)  # the next: 15
    late = list(read_stereo_frames(film, start_pts=pairs[5].pts))
    assert all(np.array_equal(a.right, b.right) for a, b in zip(late, pairs[5:], strict=True))


def remuxed(film: Path, path: Path) -> Path:
    """The same packets with the same timestamps in another container."""
    with av.open(str(film)) as given, av.open(str(path), "w") as copy:
        stream = copy.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(given.streams.video[0]):
            if packet.size:
                packet.stream = stream
                copy.mux(packet)
    return path


def test_timestamps_that_do_not_overlap_are_an_error(tmp_path: Path) -> None:
    images = moving_images(12, 24, 40)
    left = write_from(tmp_path / "l.mp4", images, 0)
    right = write_from(tmp_path / "r.mp4", images[:9], 100)
    with pytest.raises(
        UnreadableFilm, match=r"do not overlap \(they start at 0.00 and 4.00 s\), and with 12 and 9 fr"
    ):
        list(read_stereo_frames(source("pair", left, right)))


def test_a_view_that_ends_early_truncates_the_film_after_the_common_part(tmp_path: Path) -> None:
    images = moving_images(60, 24, 40)
    write_film(tmp_path / "l.mp4", images, Fraction(25))
    write_film(tmp_path / "r.mp4", images[:55], Fraction(25))
    write_film(tmp_path / "short.mp4", images[:30], Fraction(25))
    assert len(list(read_stereo_frames(source("pair", tmp_path / "l.mp4", tmp_path / "r.mp4")))) == 55
    frames_read = 0
    with pytest.raises(TruncatedFilm, match=r"short.mp4.*after 30 frames.*other view continues"):
        for _ in read_stereo_frames(source("pair", tmp_path / "l.mp4", tmp_path / "short.mp4")):
            frames_read += 1
    assert frames_read == 30


@pytest.mark.parametrize("broken", [0, 1])
def test_a_view_that_does_not_decode_truncates_the_film_after_its_good_part(
    make_film: Callable[..., Path], broken: int
) -> None:
    films = [make_film(f"{name}.mp4", shots=(30,), sound=False) for name in "lr"]
    damage(films[broken], rest=True)
    frames_read = 0
    with pytest.raises(TruncatedFilm, match=f"{films[broken].name}: ends early"):
        for _ in read_stereo_frames(source("pair", *films)):
            frames_read += 1
    assert 0 < frames_read < 30


def garble(film: Path, *images: int) -> Path:
    """Cut the slice of some frames of an H.264 film in half: FFmpeg decodes them and conceals the rest.

    Other bytes in the second half could be a valid picture by chance; too few of them cannot. A unit of
    filler takes the place of the second half.
    """
    with av.open(str(film)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        places = [(packets[k].pos or 0, packets[k].size) for k in images]
    content = bytearray(film.read_bytes())
    for start, size in places:
        stop = start + size
        while (unit := start + 4 + int.from_bytes(content[start : start + 4])) < stop:
            start = unit  # the slice is the packet's last unit
        assert stop - start > 60, "a slice this short may hold nothing but skipped blocks"
        kept = (stop - start) // 2
        rest = stop - start - 8 - kept
        content[start : start + 4] = kept.to_bytes(4)
        content[stop - rest - 4 : stop] = rest.to_bytes(4) + b"\x0c" + b"\xff" * (rest - 2) + b"\x80"
    film.write_bytes(content)
    return film


def test_error_concealment_does_not_depend_on_the_number_of_cores(tmp_path: Path) -> None:
    film = garble(write_from(tmp_path / "film.mp4", moving_images(40, 96, 192), 0), 9, 10, 17, 30)
    cores = os.sched_getaffinity(0)
    found = []
    try:
        for count in (1, len(cores)):
            os.sched_setaffinity(0, sorted(cores)[:count])
            found.append(list(decode_film(film)))
    finally:
        os.sched_setaffinity(0, cores)
    assert any(frame.damaged for frame in found[0])
    assert all(np.array_equal(one.rgb, other.rgb) for one, other in zip(*found, strict=True))


def encoded(path: Path, images: np.ndarray, codec: str, key_every: int) -> Path:
    with av.open(str(path), "w") as film:
        stream = film.add_stream(codec, rate=25, options={"sc_threshold": "0"})
        stream.width, stream.height, stream.pix_fmt = images.shape[2], images.shape[1], "yuv420p"
        stream.gop_size, stream.max_b_frames = key_every, 2
        for image in images:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        film.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("kind", "codec", "key_every", "most"),  # frames that may be decoded; the film has 40
    [
        ("avi", "mpeg4", 10, 40),
        ("ts", "libx264", 10, 40),
        ("mpg", "mpeg2video", 10, 40),
        ("mp4", "libx264", 100, 40),
        ("mkv", "libx264", 100, 40),
        ("mp4", "libx264", 10, 40),
        ("pair.ts", "mpeg2video", 10, 80),
    ],
)
def test_clips_read_in_order_decode_each_frame_once_and_equal_separate_reads(
    tmp_path: Path, decoded: list[int], kind: str, codec: str, key_every: int, most: int
) -> None:
    paths = [tmp_path / f"{view}.{kind}" for view in ("l", "r")][: 2 if kind.startswith("pair") else 1]
    films = [encoded(path, moving_images(40, 48, 160, k), codec, key_every) for k, path in enumerate(paths)]
    film = source("pair" if len(films) == 2 else "sbs", *films)
    whole = list(read_stereo_frames(film))
    pieces = [(0, 6), (6, 15), (22, 27), (28, 33), (33, 40)]
    decoded.clear()
    reader = ClipReader(film)
    found = [list(reader.read(whole[start].pts, stop - start)) for start, stop in pieces]
    assert len(decoded) <= most
    backwards = [list(reader.read(whole[start].pts, stop - start)) for start, stop in reversed(pieces)]
    alone = [list(ClipReader(film).read(whole[start].pts, stop - start)) for start, stop in pieces]
    wanted = [whole[start:stop] for start, stop in pieces]
    for got in (found, backwards[::-1], alone):
        same = [
            np.array_equal(a.left, b.left) and np.array_equal(a.right, b.right)
            for one, other in zip(got, wanted, strict=True)
            for a, b in zip(one, other, strict=True)
        ]
        assert all(same)


def test_error_concealment_is_deterministic(tmp_path: Path) -> None:
    """A damaged keyframe has no earlier frame to copy from."""
    film = garble(encoded(tmp_path / "film.mp4", moving_images(60, 96, 320), "libx264", 25), 25, 29)
    stamps = [frame.pts for frame in decode_film(film)]
    found = {b"".join(p.rgb.tobytes() for p in decode_film(film, start_pts=stamps[26])) for _ in range(12)}
    assert len(found) == 1


def test_damaged_clips_do_not_depend_on_what_the_reader_read_before(tmp_path: Path) -> None:
    film = encoded(tmp_path / "film.mp4", moving_images(40, 48, 160), "libx264", 10)
    film = source("sbs", garble(film, 10, 14, 20, 31))
    stamps = [pair.pts for pair in read_stereo_frames(film)]
    reader, pieces = ClipReader(film), [(0, 9), (9, 14), (14, 19), (22, 29), (30, 38)]
    for start, stop in pieces:
        continued = list(reader.read(stamps[start], stop - start))
        alone = list(ClipReader(film).read(stamps[start], stop - start))
        assert all(np.array_equal(a.left, b.left) for a, b in zip(continued, alone, strict=True))


@pytest.mark.parametrize("name", ["dot.png", "film.mkv"])
def test_views_that_are_too_small_are_one_line(tmp_path: Path, name: str) -> None:
    if name == "dot.png":
        cv2.imwrite(str(tmp_path / name), LEFT[0][:20, :30])
    else:
        write_lossless(tmp_path / name, LEFT[:, :20, :30])
    with pytest.raises(UnreadableFilm, match=rf"{name}: its views are 15x20 px; the minimum is 16"):
        view_info(source("sbs", tmp_path / name))


def test_a_broken_link_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").symlink_to(tmp_path / "gone.mp4")
    with pytest.raises(UserError, match=r"film.mp4: cannot be read \(No such file"):
        hash_source(source("sbs", tmp_path / "film.mp4"))


def test_a_rotated_film_is_upright_before_its_views_are_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "turned.mp4"
    image = packed("sbs")[0]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=25, options={"crf": "0"})
        stream.height, stream.width, stream.pix_fmt = image.shape[1], image.shape[0], "rgb24"
        stream.set_display_rotation(90)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.rot90(image, -1)), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    film = source("sbs", path)
    assert (view_info(film).height, view_info(film).width) == (24, 40)
    left, right = stack(film)
    assert np.array_equal(left[0], LEFT[0])
    assert np.array_equal(right[0], RIGHT[0])


def mpo(left: Path, right: Path) -> bytes:
    """Two JPEGs, one after the other, as cameras write them without the index."""
    return left.read_bytes() + bytes(7) + right.read_bytes()


def test_stills_are_films_of_one_image(tmp_path: Path) -> None:
    for name, view in (("l.jpg", LEFT), ("r.jpg", RIGHT), ("both.png", packed("sbs"))):
        cv2.imwrite(str(tmp_path / name), view[0][..., ::-1])
    (tmp_path / "both.mpo").write_bytes(mpo(tmp_path / "l.jpg", tmp_path / "r.jpg"))
    films = [Image.open(tmp_path / name) for name in ("l.jpg", "r.jpg")]
    # As a preview in front of it ends: only the index leads past it.
    seam = b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0\xff\xd9\xff\xd8\xff"
    films[0].save(tmp_path / "index.mpo", save_all=True, append_images=[films[1]], quality=95, exif=seam)
    pair = stack(source("pair", tmp_path / "l.jpg", tmp_path / "r.jpg"))
    assert np.array_equal(stack(source("multiview", tmp_path / "both.mpo")), pair)
    for packing, name in (("multiview", "index.mpo"), ("sbs", "both.png")):
        film = source(packing, tmp_path / name)
        for view, wanted in zip(stack(film), pair, strict=True):
            assert view.shape == (1, 24, 40, 3)
            assert np.abs(view.astype(int) - wanted).mean() < 8  # JPEG; the other view differs by 60
        assert view_info(film).still
    assert np.array_equal(stack(source("sbs", tmp_path / "both.png"))[1][0], RIGHT[0])
    assert stack(source("sbs", tmp_path / "both.png"), size=(12, 20))[0].shape == (1, 12, 20, 3)


def test_gray_and_16_bit_images_become_8_bit_rgb(tmp_path: Path) -> None:
    for name in "lr":
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "1.png"), (LEFT[0, ..., 0].astype(np.uint16) << 8) + 128)
    left, _ = stack(source("pair", tmp_path / "l", tmp_path / "r"))
    assert np.array_equal(left[0], np.repeat(LEFT[0, ..., :1], 3, -1))


@pytest.mark.parametrize(
    "case", ["missing", "empty folder", "no second view", "other size", "other rate", "no mpo"]
)
def test_sources_without_two_matching_views_are_one_line(tmp_path: Path, case: str) -> None:
    write_film(tmp_path / "a.mp4", LEFT, Fraction(25))
    write_film(tmp_path / "b.mp4", LEFT[:, :, :32], Fraction(25))
    write_film(tmp_path / "c.mp4", LEFT, Fraction(30))
    (tmp_path / "empty").mkdir()
    cv2.imwrite(str(tmp_path / "one.jpg"), LEFT[0])
    (tmp_path / "one.jpg").rename(tmp_path / "one.mpo")
    given = {
        "missing": ("sbs", ["none.mp4"], "file does not exist"),
        "empty folder": ("pair", ["empty", "empty"], "contains no image"),
        "no second view": ("multiview", ["a.mp4"], "no second view"),
        "other size": ("pair", ["a.mp4", "b.mp4"], "differ in size: 40x24 and 32x24"),
        "other rate": ("pair", ["a.mp4", "c.mp4"], "25.00 and 30.00 fps"),
        "no mpo": ("multiview", ["one.mpo"], "contains one image"),
    }
    packing, names, expected = given[case]
    film = source(packing, *(tmp_path / name for name in names))
    with pytest.raises(UnreadableFilm, match=expected) as caught:
        view_info(film)
        list(read_stereo_frames(film))
    assert "\n" not in str(caught.value)


def test_hash_depends_on_the_contents_and_their_order(tmp_path: Path) -> None:
    pair = stored(tmp_path, "pair")
    digest = hash_source(pair)
    assert len(digest) == 16
    assert digest != hash_source(source("pair", *reversed(pair.paths)))
    (tmp_path / "copy").mkdir()
    copies = [path.rename(tmp_path / "copy" / f"other_{path.name}") for path in pair.paths]
    assert digest == hash_source(source("pair", *copies))
    assert hash_source(source("sbs", copies[0])) == hash_source(source("tb", copies[0]))


def sphere(height: int) -> np.ndarray:  # uint8 [height, 2 height, 3]
    """Noise that is a function of direction, laid flat: even poles, and borders that continue each other."""
    latitude = np.pi * (np.arange(height) + 0.5)[:, None] / height
    longitude = np.pi * (np.arange(2 * height) + 0.5)[None] / height
    x, y, z = np.sin(latitude) * np.cos(longitude), np.sin(latitude) * np.sin(longitude), np.cos(latitude)
    waves = np.random.default_rng(0).normal(0, 4, (8, 3))
    light = sum(np.sin(a * x + b * y + c * z + k) for k, (a, b, c) in enumerate(waves))
    return np.repeat((128 + 15 * light).clip(0, 255).astype(np.uint8)[..., None], 3, -1)


def test_spherical_films_are_distinguished_from_flat_ones(tmp_path: Path) -> None:
    ball = np.stack([sphere(128)] * 3)
    flat = moving_images(3, 128, 256)
    flat[:, :2] = flat[:, -2:] = 99  # even at the poles, too
    for name, view in (("ball", ball), ("flat", flat), ("flat_sbs_360", flat)):
        write_lossless(tmp_path / f"{name}.mkv", packed("sbs", view, view))
    reasons = {path.stem: spherical_reason(source("sbs", path)) for path in tmp_path.glob("*.mkv")}
    assert "border" in reasons["ball"]
    assert "tag 360" in reasons["flat_sbs_360"]
    assert reasons["flat"] == ""


def test_real_pairs_read_as_the_packed_film(footage: Path) -> None:
    toon = footage / "sv_toon_shot"
    whole = read_stereo_frames(source("sbs", toon / "shot_sbs.mp4"), size=(128, 128))
    apart = read_stereo_frames(source("pair", toon / "shot_L.mp4", toon / "shot_R.mp4"), size=(128, 128))
    for one, other in islice(zip(whole, apart, strict=True), 5):
        assert np.abs(one.left.astype(int) - other.left).mean() < 3
        assert np.abs(one.right.astype(int) - other.right).mean() < 3
