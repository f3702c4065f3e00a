"""Films that are not what their header says: rates, damage, covers, mirrors, time bases."""

import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest
from av.filter import Graph
from av.stream import Disposition
from av.video.frame import VideoFrame
from conftest import damage, frame_seconds, moving_images, sound_packets
from PIL import Image

from secondeye.conversion import segments
from secondeye.conversion.checkpoint import Checkpoint
from secondeye.conversion.convert import ConversionResult, convert
from secondeye.conversion.settings import ConversionSettings
from secondeye.film.shots import plan_shots
from secondeye.sources import Source
from secondeye.sources.packing_detection import detect_packing
from secondeye.sources.views import read_stereo_frames
from secondeye.system.errors import UserError
from secondeye.video.probe import UnreadableFilm, probe
from secondeye.video.read import decode_film
from secondeye.video.write import write_film

SETTINGS = ConversionSettings(3.0, 0.5, "motion", "fill", 10, "ultrafast", None)
HEIGHT, WIDTH = 48, 64


def converted(film: Path) -> tuple[ConversionResult, list[str]]:
    log: list[str] = []
    return convert(film, None, SETTINGS, log=log.append), log


def write_timed(
    path: Path, images: np.ndarray, stamps: list[int], base: Fraction, rate: int = 24, codec: str = "libx264"
) -> Path:
    """Write frames with these timestamps, and a rate for the header."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"crf": "16"} if codec == "libx264" else {})
        stream.height, stream.width = images.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = base
        for image, stamp in zip(images, stamps, strict=True):
            frame = VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = stamp, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def two_shots(frames: int) -> np.ndarray:
    return np.concatenate([moving_images(frames, HEIGHT, WIDTH, seed) for seed in (0, 1)])


# Rates


def test_a_rate_that_the_timestamps_contradict_is_theirs(tmp_path: Path) -> None:
    """A header with 1000 fps: the shortest shot would be 250 frames, and the cut would be lost."""
    stamps = [round(k * 1000 / 24) for k in range(40)]
    film = write_timed(tmp_path / "film.flv", two_shots(20), stamps, Fraction(1, 1000), rate=1000)
    with av.open(str(film)) as container:
        assert container.streams.video[0].average_rate == 1000
    assert probe(film).fps == 24
    _, log = converted(film)
    assert "40 frames in 2 shots" in log


def test_the_cuts_of_a_real_film_with_a_wrong_rate(footage: Path) -> None:
    info = probe(footage / "odd_rate" / "flv_1000fps_trailer.flv")
    plan = plan_shots(info, cut_threshold=2.0, min_shot_frames=6)
    assert [start for start, _ in plan.shots] == [0, 63, 262, 269, 276, 285, 314, 496]


def test_rates_that_timestamps_do_not_contradict_stay(footage: Path, make_film: Callable[..., Path]) -> None:
    """A film that runs at 600 fps for a moment; a variable rate, whose header states the average."""
    assert probe(footage / "odd_subtitles" / "pgs.mkv").fps == 600
    steps = [40, 40, 60, 40, 60] * 4
    film = make_film(stamps_ms=[0, *np.cumsum(steps[:16]).tolist()])
    with av.open(str(film)) as container:
        assert probe(film).fps == container.streams.video[0].average_rate != 25


# Damage


def test_damaged_pictures_are_skipped_and_named(make_film: Callable[..., Path]) -> None:
    film = make_film(shots=(60,))
    times, tracks = frame_seconds(film), sound_packets(film)
    made, log = converted(damage(film))
    kept = frame_seconds(made.output)
    assert made.frames == len(kept) == 59 and set(kept) < set(times)
    (lost,) = set(times) - set(kept)
    at = float(times[times.index(lost) + 1])
    assert f"frames that do not decode: 1, skipped before {at:.2f} s" in made.damage
    assert any(line.startswith("warning: ") and made.damage in line for line in log)
    assert sound_packets(made.output) == tracks


def test_pictures_that_decode_in_part_are_kept_and_named(make_film: Callable[..., Path]) -> None:
    """Bits that flip inside a picture: the decoder fills what it cannot read, and says so."""
    film = make_film(shots=(60,), sound=False)
    with av.open(str(film)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size > 200][5]
    content = bytearray(film.read_bytes())
    middle = packet.pos + packet.size // 2
    content[middle : middle + 20] = bytes(byte ^ 0xFF for byte in content[middle : middle + 20])
    film.write_bytes(content)
    made, log = converted(film)
    assert made.frames == 60 and made.output.exists()
    places = r"frames that decode in part: 1, at \d+\.\d\d s"
    assert re.fullmatch(rf"{re.escape(str(film))}: {places}", made.damage)
    assert f"warning: {made.damage}; converting what decodes" in log


def test_a_real_cut_film_names_its_last_picture(footage: Path) -> None:
    info = probe(footage / "odd_sound" / "dvd_lpcm_telecine.vob")
    plan = plan_shots(info, cut_threshold=2.0, min_shot_frames=6)
    assert plan.concealed == [15] and "frames that decode in part: 1, at 0.50 s" in plan.damage


def test_a_film_that_is_mostly_damage_is_refused(make_film: Callable[..., Path]) -> None:
    film = make_film(shots=(60,), sound=False)
    with av.open(str(film)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        places = [packet.pos for packet in packets[2:-2]]
    content = bytearray(film.read_bytes())
    for place in places:
        content[place : place + 4] = b"\xff\xff\xff\xff"
    film.write_bytes(content)
    with pytest.raises(UnreadableFilm, match=r"56 of 60 pictures do not decode"):
        converted(film)
    assert [path.name for path in film.parent.iterdir()] == [film.name]


def test_both_views_of_a_pair_lose_the_same_pictures(make_film: Callable[..., Path]) -> None:
    left, right = (make_film(name, shots=(60,), sound=False) for name in ("f_L.mp4", "f_R.mp4"))
    times = [frame.pts for frame in decode_film(left)]
    damage(right)
    frames = list(read_stereo_frames(Source("f", (left, right), "pair", "", "", "")))
    assert len(frames) == 59 and {frame.pts for frame in frames} < set(times)
    (gap,) = [frame for frame in frames if frame.after_gap]
    assert gap.lost_before == 1


# Streams


def write_two_streams(path: Path, sizes: list[tuple[int, int, int]], marks: list[Disposition]) -> Path:
    """Write streams of (frames, height, width) with these dispositions, in this order."""
    with av.open(str(path), "w") as container:
        streams = []
        for (_, height, width), mark in zip(sizes, marks, strict=True):
            codec = "mjpeg" if mark & Disposition.attached_pic else "libx264"
            stream = container.add_stream(codec, rate=24)
            stream.height, stream.width = height, width
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.disposition = mark
            streams.append(stream)
        for stream, (frames, height, width) in zip(streams, sizes, strict=True):
            for image in moving_images(frames, height, width):
                container.mux(stream.encode(VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("first", [(1, 128, 128), (20, 32, 32)], ids=["cover", "thumbnails"])
def test_the_film_is_neither_its_cover_nor_its_thumbnails(
    tmp_path: Path, first: tuple[int, int, int]
) -> None:
    mark = Disposition.attached_pic if first[0] == 1 else Disposition.default
    sizes, marks = [first, (20, HEIGHT, WIDTH)], [mark, Disposition(0)]
    film = write_two_streams(tmp_path / "film.mp4", sizes, marks)
    assert (probe(film).height, probe(film).width) == (HEIGHT, WIDTH)
    assert converted(film)[0].frames == 20


def test_sound_with_a_cover_is_no_film(footage: Path) -> None:
    with pytest.raises(UnreadableFilm, match="only a cover picture, no film"):
        probe(footage / "odd_cover" / "audio_with_cover_art.mp4")


def test_a_stream_without_a_decoder_is_called_that(make_film: Callable[..., Path]) -> None:
    film = make_film(sound=False)
    film.write_bytes(film.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(UnreadableFilm, match="no decoder for its video"):
        probe(film)


def test_animations_are_films_or_one_line_says_what_to_do(tmp_path: Path) -> None:
    first, *rest = [Image.fromarray(image) for image in moving_images(9, HEIGHT, WIDTH)]
    for kind in ("gif", "webp"):
        first.save(tmp_path / f"film.{kind}", save_all=True, append_images=rest, duration=40)
    made, _ = converted(tmp_path / "film.gif")
    assert frame_seconds(made.output) == [Fraction(k, 25) for k in range(9)]
    with pytest.raises(UnreadableFilm, match=r"is animated WebP.*convert it to GIF or MP4"):
        converted(tmp_path / "film.webp")
    with pytest.raises(UnreadableFilm, match=r"is a folder.*make one of images first"):
        converted(tmp_path)


# Mirrors


def mirror(film: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Replace the display matrix (a, b, c, d) of an mp4 in its track header."""
    content = bytearray(film.read_bytes())
    place = content.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    content[place : place + 36] = b"".join(
        value.to_bytes(4, "big", signed=True) for value in (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    )
    film.write_bytes(content)
    return film


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
        ((1, 0, 0, -1), lambda image: image[::-1]),
        ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
        ((0, -1, -1, 0), lambda image: image.transpose(1, 0, 2)[::-1, ::-1]),
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    ],
    ids=["horizontal", "vertical", "transposed", "anti-transposed", "turned"],
)
def test_mirrored_films_are_shown_as_players_show_them(
    make_film: Callable[..., Path],
    matrix: tuple[int, int, int, int],
    expected: Callable[[np.ndarray], np.ndarray],
) -> None:
    film = make_film(shots=(3,), sound=False)
    (plain, *_) = decode_film(film)
    (shown, *_) = decode_film(mirror(film, matrix))
    assert np.array_equal(shown.rgb, expected(plain.rgb))
    assert (probe(film).height, probe(film).width) == shown.rgb.shape[:2]


