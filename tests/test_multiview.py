"""Films of two views in one stream, against the two plain streams that they are made of."""

import struct
from pathlib import Path

import av
import mv_hevc
import numpy as np
import pytest
from conftest import moving_images
from test_stereo_metadata import box

from secondeye.film.packing import MULTIVIEW
from secondeye.sources import list_sources
from secondeye.sources.views import read_stereo_frames, spherical_reason, view_info
from secondeye.video import stereo_tag
from secondeye.video.multiview import read_multiview
from secondeye.video.probe import TruncatedFilm, UnreadableFilm
from secondeye.video.read import decode_film
from secondeye.video.stereo_metadata import StereoMetadata, read_stereo_metadata

FRAMES, HEIGHT, WIDTH = 40, 42, 72  # not whole coding blocks
KINDS = [".mov", ".mp4", ".mkv", ".ts", ".hevc"]

Streams = tuple[list[av.Packet], list[av.Packet], list[av.Packet]]


def streams(reordered: int) -> Streams:
    """The left eye, the right eye, and both."""
    eyes = (moving_images(FRAMES, HEIGHT, WIDTH, seed) for seed in (0, 1))
    left, right = (mv_hevc.encode(eye, reordered=reordered, key_every=10) for eye in eyes)
    return left, right, mv_hevc.two_layers(left, right)


@pytest.fixture(scope="module")
def simple() -> Streams:
    return streams(0)


@pytest.fixture(scope="module")
def reordered() -> Streams:
    return streams(2)


def write_all(folder: Path, kind: str, coded: Streams) -> tuple[Path, Path, Path]:
    left, right, both = (
        mv_hevc.write(folder / f"{name}{kind}", packets)
        for name, packets in zip(("one", "other", "both"), coded, strict=True)
    )
    return left, right, both


@pytest.mark.parametrize("order", ["simple", "reordered"])
@pytest.mark.parametrize("kind", KINDS)
def test_both_views_equal_those_of_two_plain_films(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str, order: str
) -> None:
    left, right, both = write_all(tmp_path, kind, request.getfixturevalue(order))
    assert (read_stereo_metadata(left).views, read_stereo_metadata(both).views) == (1, 2)
    views = list(read_multiview(both))
    assert len(views) == FRAMES and not any(view.damaged for view in views)
    for view, one, other in zip(views, decode_film(left), decode_film(right), strict=True):
        assert view.pts == one.pts
        assert np.array_equal(view.base, one.rgb)
        assert np.array_equal(view.second, other.rgb)
        assert not np.array_equal(view.base, view.second)


def test_views_that_an_encoder_predicted_from_each_other_are_read() -> None:
    """By x265 4.1 with ENABLE_MULTIVIEW: --preset fast --crf 16 --keyint 8 --bframes 2 --ctu 16 --no-info."""
    film = Path(__file__).parent / "conformance" / "two_views.hevc"
    assert read_stereo_metadata(film).views == 2
    wide = moving_images(12, 48, 72).astype(int)
    step = 1_200_000 // mv_hevc.FPS  # ticks of a raw stream
    for index, (view, image) in enumerate(zip(read_multiview(film), wide, strict=True)):
        assert view.pts == index * step
        assert np.abs(view.base - image[:, :64]).mean() < 8  # the other's: 75
        assert np.abs(view.second - image[:, 8:]).mean() < 8


def test_two_views_are_detected_from_the_stream(tmp_path: Path, simple: Streams) -> None:
    mv_hevc.write(tmp_path / "film.mov", simple[2])
    (film,) = list_sources(tmp_path)
    assert film.packing == MULTIVIEW
    info = view_info(film)
    assert (info.height, info.width, info.fps, info.pixel_aspect) == (HEIGHT, WIDTH, mv_hevc.FPS, 1)
    assert len(list(read_stereo_frames(film))) == FRAMES


