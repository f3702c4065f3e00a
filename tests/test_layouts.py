"""What a conversion writes: layouts, tags, codecs and sizes, and that the rest of the project reads them."""

import json
import re
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import frame_seconds, moving_images
from test_cli import Run, one_line, secondeye  # noqa: F401
from test_resume import interrupt, interrupt_for

from secondeye import cli
from secondeye.conversion import checkpoint
from secondeye.conversion.convert import ConversionResult, convert
from secondeye.conversion.output_format import choose_format, describe_format
from secondeye.conversion.settings import ConversionSettings
from secondeye.conversion.shots import ShotConverter
from secondeye.film.layouts import LAYOUTS, Layout, anaglyph
from secondeye.film.packing import PACKED, pack, packing_axis, packing_from_name, unpack
from secondeye.sources import list_sources
from secondeye.sources.packing_detection import detect_packing, stated_packing
from secondeye.sources.views import read_stereo_frames
from secondeye.system.errors import UserError
from secondeye.video.encoders import ENCODERS, Encoding, why_unusable
from secondeye.video.probe import probe
from secondeye.video.read import decode_film
from secondeye.video.stereo_metadata import read_stereo_metadata
from secondeye.video.write import FilmWriter, write_film

# ruff: noqa: F811  # parameters have the names of the fixtures

HEIGHT, WIDTH, FRAMES = 48, 64, 3
SETTINGS = ConversionSettings(3.0, 0.5, "motion", "fill", None, "ultrafast", None)
LOSSLESS = replace(SETTINGS, codec="ffv1")
PACKED_LAYOUTS = [
    Layout(packing.removesuffix("-right-first"), "right" if packing.endswith("-right-first") else "left")
    for packing in PACKED
]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("film") / "film.mp4")