def test_a_mirrored_stereo_film_swaps_its_eyes(tmp_path: Path) -> None:
    """What the left eye sees in a mirror is what the right eye sees in the world, mirrored."""
    left, right = moving_images(3, HEIGHT, WIDTH, 0), moving_images(3, HEIGHT, WIDTH, 1)
    for packing, axis in (("sbs", 2), ("tb", 1)):
        film = tmp_path / f"film_{packing}.mp4"
        write_film(film, iter(np.concatenate([left, right], axis=axis)), Fraction(24))
        source = Source(film.name, (film,), packing, "", "", "")
        (plain, *_) = read_stereo_frames(source)
        mirror(film, (-1, 0, 0, 1))
        (shown, *_) = read_stereo_frames(source)
        assert np.array_equal(shown.left, plain.right[:, ::-1]), packing
        assert np.array_equal(shown.right, plain.left[:, ::-1]), packing


def test_a_pair_of_which_one_is_mirrored_keeps_its_eyes(make_film: Callable[..., Path]) -> None:
    """A rig with a half-silvered mirror: its display matrix makes one camera's film right."""
    left, right = (make_film(name, shots=(3,), sound=False) for name in ("f_L.mp4", "f_R.mp4"))
    mirror(left, (-1, 0, 0, 1))
    (shown, *_) = read_stereo_frames(Source("f", (left, right), "pair", "", "", ""))
    assert np.array_equal(shown.left, next(decode_film(left)).rgb)