@pytest.mark.parametrize("kind", KINDS)
def test_views_are_read_from_a_timestamp_on_and_scaled(tmp_path: Path, reordered: Streams, kind: str) -> None:
    film = mv_hevc.write(tmp_path / f"film{kind}", reordered[2])
    whole = list(read_multiview(film))
    stamps = [view.pts for view in whole]
    asked = list[int]()

    def wants(pts: int) -> bool:
        asked.append(pts)
        return pts in (stamps[17], stamps[33])

    found = list(read_multiview(film, start_pts=stamps[12], select=wants, size=(21, 36)))
    assert [view.pts for view in found] == [stamps[17], stamps[33]] and asked == stamps[12:]
    for view, full in zip(found, (whole[17], whole[33]), strict=True):
        for small, eye in ((view.base, full.base), (view.second, full.second)):
            halved = eye.reshape(21, 2, 36, 2, 3).mean((1, 3))
            assert small.shape == (21, 36, 3) and np.abs(small - halved).mean() < 12  # the other's: 60
    assert np.array_equal(next(read_multiview(film, start_pts=stamps[33])).second, whole[33].second)


def test_truncated_film_yields_the_frames_before(tmp_path: Path, simple: Streams) -> None:
    film = mv_hevc.write(tmp_path / "film.mkv", simple[2])
    whole = list(read_multiview(film))
    content = film.read_bytes()
    film.write_bytes(content[: len(content) // 3])
    views = []
    with pytest.raises(TruncatedFilm, match=r"ends early after \d+ frames \(.* of the 1.6 seconds"):
        for view in read_multiview(film):
            views.append(view)
    assert FRAMES // 5 < len(views) < FRAMES // 2
    for view, wanted in zip(views, whole, strict=False):
        assert view.pts == wanted.pts
        assert np.array_equal(view.base, wanted.base) and np.array_equal(view.second, wanted.second)


@pytest.mark.parametrize(("kind", "layer"), [(".mkv", 0), (".mkv", 1), (".hevc", 1)])
def test_missing_views_are_never_paired_with_others(
    tmp_path: Path, reordered: Streams, kind: str, layer: int
) -> None:
    whole = list(read_multiview(mv_hevc.write(tmp_path / f"film{kind}", reordered[2])))
    packets = list(reordered[2])
    rest = [unit for unit in mv_hevc.units(packets[25]) if mv_hevc.layer_of(unit) != layer]
    packets[25] = mv_hevc.packet_of(rest, packets[25])
    views = []
    with pytest.raises(TruncatedFilm, match="a frame has no second view"):
        for view in read_multiview(mv_hevc.write(tmp_path / f"film{kind}", packets)):
            views.append(view)
    assert 20 <= len(views) <= 26
    for view, wanted in zip(views, whole, strict=False):
        assert view.pts == wanted.pts
        assert np.array_equal(view.base, wanted.base) and np.array_equal(view.second, wanted.second)


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_hevc_with_one_view_has_no_second(tmp_path: Path, frames: int, simple: Streams) -> None:
    film = mv_hevc.write(tmp_path / "film.mkv", simple[0][:frames])
    with pytest.raises(UnreadableFilm, match="has no second view"):
        list(read_multiview(film))


def test_projection_of_a_spherical_film_is_read(tmp_path: Path, simple: Streams) -> None:
    """VR180 of headsets: beside the projection stands the number of an image's view, unknown to PyAV."""
    projection = box(b"proj", box(b"prji", struct.pack(">I4s", 0, b"hequ")))
    stereo_tag.append_box(mv_hevc.write(tmp_path / "film.mov", simple[2]), box(b"vexu", projection))
    metadata = read_stereo_metadata(tmp_path / "film.mov")
    assert metadata == StereoMetadata("", False, "half equirectangular", 2)
    (film,) = list_sources(tmp_path)
    assert spherical_reason(film) == "spherical by its metadata: half equirectangular"