@pytest.fixture(scope="module")
def views(film: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return both views of the film as they are rendered, uint8 [T, H, W, 3]."""
    left, right = made(film, replace(LOSSLESS, layout="left-right-files")).outputs
    assert (left.name, right.name) == ("film_left.mkv", "film_right.mkv")
    return pictures(left), pictures(right)


def write(path: Path, height: int = HEIGHT, width: int = WIDTH) -> Path:
    write_film(path, iter(moving_images(FRAMES, height, width)), Fraction(24), crf=4)
    return path


def made(film: Path, settings: ConversionSettings, output: Path | None = None) -> ConversionResult:
    return convert(film, output, settings, overwrite=True, log=lambda line: None)


def pictures(film: Path) -> np.ndarray:
    return np.stack([frame.rgb for frame in decode_film(film)])


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((one.astype(float) - other) ** 2) / 255**2))


@pytest.mark.parametrize("packing", PACKED)
def test_unpack_is_the_inverse_of_pack(packing: str) -> None:
    left, right = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3), dtype=np.uint8)
    frame = pack(left, right, packing)
    kept = {"sbs": (left, right), "tb": (left, right), "interleaved": (left[::2], right[1::2])}
    if packing == "interleaved-right-first":
        kept["interleaved"] = (left[1::2], right[::2])
    if packing.startswith("half-"):
        shape = (8, 6, 2) if "sbs" in packing else (4, 12, 1)
        height, width, _ = shape
        kept[packing_axis(packing)] = tuple(  # type: ignore[assignment]
            np.rint(view.reshape(height, 8 // height, width, 12 // width, 3).mean((1, 3)))
            for view in (left.astype(float), right.astype(float))
        )
    for found, wanted in zip(unpack(frame, packing), kept[packing_axis(packing)], strict=True):
        assert abs(found.astype(float) - wanted).max() <= (0.5 if packing.startswith("half-") else 0)


def test_anaglyph_has_the_colours_of_dubois() -> None:
    """Linear light; the matrices as in the paper, so that grey stays grey and each view has its filter."""
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    assert abs(anaglyph(grey, grey).astype(int) - grey).max() <= 1
    black, red, cyan = (np.array([[colour]], np.uint8) for colour in ((0, 0, 0), (255, 0, 0), (0, 255, 255)))
    # 0.4561 in linear light is 180 in sRGB; 0.73364 - 0.0184503 is 220, and 1.2264 - 0.112961 is above 1.
    assert anaglyph(red, black).tolist() == [[[180, 0, 0]]]
    assert anaglyph(black, cyan).tolist() == [[[0, 220, 255]]]


@pytest.mark.parametrize("layout", PACKED_LAYOUTS, ids=lambda layout: f"{layout.name}-{layout.first}")
def test_a_packed_layout_is_read_back_bit_by_bit(
    film: Path, views: tuple[np.ndarray, np.ndarray], tmp_path: Path, layout: Layout
) -> None:
    settings = replace(LOSSLESS, layout=layout.name, first=layout.first)
    (output,) = made(film, settings).outputs
    packing = layout.packing
    assert packing is not None and output.stem == layout.names("film")[0]
    assert packing_from_name(output.stem) == packing
    (tmp_path / output.name).symlink_to(output)
    (source,) = list_sources(tmp_path)
    found = [np.stack(each) for each in zip(*(f[1:3] for f in read_stereo_frames(source)), strict=True)]
    wanted = zip(*(unpack(pack(*pair, packing), packing) for pair in zip(*views, strict=True)), strict=True)
    assert source.packing == packing
    for view, kept in zip(found, wanted, strict=True):
        assert np.array_equal(view, np.stack(kept))
    # With another name, the record says it; the metadata only with the tag, and if players need no other.
    for tagged in (True, False)[: 1 + (layout.first == "left")]:
        plain = tmp_path / f"tagged {tagged}.mkv"
        made(film, replace(settings, no_stereo_tag=not tagged), plain)
        assert detect_packing(plain)[0] == packing and "record" in detect_packing(plain)[1]
        metadata = read_stereo_metadata(plain)
        says = tagged and layout.name in ("sbs", "tb")
        assert metadata.axis == (packing_axis(packing) if says else "")
        assert metadata.right_first == (says and layout.first == "right")


@pytest.mark.parametrize(
    ("layout", "height", "width"), [("sbs", 192, 108), ("half-sbs", 160, 384), ("tb", 100, 300)]
)
def test_full_and_half_are_told_apart_whatever_the_shape_and_the_name(
    tmp_path: Path, layout: str, height: int, width: int
) -> None:
    """By the aspect ratio alone portrait film looks like half a view, and scope like a whole one."""
    film = write(tmp_path / "film.mp4", height, width)
    output = made(film, replace(SETTINGS, layout=layout), tmp_path / "made.mp4").output
    assert detect_packing(output)[0] == stated_packing(output) == layout
    with av.open(str(output)) as source, av.open(str(tmp_path / "cut.mp4"), "w") as target:
        target.metadata["comment"] = source.metadata["comment"]
        stream = target.add_stream("libx264", rate=24)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        for frame in source.decode(video=0):
            image = frame.to_ndarray(format="rgb24", width=64, height=64)  # without its side data
            target.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        target.mux(stream.encode(None))
    assert stated_packing(tmp_path / "cut.mp4") is None, "the record of another frame size does not count"


@pytest.mark.parametrize(
    ("name", "settings", "made_name"),
    [
        ("first_half.mp4", {"layout": "tb"}, "first_half_Full_TB"),
        ("second half.mp4", {"first": "right"}, "second half_Full_SBS_RL"),
        ("film.mp4", {"layout": "tb", "first": "right"}, "film_BT"),
        ("film_half-sbs.mp4", {"input_layout": "half-sbs"}, "film_LRF_Full_SBS"),
        ("film_RL.mp4", {"input_layout": "sbs-right-first", "layout": "anaglyph"}, "film_anaglyph"),
    ],
)
def test_names_say_what_is_in_the_film(
    tmp_path: Path, name: str, settings: dict[str, str], made_name: str
) -> None:
    write(tmp_path / name)
    output = made(tmp_path / name, replace(SETTINGS, **settings)).output
    layout = Layout(settings.get("layout", "sbs"), settings.get("first", "left"))
    assert output.stem == made_name
    assert packing_from_name(output.stem) == layout.packing
    assert stated_packing(output) == layout.packing


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_hevc_of_few_frames(tmp_path: Path, frames: int) -> None:
    """Of one or two frames x265 gives packets without decoding times, at random."""
    encoding, rate = Encoding("hevc", 30, "veryfast"), Fraction(24)
    images = moving_images(frames, HEIGHT, WIDTH)
    for _ in range(12):
        path = tmp_path / "film.mp4"
        with FilmWriter(path, WIDTH, HEIGHT, fps=rate, time_base=1 / rate, encoding=encoding) as film:
            for number, image in enumerate(images):
                film.write(image, number)
        assert [float(second) for second in frame_seconds(path)] == [
            pytest.approx(number / 24) for number in range(frames)
        ]
    film_path = tmp_path / "short.mp4"
    write_film(film_path, iter(images), rate)
    assert made(film_path, replace(SETTINGS, codec="hevc")).frames == frames


def test_frames_that_an_encoder_cannot_take_are_refused_before_the_work(film: Path) -> None:
    info = probe(film)
    fast, large = replace(info, fps=Fraction(480)), replace(info, height=5000, width=9000)
    with pytest.raises(UserError, match=r"film\.mp4: av1 cannot encode frames of 128x48 at 480 fps"):
        choose_format(fast, replace(SETTINGS, codec="av1"))
    with pytest.raises(UserError, match=r"film\.mp4: h264 cannot encode frames of 18000x5000"):
        choose_format(large, SETTINGS)


def test_layouts_in_two_files_and_of_one_view_are_read_back(
    film: Path, views: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    folder = film.parent
    right = made(film, replace(LOSSLESS, layout="right"), tmp_path / "film_second.mkv").output
    assert np.array_equal(pictures(right), views[1])
    (tmp_path / "pair_left.mkv").symlink_to(folder / "film_left.mkv")
    (tmp_path / "pair_right.mkv").symlink_to(folder / "film_right.mkv")
    (tmp_path / "film.mp4").symlink_to(film)
    (tmp_path / "sources.csv").write_text(
        "film,packing,split,licence,right\nfilm.mp4,pair,,,film_second.mkv\n"
    )
    for source in list_sources(tmp_path):
        found = [np.stack(each) for each in zip(*(f[1:3] for f in read_stereo_frames(source)), strict=True)]
        assert all(np.array_equal(*pair) for pair in zip(found, views, strict=True)), source.name
    red_cyan = pictures(made(film, replace(LOSSLESS, layout="anaglyph")).output)
    assert np.array_equal(red_cyan, [anaglyph(*pair) for pair in zip(*views, strict=True)])


def test_score_reads_what_convert_writes(tmp_path: Path, secondeye: Run) -> None:
    """A film without a tag in its name, right view first: only its metadata say where the views are."""
    film = write(tmp_path / "film.mp4", 96, 128)
    output = made(film, replace(LOSSLESS, layout="tb", first="right"), tmp_path / "plain.mkv").output
    pair = made(film, replace(LOSSLESS, layout="left-right-files")).outputs
    scores = [
        json.loads(secondeye("score", *films, "--truth", pair[1], "--json").stdout)["scores"]
        for films in ((output, output), pair)
    ]
    assert scores[0] == scores[1]


@pytest.mark.parametrize(
    ("suffix", "packing", "kinds"),
    [
        (".mp4", "sbs", ["STEREO3D"]),
        (".mp4", "tb", ["STEREO3D"]),
        (".mp4", "sbs-right-first", []),  # neither the SEI of x264 nor st3d can say it
        (".mkv", "sbs-right-first", ["STEREO3D"]),
    ],
)
def test_a_tag_says_the_truth_or_nothing(
    film: Path, tmp_path: Path, suffix: str, packing: str, kinds: list[str]
) -> None:
    name, first = packing.removesuffix("-right-first"), "right" if "right" in packing else "left"
    output = made(film, replace(SETTINGS, layout=name, first=first), tmp_path / f"film{suffix}").output
    with av.open(str(output)) as container:
        found = [data.type.name for data in next(container.decode(video=0)).side_data]
    assert sorted({kind for kind in found if kind == "STEREO3D"}) == kinds


@pytest.mark.parametrize(
    ("codec", "bit_depth", "suffix", "tag"),
    [
        ("hevc", 8, ".mp4", "hvc1"),
        ("hevc", 10, ".mov", "hvc1"),
        ("av1", 10, ".mp4", "av01"),
        ("h264", 10, ".mp4", "avc1"),
    ],
)
def test_codecs_and_bit_depths(
    film: Path,
    views: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
    codec: str,
    bit_depth: int,
    suffix: str,
    tag: str,
) -> None:
    settings = replace(SETTINGS, codec=codec, bit_depth=bit_depth, crf=1)
    output = made(film, settings, tmp_path / f"film{suffix}").output
    info = probe(output)
    with av.open(str(output)) as container:
        assert container.streams.video[0].codec_context.codec_tag == tag
    assert (info.bit_depth, info.frames, info.width) == (bit_depth, FRAMES, 2 * WIDTH)
    assert psnr(pictures(output), np.concatenate(views, axis=2)) > 36
    assert detect_packing(output)[0] == "sbs"
    again = made(film, settings, tmp_path / f"again{suffix}").output
    assert again.read_bytes() == output.read_bytes()


def test_ten_bits_hold_a_finer_ramp_than_eight(tmp_path: Path) -> None:
    """Grey g is 64 + 876 g / 255 in 10 bits: all 256 levels differ, and are right to one of 1024."""
    levels = np.arange(256, dtype=np.uint8).repeat(8)  # wider than what a block spreads
    ramp = np.tile(levels[None, :, None], (32, 1, 3))
    found, rate = {}, Fraction(24)
    for bits in (8, 10):
        path, encoding = tmp_path / f"{bits}.mp4", Encoding(crf=0, preset="medium", bit_depth=bits)
        with FilmWriter(path, 2048, 32, fps=rate, time_base=1 / rate, encoding=encoding) as film:
            film.write(ramp, 0)
        with av.open(str(path)) as container:
            plane = memoryview(next(container.decode(video=0)).planes[0])
            found[bits] = np.frombuffer(plane, np.uint8 if bits == 8 else "<u2")[4:2048:8]
    assert abs(found[10].astype(float) - (64 + np.arange(256) * 876 / 255)).max() <= 1
    assert len(set(found[10].tolist())) == 256 > len(set(found[8].tolist()))


@pytest.mark.parametrize(
    ("layout", "size"),
    [("sbs", (32, 76)), ("half-sbs", (32, 40)), ("half-tb", (32, 38)), ("tb", (64, 38)), ("right", (32, 38))],
)
def test_odd_sizes_are_padded_so_that_decoders_take_them(
    tmp_path: Path, layout: str, size: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    film = write(tmp_path / "odd.mp4", 31, 37)
    convert(film, tmp_path / "out.mp4", replace(SETTINGS, layout=layout, crf=1))
    assert "views of 37x31 are padded to" in capsys.readouterr().out
    info = probe(tmp_path / "out.mp4")
    assert (info.height, info.width) == size
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
    if layout == "sbs":
        with av.open(str(tmp_path / "out.mp4")) as container:
            luma = next(container.decode(video=0)).to_ndarray(format="gray").astype(int)
        assert abs(luma[:, 36] - luma[:, 37]).mean() < 1 and abs(luma[30] - luma[31]).mean() < 1


def test_an_exact_size_is_kept_on_request(tmp_path: Path) -> None:
    film = write(tmp_path / "odd.mp4", 31, 37)
    exact = made(film, replace(SETTINGS, exact_size=True)).output
    with av.open(str(exact)) as container:
        context = container.streams.video[0].codec_context
        assert (context.height, context.width, context.pix_fmt) == (31, 74, "yuv444p")
    lossless = made(film, LOSSLESS).output
    assert pictures(lossless).shape[1:3] == (31, 74)
    with pytest.raises(
        UserError, match=r"odd\.mp4: the exact size of 37x31 needs 4:4:4 chroma, which --codec av1"
    ):
        made(film, replace(SETTINGS, exact_size=True, codec="av1"))


@pytest.mark.parametrize(("height", "width"), [(200, 100), (100, 200)])
def test_the_strength_is_a_share_of_the_width_which_is_the_shorter_side_of_portrait_film(
    tmp_path: Path, height: int, width: int
) -> None:
    """10 %, half of it in front of the screen: the near half of the picture moves by 5 % to the left."""
    film = write(tmp_path / "film.mp4", height, width)
    depth = np.zeros((FRAMES, height, width), np.float32)
    depth[:, height // 2 :] = 1
    np.savez(tmp_path / "depth.npz", depth)
    settings = replace(LOSSLESS, layout="left-right-files", strength_percent=10, depth="auto")
    files = made(film, replace(settings, depth_maps=tmp_path / "depth.npz")).outputs
    left, right = map(pictures, files)
    px, rows = width // 20, height // 4
    assert np.array_equal(right[:, -rows:, :-px], left[:, -rows:, px:])
    assert np.array_equal(right[:, :rows, px:], left[:, :rows, :-px])


@pytest.mark.parametrize(
    ("size", "codec", "said"),
    [
        ((1080, 1920), "h264", ""),
        ((2160, 3840), "h264", "7680x2160 exceed level 5.2 of H264, .*; --layout half-sbs fits .3840x2160."),
        ((2160, 3840), "hevc", ""),
        ((4320, 7680), "hevc", "15360x4320 exceed level 6.2 of HEVC, .*; --layout half-sbs fits .7680x4320."),
        ((4320, 7680), "h264", "; --codec hevc --layout half-sbs fits .7680x4320."),
        ((9000, 16000), "av1", "; convert a smaller version of the film"),
    ],
)
def test_frames_beyond_common_levels_are_said_with_what_fits(
    film: Path, size: tuple[int, int], codec: str, said: str
) -> None:
    info = replace(probe(film), height=size[0], width=size[1])
    formatted = replace(choose_format(probe(film), replace(SETTINGS, codec=codec)))
    formatted = replace(formatted, height=size[0], width=2 * size[1])
    lines = list(describe_format(info, formatted, ".mp4"))
    assert len(lines) == bool(said)
    for line in lines:
        assert re.search(said, line), line


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_killed_between_two_files_is_completed(
    film: Path,
    views: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overwrite: bool,
) -> None:
    output, settings = tmp_path / "film.mkv", replace(LOSSLESS, layout="left-right-files")
    left, right = tmp_path / "film_left.mkv", tmp_path / "film_right.mkv"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "publish", interrupt_for(right, checkpoint.publish))
        convert(film, output, settings)
    assert left.exists() and not right.exists()
    with monkeypatch.context() as patch:
        patch.setattr(ShotConverter, "run", interrupt)  # everything is converted already
        assert convert(film, output, settings, overwrite=overwrite).frames == FRAMES
    with pytest.raises(UserError, match=r"film_left\.mkv: already exists"):
        convert(film, output, settings)
    assert right.exists() and [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    assert np.array_equal(pictures(right), views[1])


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--layout", "cross"], f"--layout must be one of {', '.join(LAYOUTS)}, got 'cross'"),
        (["--first", "up"], "--first must be one of left, right, got 'up'"),
        (
            ["--layout", "anaglyph", "--first", "right"],
            "--first right is for layouts with both views in a frame",
        ),
        (["--codec", "vp9"], f"--codec must be one of {', '.join(ENCODERS)}, got 'vp9'"),
        (["--bit-depth", "12"], "--bit-depth must be 8 or 10, got 12"),
        (["--codec", "ffv1", "--bit-depth", "10"], "--codec ffv1 has no --bit-depth 10"),
        (["--codec", "ffv1", "--bit-depth", "10", "--layout", "interleaved"], "ffv1 has no --bit-depth 10"),
        (["--codec", "ffv1", "--crf", "3"], "--crf is not for ffv1, which is lossless"),
        (["--codec", "av1", "--crf", "64"], "--crf of av1 must be 0 (best) to 63, got 64"),
        (
            ["--codec", "ffv1", "--output", "{}/out.mp4"],
            "out.mp4: .mp4 cannot hold ffv1; give --output a name in .mkv",
        ),
        (["--codec", "av1", "--output", "{}/out.mov"], "out.mov: .mov cannot hold av1"),
        (["--codec", "h264_videotoolbox"], "--codec h264_videotoolbox: "),
    ],
)
def test_what_cannot_be_written_is_one_line(
    film: Path, tmp_path: Path, secondeye: Run, options: list[str], error: str
) -> None:
    given = [option.format(tmp_path) for option in options]
    line = one_line(secondeye("convert", film, "--depth", "motion", "--inpainter", "fill", *given))
    assert error in line
    assert not list(tmp_path.iterdir())


def test_hardware_encoders_are_listed_with_why_they_do_not_start(secondeye: Run) -> None:
    assert why_unusable("h264") == why_unusable("hevc") == why_unusable("av1") == why_unusable("ffv1") == ""
    listed = secondeye("doctor").stdout
    (line,) = [line for line in listed.splitlines() if line.startswith("encoders: ")]
    present, missing = line.split("; not here: ")
    for codec in ENCODERS:
        assert (f" {codec}" in present) == (not why_unusable(codec))
        assert (f"{codec} ({why_unusable(codec)})" in missing) == bool(why_unusable(codec))


def test_the_command_line_writes_both_files(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.mp4").symlink_to(film)
    options = ["--depth", "motion", "--inpainter", "fill", "--layout", "left-right-files", "--sidecar"]
    monkeypatch.setattr(sys, "argv", ["secondeye", "convert", str(tmp_path / "a.mp4"), *options])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code in (0, None)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["a.mp4", *(f"a_{side}.mp4{end}" for side in ("left", "right") for end in ("", ".json"))]
    printed = capsys.readouterr().out.splitlines()[-2:]
    assert printed == [
        f"{tmp_path / f'a_{side}.mp4'}: 3 frames, left-right-files" for side in ("left", "right")
    ]