# Time bases


def test_a_picture_may_stand_for_more_ticks_than_mp4_holds(tmp_path: Path) -> None:
    """Ticks of a nanosecond; the tenth picture stands for 3 s, more than 2^31 of them."""
    base = Fraction(1, 10**9)
    stamps = [k * 40_000_000 + (3_000_000_000 if k > 9 else 0) for k in range(20)]
    film = write_timed(tmp_path / "film.nut", moving_images(20, HEIGHT, WIDTH), stamps, base, 25, "ffv1")
    assert probe(film).time_base == base
    made, _ = converted(film)
    assert frame_seconds(made.output) == [stamp * base for stamp in stamps]


# Interlaced film


def interlace(images: np.ndarray, path: Path, first: str, preset: str = "ultrafast") -> Path:
    """Write two images to each frame, as fields; the `top` or the `bottom` lines come first."""
    height, width = images.shape[1:3]
    woven = images[::2].copy()
    later = slice(1, None, 2) if first == "top" else slice(0, None, 2)
    woven[:, later] = images[1::2, later]
    with av.open(str(path), "w") as container:
        options = {"crf": "4", "preset": preset, "x264-params": "tff=1:keyint=8"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv444p"
        graph = Graph()  # marks frames; the encoder takes the order from them
        source = graph.add_buffer(width=width, height=height, format="yuv444p", time_base=Fraction(1, 25))
        mark = graph.add("setfield", "tff" if first == "top" else "bff")
        graph.link_nodes(source, mark, graph.add("buffersink")).configure()
        for number, image in enumerate(woven):
            frame = VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv444p")
            frame.pts = number
            graph.push(frame)
            container.mux(stream.encode(cast(VideoFrame, graph.pull())))
        container.mux(stream.encode(None))
    return path


def psnr(images: np.ndarray, truth: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((images.astype(np.float64) - truth) ** 2)))


