"""Read and write films: lossless files are exact, errors are one line."""

import gc
import pickle
import struct
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from conftest import damage

from secondeye.system.errors import UserError
from secondeye.video.multiview import read_multiview
from secondeye.video.mux import Track, mux_film, plan_tracks
from secondeye.video.probe import TruncatedFilm, UnreadableFilm, probe
from secondeye.video.read import ShotReader, decode_film, sample_frames
from secondeye.video.stereo_tag import stereo_tag
from secondeye.video.verify import verify_film
from secondeye.video.write import FilmWriter, read_lossless, write_film, write_lossless


def arrays() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (5, 33, 47, 3), dtype=np.uint8)
    return [rgb, rgb[..., 0], rgb[..., 0].astype(np.uint16) * 257]


@pytest.mark.parametrize("frames", arrays(), ids=["rgb", "gray", "gray16"])
def test_lossless_files_are_exact_and_reproducible(tmp_path: Path, frames: np.ndarray) -> None:
    write_lossless(tmp_path / "a.mkv", frames)
    time.sleep(1.1)  # a timestamp in the file would show
    write_lossless(tmp_path / "b.mkv", frames)
    assert np.array_equal(read_lossless(tmp_path / "a.mkv"), frames)
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()


def write_groups(path: Path, frames: np.ndarray) -> None:
    """Write as earlier versions did: a key frame, then others that depend on it."""
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=24, options={"level": "3", "g": "4", "threads": "1"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "bgr0"
        for index, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24").reformat(format="bgr0")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("write", [write_lossless, write_groups])
def test_frames_of_lossless_files_are_read_by_index(
    tmp_path: Path, write: Callable[[Path, np.ndarray], None]
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (30, 16, 24, 3), dtype=np.uint8)
    path = tmp_path / "a.mkv"
    write(path, frames)
    for indices in ([0], [29], [3, 4, 5], list(range(1, 30, 6)), list(range(30))):
        assert np.array_equal(read_lossless(path, indices), frames[indices])
    with path.open("rb") as file:
        assert np.array_equal(read_lossless(file, [7, 20]), frames[[7, 20]])
    with pytest.raises(ValueError, match=r"has 1 of the 2 frames \[29, 30\]"):
        read_lossless(path, [29, 30])


def test_colours_are_preserved(tmp_path: Path) -> None:
    flat = np.zeros((6, 64, 96, 3), np.uint8)
    flat[:, :32], flat[:, 32:] = (200, 40, 90), (10, 180, 60)
    write_film(tmp_path / "f.mp4", iter(flat), Fraction(24))
    images = [frame.rgb for frame in decode_film(tmp_path / "f.mp4")]
    assert len(images) == 6
    assert np.abs(images[3][8].astype(int) - (200, 40, 90)).max() <= 3
    assert np.abs(images[3][56].astype(int) - (10, 180, 60)).max() <= 3


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def images():  # type: ignore[no-untyped-def]
        yield np.zeros((16, 16, 3), np.uint8)
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        write_film(tmp_path / "f.mp4", images(), Fraction(24))
    assert not list(tmp_path.iterdir())


def test_reading_from_a_timestamp_gives_the_same_frames(make_film: Callable[..., Path]) -> None:
    film = make_film(shots=(40,))
    whole = list(decode_film(film))
    for start in (0, 1, 17, 39):
        part = list(decode_film(film, start_pts=whole[start].pts))
        assert [p.pts for p in part] == [p.pts for p in whole[start:]]
        assert np.array_equal(part[0].rgb, whole[start].rgb)


def test_probe_reports_size_rate_and_audio(make_film: Callable[..., Path]) -> None:
    info = probe(make_film(shots=(9, 8)))
    assert (info.width, info.height, info.frames, info.bit_depth) == (64, 48, 17, 8)
    assert info.fps == 24 and info.audio == ("aac",) and info.pixel_aspect == 1
    assert not info.colour.full_range and not info.hdr


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: None, "file does not exist"),
        (lambda path: path.mkdir(), "folder"),
        (lambda path: path.write_bytes(b""), "not a film"),
        (lambda path: path.write_bytes(bytes(range(256)) * 40), "not a film"),
    ],
    ids=["missing", "folder", "empty", "noise"],
)
def test_files_that_are_not_films_are_one_line(
    tmp_path: Path, make: Callable[[Path], None], expected: str
) -> None:
    path = tmp_path / "film.mp4"
    make(path)
    with pytest.raises(UnreadableFilm, match=expected) as caught:
        probe(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_audio_without_video_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(UnreadableFilm, match="no video stream"):
        probe(path)


def test_a_picture_that_does_not_decode_is_skipped(make_film: Callable[..., Path]) -> None:
    film = make_film(shots=(60,), sound=False)
    whole = [frame.pts for frame in decode_film(film)]
    frames = list(decode_film(damage(film)))
    (after,) = [number for number, frame in enumerate(frames) if frame.lost_before]
    assert frames[after].lost_before == 1 and 20 < after < 40
    assert [frame.pts for frame in frames] == whole[:after] + whole[after + 1 :]


def test_rotated_film_is_read_upright(tmp_path: Path) -> None:
    path = tmp_path / "turned.mp4"
    image = np.zeros((32, 64, 3), np.uint8)
    image[:, :32] = 220  # the left half is bright
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        stream.set_display_rotation(90)  # counter-clockwise: left comes to the bottom
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    info = probe(path)
    upright = next(decode_film(path)).rgb
    assert (info.width, info.height) == (32, 64) and upright.shape == (64, 32, 3)
    assert upright[56:].mean() > 180 and upright[:8].mean() < 40


def test_joined_segments_keep_timestamps_and_audio(make_film: Callable[..., Path], tmp_path: Path) -> None:
    source = make_film(shots=(20,))
    stamps = [frame.pts for frame in decode_film(source)]
    base = probe(source).time_base
    segments = []
    for start, stop in ((0, 7), (7, 8), (8, 20)):
        path = tmp_path / f"{start}.mp4"
        with FilmWriter(path, 128, 48, fps=Fraction(24), time_base=base, frame_packing=3) as writer:
            for n in range(start, stop):
                writer.write(np.full((48, 128, 3), n * 10, np.uint8), stamps[n] - stamps[start])
        segments.append((path, stamps[start] * base))
    for suffix in (".mp4", ".mkv"):
        output = tmp_path / f"joined{suffix}"
        assert [track.kind for track in mux_film(segments, source, output).tracks] == ["audio"]
        images = list(decode_film(output))
        tick = probe(output).time_base
        late = [p.pts * tick - stamp * base for p, stamp in zip(images, stamps, strict=True)]
        if suffix == ".mp4":
            assert set(late) == {0}
        else:  # Matroska counts in milliseconds, and moves all tracks so that the sound's lead-in begins at 0
            assert max(late) - min(late) <= Fraction(1, 1000)
        assert [round(p.rgb.mean() / 10) for p in images] == list(range(20))
        assert sound_packets(output) == sound_packets(source)


def sound_packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


@pytest.mark.parametrize("read", ["film", "samples", "views"])
def test_no_decoded_frame_waits_for_the_garbage_collector(
    make_film: Callable[..., Path], tmp_path: Path, read: str
) -> None:
    """A frame of 4K takes 12 MB; the collector may run only after hundreds of them."""
    film = make_film(shots=(30,), sound=False)
    frames: Iterator[object]
    if read == "film":
        frames = decode_film(film, whole_every=4)
    elif read == "samples":
        frames = sample_frames(film, 30, (24, 32))
    else:
        film = Path(__file__).parent / "conformance" / "two_views.hevc"
        frames = read_multiview(film)
    gc.collect()
    gc.disable()
    try:
        alive = []
        for _ in frames:
            alive.append(sum(type(each) is VideoFrame for each in gc.get_objects(generation=0)))
    finally:
        gc.enable()
    assert max(alive) <= 8 < len(alive), "the decoder's own frames, and those whose orientation was read"


def test_mp4_is_marked_side_by_side_in_container_and_stream(
    make_film: Callable[..., Path], tmp_path: Path
) -> None:
    source = make_film(shots=(6,))
    segment = tmp_path / "s.mp4"
    with FilmWriter(segment, 128, 48, fps=Fraction(24), time_base=Fraction(1, 24), frame_packing=3) as writer:
        for n in range(6):
            writer.write(np.zeros((48, 128, 3), np.uint8), n)
    output = tmp_path / "joined.mp4"
    mux_film([(segment, Fraction(0))], source, output, stereo=stereo_tag("sbs"))
    box = struct.pack(">I4sIB", 13, b"st3d", 0, 2)
    assert output.read_bytes().count(box) == 1
    with av.open(str(output)) as container:
        kinds = [data.type.name for data in next(container.decode(video=0)).side_data]
    assert "STEREO3D" in kinds


@pytest.mark.parametrize(("height", "width"), [(40, 1136), (64, 1440), (48, 122)])
def test_encoding_is_reproducible(tmp_path: Path, height: int, width: int) -> None:
    """Widths whose rows are padded: x264 looks at the padding, which nobody clears."""
    images = np.random.default_rng(0).integers(0, 256, (12, height, width, 3), dtype=np.uint8)
    made = set()
    for attempt in range(12):
        garbage = [
            np.random.default_rng(n).integers(0, 256, 400_000, dtype=np.uint8) for n in range(attempt % 6)
        ]
        del garbage  # the memory that the next frames get is never the same
        write_film(tmp_path / "f.mp4", iter(images), Fraction(24))
        made.add((tmp_path / "f.mp4").read_bytes())
    assert len(made) == 1


def test_reading_and_writing_does_not_darken(make_film: Callable[..., Path], tmp_path: Path) -> None:
    film, copy = make_film(shots=(6,)), tmp_path / "copy.mp4"
    first = [frame.rgb for frame in decode_film(film)]
    write_film(copy, iter(first), Fraction(24), crf=0, preset="ultrafast")
    second = [frame.rgb for frame in decode_film(copy)]
    difference = np.stack(first).astype(float) - np.stack(second)
    assert abs(difference.mean()) < 0.1


def test_joined_film_keeps_rate_and_pixel_shape(make_film: Callable[..., Path], tmp_path: Path) -> None:
    rate, segment = Fraction(30000, 1001), tmp_path / "s.mp4"
    shape = Fraction(16, 11)
    with FilmWriter(
        segment, 128, 48, fps=rate, time_base=Fraction(1, 30000), pixel_aspect=shape, frame_packing=3
    ) as writer:
        for n in range(6):
            writer.write(np.zeros((48, 128, 3), np.uint8), n * 1001)
    for suffix in (".mp4", ".mkv"):
        output = tmp_path / f"joined{suffix}"
        mux_film([(segment, Fraction(0))], make_film(shots=(6,)), output, stereo=stereo_tag("sbs"))
        info = probe(output)
        assert (info.fps, info.pixel_aspect) == (rate, shape)


def test_variable_frame_rate_keeps_its_timestamps(make_film: Callable[..., Path], tmp_path: Path) -> None:
    stamps_ms = [0, 33, 66, 200, 233, 500, 533, 1000]
    film = make_film(shots=(8,), stamps_ms=stamps_ms)
    assert [round(p.pts * probe(film).time_base * 1000) for p in decode_film(film)] == stamps_ms


def test_mp4_cannot_hold_every_audio_codec(tmp_path: Path, make_film: Callable[..., Path]) -> None:
    assert plan_tracks(make_film(), ".mp4").losses == (0, 0)
    path = tmp_path / "pcm.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=24)
        video.width = video.height = 32
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=48000)
        container.mux(
            video.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24"))
        )
        container.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
        frame.sample_rate = 48000
        container.mux(audio.encode(frame))
    assert plan_tracks(path, ".mp4").encoded == {1: "pcm_s16le"}
    assert plan_tracks(path, ".mkv").copied == (1,)