@pytest.mark.parametrize("first", ["top", "bottom"])
def test_interlaced_film_gives_one_whole_picture_a_frame(tmp_path: Path, first: str) -> None:
    images = moving_images(40, 96, 128)  # moves 2 px from field to field
    film = interlace(images, tmp_path / "film.mp4", first)
    assert probe(film).interlaced
    frames, woven = list(decode_film(film)), list(decode_film(film, deinterlace=False))
    assert [frame.pts for frame in frames] == [frame.pts for frame in woven]
    shown, combed = (np.stack([frame.rgb for frame in each]) for each in (frames, woven))
    assert psnr(shown, images[::2]) > 30 > 24 > psnr(combed, images[::2])
    for number in (3, 8, 13):  # 8 is a key frame
        again = next(decode_film(film, start_pts=frames[number].pts))
        assert np.array_equal(again.rgb, frames[number].rgb), number


def test_a_seek_before_a_key_frame_has_the_frame_before_it(tmp_path: Path) -> None:
    """With B-frames a key frame is decoded before the frame that precedes it is shown."""
    film = interlace(moving_images(80, 96, 128), tmp_path / "film.mp4", "top", preset="medium")
    with av.open(str(film)) as container:
        keys = [p.pts for p in container.demux(video=0) if p.is_keyframe and p.pts]
    frames = {frame.pts: frame.rgb for frame in decode_film(film)}
    assert len(keys) > 2
    for key in keys:
        assert np.array_equal(next(decode_film(film, start_pts=key)).rgb, frames[key])


def test_conversion_deinterlaces_unless_switched_off(tmp_path: Path) -> None:
    film = interlace(moving_images(24, HEIGHT, WIDTH), tmp_path / "film.mp4", "top")
    log: list[str] = []
    made = convert(film, None, SETTINGS, log=log.append)
    assert any("interlaced, is deinterlaced" in line for line in log)
    kept = convert(film, tmp_path / "kept.mp4", replace(SETTINGS, deinterlace="off"), log=log.append)
    (left, woven) = (
        next(decode_film(path)).rgb[:, :WIDTH].astype(int) for path in (made.output, kept.output)
    )

    def combing(image: np.ndarray) -> float:
        return float(np.abs(image[1:-1] - (image[:-2] + image[2:]) / 2).mean())

    assert combing(woven) > 1.5 * combing(left)
    assert sum("is deinterlaced" in line for line in log) == 1 and kept.frames == made.frames == 12


def test_progressive_film_is_left_alone(make_film: Callable[..., Path]) -> None:
    assert not probe(make_film(sound=False)).interlaced