def test_shots_are_the_same_read_in_order_or_after_a_gap(make_film: Callable[..., Path]) -> None:
    film = make_film(shots=(30,))
    whole = list(decode_film(film))
    stamps = [frame.pts for frame in whole]
    for plan in ([(0, 10), (10, 11), (11, 30)], [(5, 9), (20, 30)], [(20, 30), (0, 4)]):
        reader = ShotReader(film, stamps)
        for start, stop in plan:
            shot = list(reader.read(start, stop))
            assert [p.pts for p in shot] == stamps[start:stop]
            assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(shot, whole[start:stop], strict=True))


def test_truncated_film_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(TruncatedFilm(Path("a.mp4"), 7, "no more")))
    assert (str(error), error.frames) == ("a.mp4: ends early after 7 frames (no more)", 7)


def test_a_real_damaged_film_loses_one_picture(footage: Path) -> None:
    frames = list(decode_film(footage / "odd_decord" / "corrupted.mp4"))
    assert len(frames) == 49 and [k for k, frame in enumerate(frames) if frame.lost_before] == [30]


def test_verified_film_is_the_one_that_was_written(make_film: Callable[..., Path], tmp_path: Path) -> None:
    source, segment = make_film(shots=(12,)), make_film("segment.mp4", shots=(12,), sound=False)
    seconds = [frame.pts * probe(segment).time_base for frame in decode_film(segment)]
    for suffix in (".mp4", ".mkv"):
        output = tmp_path / f"joined{suffix}"
        tracks = mux_film([(segment, Fraction(0))], source, output).tracks
        verify_film(output, width=64, height=48, seconds=seconds, tracks=tracks)
        late = [*seconds[:-1], seconds[-1] + 1]
        silent = [*tracks, Track("audio", Fraction(0))]
        longer = [tracks[0]._replace(last_seconds=tracks[0].last_seconds + 2)]
        for changed, reason in (
            ({"seconds": seconds[:-1]}, "12 of 11 frames"),
            ({"seconds": late}, "frame 11 is at"),
            ({"tracks": silent}, "1 of 2 tracks"),
            ({"tracks": longer}, "audio track 1 ends at"),
            ({"width": 128}, r"first frame, at 0.0\d\d s, does not decode to 128x48"),
        ):
            expected = {"width": 64, "height": 48, "seconds": seconds, "tracks": tracks}
            with pytest.raises(UserError, match=reason):
                verify_film(output, **(expected | changed))


def test_truncated_film_does_not_pass_verification(make_film: Callable[..., Path], tmp_path: Path) -> None:
    segment = make_film(shots=(12,), sound=False)
    seconds = [frame.pts * probe(segment).time_base for frame in decode_film(segment)]
    output = tmp_path / "joined.mkv"
    mux_film([(segment, Fraction(0))], segment, output)
    content = output.read_bytes()
    output.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(UserError, match=r"of 12 frames|does not decode"):
        verify_film(output, width=64, height=48, seconds=seconds, tracks=[])


def test_a_film_that_has_become_shorter_is_an_error(make_film: Callable[..., Path]) -> None:
    film = make_film(shots=(4,), sound=False)
    stamps = [frame.pts for frame in decode_film(film)]
    reader = ShotReader(film, [*stamps, stamps[-1] + 1])
    with pytest.raises(UserError, match=r"frame 4 was read before"):
        list(reader.read(0, 5))