def test_real_interlaced_films_are_recognized(footage: Path) -> None:
    for name in ("odd_interlaced/interlaced_bff.mkv", "odd_sound/dvd_lpcm_telecine.vob"):
        assert probe(footage / name).interlaced, name


# Sound and timecodes


def write_surround(path: Path, codec: str = "eac3", timecode: str = "") -> Path:
    """Write 60 frames with 5.1 sound."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=24)
        video.height, video.width, video.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        if timecode:
            video.metadata["timecode"] = timecode
        audio = container.add_stream(codec, rate=48000)
        audio.codec_context.layout = "5.1"
        for image in moving_images(60, HEIGHT, WIDTH):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image)))
        time = np.arange(48000 * 5 // 2) / 48000
        waves = np.stack([np.sin(2 * np.pi * 100 * (k + 1) * time) for k in range(6)]).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(waves, format="fltp", layout="5.1")
        frame.sample_rate, frame.pts = 48000, 0
        container.mux([*video.encode(None), *audio.encode(frame), *audio.encode(None)])
    return path


@pytest.mark.parametrize(("name", "codec"), [("film.mp4", "eac3"), ("film.mkv", "eac3"), ("film.mov", "aac")])
def test_surround_keeps_its_packets_and_channels_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, codec: str
) -> None:
    film = write_surround(tmp_path / name, codec)
    made = converted_with_a_kill(film, monkeypatch)
    assert sound_packets(made) == sound_packets(film) and len(sound_packets(film)) > 50
    assert sound_of(made) == sound_of(film) == (codec, None if codec == "eac3" else "LC", 6, 48000)


@pytest.mark.parametrize(
    ("name", "sound", "profile", "channels"),
    [
        ("film.mp4", "he_aac_surround", "HE-AAC", 6),
        ("film.mkv", "he_aac_v2", "HE-AACv2", 2),
        ("film.ts", "he_aac_surround", "HE-AAC", 6),
    ],
)
def test_high_efficiency_aac_is_copied_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, sound: str, profile: str, channels: int
) -> None:
    """Its header states half the rate or the channels of the base layer: decoders find the rest."""
    recorded = Path(__file__).parent / "conformance" / f"{sound}.m4a"
    film = write_with_sound(tmp_path / name, recorded)
    made = converted_with_a_kill(film, monkeypatch, ".mp4" if film.suffix == ".ts" else film.suffix)
    assert sound_of(made) == ("aac", profile, channels, 48000)
    given, kept = sound_packets(film), sound_packets(made)
    headers = 7 if film.suffix == ".ts" else 0  # ADTS headers, which other containers do not have
    assert [packet for _, packet in kept] == [packet[headers:] for _, packet in given] and len(given) > 50
    np.testing.assert_array_equal(decoded_sound(made), decoded_sound(film))


def write_with_sound(path: Path, sound: Path) -> Path:
    """Write 60 frames with a copy of recorded sound."""
    with av.open(str(path), "w") as container, av.open(str(sound)) as recorded:
        video = container.add_stream("libx264", rate=24)
        video.height, video.width, video.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        audio = container.add_stream_from_template(recorded.streams.audio[0])
        for image in moving_images(60, HEIGHT, WIDTH):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(video.encode(None))
        for packet in recorded.demux(audio=0):
            if packet.size:
                packet.stream = audio
                container.mux(packet)
    return path


def sound_of(film: Path) -> tuple[str, str | None, int, int]:
    with av.open(str(film)) as container:
        context = container.streams.audio[0].codec_context
        next(container.decode(audio=0))
        return context.name, context.profile, context.channels, context.sample_rate


def decoded_sound(film: Path) -> np.ndarray:  # float32 [channels, samples]
    with av.open(str(film)) as container:
        return np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)


def converted_with_a_kill(film: Path, monkeypatch: pytest.MonkeyPatch, suffix: str = "") -> Path:
    """Convert a film, interrupted after a second of it, and continue."""
    output = film.with_name(f"made{suffix or film.suffix}")
    monkeypatch.setattr(segments, "SEGMENT_SECONDS", 1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoint, "finish_segment", interrupt_after(1, Checkpoint.finish_segment))
        convert(film, output, SETTINGS, log=lambda line: None)
    log: list[str] = []
    convert(film, output, SETTINGS, log=log.append)
    assert any("24 frames already converted" in line for line in log)
    return output


def interrupt_after(times: int, function: Callable[..., None]) -> Callable[..., None]:
    """Interrupt after so many calls of a function."""
    calls: list[int] = []

    def counting(*given: Any) -> None:
        function(*given)
        calls.append(1)
        if len(calls) == times:
            raise KeyboardInterrupt

    return counting


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_timecode_is_kept(tmp_path: Path, suffix: str) -> None:
    film = write_surround(tmp_path / "film.mov", "aac", timecode="10:02:03:04")
    output = tmp_path / f"made{suffix}"
    convert(film, output, SETTINGS, log=lambda line: None)
    with av.open(str(output)) as container:
        tags = [container.metadata, *(stream.metadata for stream in container.streams)]
        assert {each.get("timecode") or each.get("TIMECODE") for each in tags} - {None} == {"10:02:03:04"}
    assert len(frame_seconds(output)) == 60 and detect_packing(output)[0] == "sbs"


# Films that are stereo already


def write_stereo(path: Path, packing: str) -> np.ndarray:
    """Write a stereo film; returns its left views."""
    left = moving_images(9, 4 * HEIGHT, 4 * WIDTH)
    right = np.roll(left, -2, axis=2)
    axis = 2 if "sbs" in packing else 1
    views = [np.ascontiguousarray(each[:, ::2] if axis == 1 else each[:, :, ::2]) for each in (left, right)]
    if not packing.startswith("half"):
        views = [left, right]
    write_film(path, iter(np.concatenate(views, axis=axis)), Fraction(24), crf=1)
    return views[0]


def test_a_stereo_film_is_not_converted_as_if_it_were_flat(tmp_path: Path) -> None:
    write_stereo(tmp_path / "holiday_sbs.mp4", "sbs")
    write_stereo(tmp_path / "holiday.mp4", "tb")  # only its pixels tell
    write_stereo(tmp_path / "holiday_top-bottom.mp4", "tb")
    for name, packing in (
        ("holiday_sbs.mp4", "sbs"),
        ("holiday_top-bottom.mp4", "tb"),
        ("holiday.mp4", "tb"),
    ):
        with pytest.raises(UserError, match=rf"stereo film already .*--input-layout {packing} .*--mono"):
            converted(tmp_path / name)
    output = tmp_path / "flat.mp4"
    made = convert(tmp_path / "holiday.mp4", output, replace(SETTINGS, mono=True), log=lambda line: None)
    assert (probe(made.output).height, probe(made.output).width) == (8 * HEIGHT, 8 * WIDTH)


@pytest.mark.parametrize("name", ["family_tab.mp4", "ou.mp4"])
def test_words_in_a_name_do_not_make_it_stereo(make_film: Callable[..., Path], name: str) -> None:
    assert converted(make_film(name, sound=False))[0].frames == 17


@pytest.mark.parametrize("packing", ["sbs", "half-sbs", "tb-right-first"])
def test_the_left_view_of_a_stereo_film_is_converted_again(tmp_path: Path, packing: str) -> None:
    film = tmp_path / "film.mp4"
    left = write_stereo(film, packing.removesuffix("-right-first"))
    if packing.endswith("right-first"):
        left = np.roll(left, -2, axis=2)
    output, settings = tmp_path / "again.mkv", replace(SETTINGS, input_layout=packing, crf=0)
    made = convert(film, output, settings, log=lambda line: None)
    views = [frame.rgb[:, : left.shape[2]] for frame in decode_film(output)]
    assert made.frames == len(views) == 9 and views[0].shape == left[0].shape
    assert psnr(np.stack(views), left) > 27 > 24 > psnr(np.stack(views), np.roll(left, 2, axis=2))
    assert probe(output).pixel_aspect == (2 if packing == "half-sbs" else 1)
