"""Depth maps in and out: what is written converts to the same film, and maps of other tools are read."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest
from depth_models import write_model
from typer.testing import CliRunner

from secondeye import cli
from secondeye.conversion import convert, depth_film
from secondeye.conversion.bundle import Bundle, settings_from_bundle, write_bundle
from secondeye.conversion.checkpoint import Checkpoint
from secondeye.conversion.depth_maps import open_depth_maps
from secondeye.conversion.depth_record import read_record
from secondeye.conversion.shot_depth import STEPS, ShotDepth
from secondeye.registry import models as registered
from secondeye.registry.champion import ensure_champion
from secondeye.registry.register import VersionFacts
from secondeye.system.errors import UserError
from secondeye.video.probe import probe
from secondeye.video.read import decode_gray
from secondeye.video.write import write_film, write_gray_film

MakeFilm = Callable[..., Path]
FRAMES, HEIGHT, WIDTH = 8, 64, 96


def run(*arguments: str | Path, code: int = 0) -> str:
    """Run the command line; return what it printed, or the error."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    if code and isinstance(result.exception, UserError):
        return str(result.exception)
    assert result.exit_code == code, result.output + str(result.exception)
    return result.output


def packets(film: Path) -> list[bytes]:
    """Return the encoded pictures of a film, without its metadata."""
    with av.open(str(film)) as container:
        return [bytes(packet) for packet in container.demux(video=0)]


@pytest.fixture
def film(make_film: MakeFilm) -> Path:
    return make_film(shots=(5, 3), height=HEIGHT, width=WIDTH, sound=False)


@pytest.fixture
def maps() -> np.ndarray:
    """Return a ramp that is nearest at the bottom and moves, in [0, 1]."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([(y / HEIGHT + (x + t) % WIDTH / WIDTH) / 2 for t in range(FRAMES)]).astype(np.float32)


@pytest.mark.parametrize("name", ["maps", "maps.npz", "maps.mkv"])
def test_a_film_from_written_depth_is_the_film_converted_directly(film: Path, name: str) -> None:
    output = film.with_name(name)
    run("depth", film, "--depth", "motion", "--output", output)
    run("convert", film, "--depth", "motion", "--output", film.with_name("direct.mp4"))
    run("convert", film, "--depth-maps", output, "--output", film.with_name("maps.mp4"))
    assert packets(film.with_name("maps.mp4")) == packets(film.with_name("direct.mp4"))
    record = json.loads((output / "depth.json" if output.is_dir() else Path(f"{output}.json")).read_text())
    assert (record["orientation"], record["frames"], record["depth"]["name"]) == ("near", FRAMES, "motion")
    assert [(shot["start"], shot["stop"]) for shot in record["shots"]] == [(0, FRAMES)] or len(
        record["shots"]
    ) == 2
    assert not list(film.parent.glob(".*")), "no checkpoint is left"
    with av.open(str(film.with_name("maps.mp4"))) as container:
        made = json.loads(container.metadata["comment"])["depth"]
    assert made == {"name": "motion", "licences": "no weights", "maps": name}


def test_written_maps_are_the_normalised_depth_in_16_bits(film: Path) -> None:
    run("depth", film, "--depth", "motion", "--output", film.with_name("maps"))
    run("depth", film, "--depth", "motion", "--output", film.with_name("maps.npz"))
    run("depth", film, "--depth", "motion", "--output", film.with_name("maps.mkv"))
    array = np.load(film.with_name("maps.npz"))["depth"]
    assert array.dtype == np.uint16 and len(array) == FRAMES
    assert array.min() == 0 and array.max() == STEPS
    files = sorted(film.with_name("maps").glob("*.png"))
    images = np.stack([cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files])
    assert images.dtype == np.uint16
    np.testing.assert_array_equal(images, array)
    np.testing.assert_array_equal(np.stack(list(decode_gray(film.with_name("maps.mkv")))), array)


def test_depth_is_read_in_steps_of_16_bits(tmp_path: Path) -> None:
    raw = np.linspace(-3, 5, 4 * 50, dtype=np.float32).reshape(2, 4, 25)
    path = tmp_path / "depth.f32"
    raw.tofile(path)
    depth = ShotDepth(path, 2, 4, 25, -3.0, 5.0, 1.0).read(0, 2).numpy()[:, 0]
    np.testing.assert_allclose(depth, (raw + 3) / 8, atol=0.51 / STEPS)
    np.testing.assert_array_equal(depth, np.rint(depth * STEPS).astype(np.float32) / np.float32(STEPS))
    twice = ShotDepth(path, 2, 4, 25, 0.0, 1.0, 1.0)
    depth.tofile(path)
    np.testing.assert_array_equal(twice.read(0, 2).numpy()[:, 0], depth)


def write_images(folder: Path, maps: np.ndarray, suffix: str = ".png", bits: int = 16) -> Path:
    folder.mkdir()
    for number, depth in enumerate(maps):
        stored = np.rint(depth * (2**bits - 1)).astype(np.uint16 if bits == 16 else np.uint8)
        cv2.imwrite(str(folder / f"frame_{number}{suffix}"), stored)
    return folder


def write_video(path: Path, maps: np.ndarray, pix_fmt: str, fps: Fraction = Fraction(24)) -> Path:
    """Write gray video in limited range, as other tools do."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=fps)
        stream.height, stream.width, stream.pix_fmt = *maps.shape[1:], pix_fmt
        for number, depth in enumerate(maps):
            frame = av.VideoFrame.from_ndarray(np.rint(depth * 255).astype(np.uint8), format="gray")
            frame = frame.reformat(format=pix_fmt, src_color_range="JPEG", dst_color_range="MPEG")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_npz(path: Path, maps: np.ndarray) -> Path:
    np.savez(path, depth=maps)
    return path


Write = Callable[[Path, np.ndarray], Path]
OTHERS: dict[str, tuple[Write, float]] = {
    "png of 16 bits": (lambda folder, maps: write_images(folder / "maps", maps), 1 / 65535),
    "png of 8 bits": (lambda folder, maps: write_images(folder / "maps", maps, bits=8), 1 / 255),
    "tiff": (lambda folder, maps: write_images(folder / "maps", maps, ".tif"), 1 / 65535),
    "npz of floats": (lambda folder, maps: write_npz(folder / "maps.npz", maps), 1e-7),
    "npz of one channel": (lambda folder, maps: write_npz(folder / "maps.npz", maps[:, None]), 1e-7),
    "video of 8 bits": (lambda folder, maps: write_video(folder / "m.mkv", maps, "yuv420p"), 2 / 219),
    "video of 10 bits": (lambda folder, maps: write_video(folder / "m.mkv", maps, "yuv420p10le"), 1.5 / 255),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_maps_of_other_tools_are_read(film: Path, maps: np.ndarray, kind: str) -> None:
    write, tolerance = OTHERS[kind]
    opened = open_depth_maps(write(film.parent, maps), None, probe(film))
    assert (opened.height, opened.width, opened.normalised) == (HEIGHT, WIDTH, False)
    for start in (0, 5):
        read = np.stack(list(opened.read_from(start)))
        np.testing.assert_allclose(read, maps[start:], atol=tolerance)


def test_frames_are_in_the_order_of_their_numbers(film: Path, maps: np.ndarray) -> None:
    twelve = np.concatenate([maps, maps[:4]])
    opened = open_depth_maps(write_images(film.with_name("maps"), twelve), None, probe(film))
    np.testing.assert_allclose(np.stack(list(opened.read_from(0))), twelve, atol=1 / STEPS)


@pytest.mark.parametrize("stored", ["integers", "distances"])
def test_far_maps_are_turned(film: Path, maps: np.ndarray, stored: str) -> None:
    near = write_npz(film.with_name("near.npz"), np.rint((0.2 + 0.8 * maps) * STEPS).astype(np.uint16))
    if stored == "integers":
        far = write_npz(film.with_name("far.npz"), STEPS - np.load(near)["depth"])
    else:
        metres = 3 / (np.load(near)["depth"].astype(np.float64) / STEPS)
        far = write_npz(film.with_name("far.npz"), metres.astype(np.float32))
    run("convert", film, "--depth-maps", near, "--output", film.with_name("a.mkv"), "--crf", "0")
    options = ["--depth-orientation", "far", "--crf", "0"]
    run("convert", film, "--depth-maps", far, "--output", film.with_name("b.mkv"), *options)
    first, second = (np.stack(list(decode_gray(film.with_name(name)))) for name in ("a.mkv", "b.mkv"))
    assert np.abs(first.astype(int) - second).mean() < 0.002 * 65535
    run("convert", film, "--depth-maps", far, "--output", film.with_name("c.mkv"), "--crf", "0")
    third = np.stack(list(decode_gray(film.with_name("c.mkv"))))
    assert np.abs(first.astype(int) - third).mean() > 0.01 * 65535, "the other way it is another film"


def test_maps_of_another_size_are_resized(film: Path, maps: np.ndarray) -> None:
    small = np.stack([cv2.resize(depth, (48, 32), interpolation=cv2.INTER_AREA) for depth in maps])
    large = np.stack([cv2.resize(depth, (192, 128)) for depth in maps])
    made = []
    for name, depth in (("full", maps), ("small", small), ("large", large)):
        path, output = write_npz(film.with_name(f"{name}.npz"), depth), film.with_name(f"{name}.mkv")
        run("convert", film, "--depth-maps", path, "--output", output, "--crf", "0")
        made.append(np.stack(list(decode_gray(output))).astype(int))
    for other in made[1:]:
        assert np.abs(made[0] - other).mean() < 0.02 * 65535


BAD: dict[str, tuple[Callable[[Path, np.ndarray], Any], list[str], str]] = {
    "missing": (lambda f, m: None, [], "maps.npz: no such file or folder"),
    "empty folder": (lambda f, m: (f / "maps.npz").mkdir(), [], "contains no depth maps"),
    "text": (lambda f, m: (f / "maps.npz").write_text("no"), [], "cannot be read as an array"),
    "encrypted": (lambda f, m: encrypt(write_npz(f / "maps.npz", m)), [], "cannot be read as an array"),
    "damaged zip": (
        lambda f, m: damage(write_npz(f / "maps.npz", m), 0.5),
        [],
        r"maps\.npz: cannot be read \(.*CRC.*\); write the maps again",
    ),
    "damaged deflate": (
        lambda f, m: (np.savez_compressed(f / "maps.npz", depth=m), damage(f / "maps.npz", 0.5)),
        [],
        r"maps\.npz: cannot be read \(.*\); write the maps again",
    ),
    "long integers": (
        lambda f, m: write_npz(f / "maps.npz", m.astype(np.int64)),
        [],
        "int64 values; depth maps must be 8 or 16 bits, or floats",
    ),
    "two arrays": (
        lambda f, m: np.savez(f / "maps.npz", a=m, b=m),
        [],
        "contains a.npy, b.npy; the array must be called depth",
    ),
    "wrong shape": (lambda f, m: write_npz(f / "maps.npz", m[0]), [], r"the array is \[64, 96\]"),
    "objects": (
        lambda f, m: np.savez(f / "maps.npz", depth=np.array([None])),
        [],
        "must be numbers in C order",
    ),
    "wrong length": (lambda f, m: write_npz(f / "maps.npz", m[:5]), [], "5 maps, but the film has 8 frames"),
    "wrong aspect": (lambda f, m: write_npz(f / "maps.npz", m[:, :32]), [], "the maps are 96x32, the film"),
    "NaN": (
        lambda f, m: write_npz(f / "maps.npz", np.where(np.arange(FRAMES)[:, None, None] == 6, np.nan, m)),
        [],
        "the map of frame 6 contains NaN or infinity",
    ),
    "no distances": (
        lambda f, m: write_npz(f / "maps.npz", m),
        ["--depth-orientation", "far"],
        "the map of frame 0 contains distances that are not above 0",
    ),
    "tiny distances": (
        lambda f, m: write_npz(f / "maps.npz", np.where(m > 0.5, np.float32(1e-40), np.float32(1))),
        ["--depth-orientation", "far"],
        "the map of frame 0 contains distances too small to invert",
    ),
    "too large for float32": (
        lambda f, m: write_npz(f / "maps.npz", m.astype(np.float64) * 1e300),
        [],
        "the map of frame 0 contains NaN or infinity",
    ),
    "no orientation": (
        lambda f, m: write_npz(f / "maps.npz", m),
        ["--depth-orientation", "left"],
        "--depth-orientation must be near or far, got 'left'",
    ),
    "an estimator too": (
        lambda f, m: write_npz(f / "maps.npz", m),
        ["--depth", "motion"],
        "--depth-maps replace the depth estimator; leave out --depth motion",
    ),
    "contradiction": (
        lambda f, m: (
            write_npz(f / "maps.npz", m),
            (f / "maps.npz.json").write_text('{"orientation": "near"}'),
        ),
        ["--depth-orientation", "far"],
        "larger values are near, but --depth-orientation is far",
    ),
    "damaged record": (
        lambda f, m: (write_npz(f / "maps.npz", m), (f / "maps.npz.json").write_text("[")),
        [],
        r"maps.npz.json: cannot be read \(",
    ),
}


def damage(path: Path, where: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * where)] ^= 255
    path.write_bytes(content)


def encrypt(path: Path) -> None:
    """Set the flag of encryption in an archive's header of a file, and in its directory."""
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + offset] |= 1
    path.write_bytes(content)


@pytest.mark.parametrize("case", BAD)
def test_maps_that_do_not_fit_are_one_line(film: Path, maps: np.ndarray, case: str) -> None:
    write, options, reason = BAD[case]
    write(film.parent, maps)
    output = film.with_name("out.mp4")
    with pytest.raises(UserError, match=reason) as error:
        raise UserError(
            run(
                "convert",
                film,
                "--depth-maps",
                film.with_name("maps.npz"),
                "--output",
                output,
                *options,
                code=1,
            )
        )
    assert "\n" not in str(error.value) and not output.exists()


def test_video_of_another_rate_is_one_line(film: Path, maps: np.ndarray) -> None:
    path = write_video(film.with_name("m.mkv"), maps, "gray", Fraction(30))
    with pytest.raises(UserError, match=r"30\.000 frames per second, the film has 24\.000"):
        open_depth_maps(path, None, probe(film))


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".png"])
def test_no_damage_to_maps_is_a_traceback(film: Path, maps: np.ndarray, suffix: str) -> None:
    """Whatever byte is wrong: maps are read, or refused in one line."""
    path = film.with_name(f"maps{suffix}")
    if suffix == ".npz":
        np.savez_compressed(path, depth=np.rint(maps[:, ::8, ::8] * STEPS).astype(np.uint16))
    elif suffix == ".npy":
        np.save(path, maps[:, ::8, ::8])
    else:
        path = write_images(film.with_name("maps"), maps[:2, ::8, ::8]) / "frame_0.png"
    whole, draw, refused, info = path.read_bytes(), np.random.default_rng(0), 0, probe(film)
    for number in range(100):
        content = bytearray(whole)
        position = number if number < 80 else draw.integers(len(content))
        content[position] = draw.integers(256)
        path.write_bytes(content if number % 5 else content[: draw.integers(len(content))])
        try:
            opened = open_depth_maps(path.parent if suffix == ".png" else path, None, info)
            for depth in islice(opened.read_from(0), FRAMES):
                assert depth.dtype == np.float32 and depth.ndim == 2
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 20


def test_arrays_of_any_byte_order_and_of_one_frame_are_read(film: Path, maps: np.ndarray) -> None:
    steps = np.rint(maps * STEPS)
    for stored in (steps.astype(">u2"), steps.astype("<u2"), (steps / STEPS).astype(">f4")):
        opened = open_depth_maps(write_npz(film.with_name("maps.npz"), stored), None, probe(film))
        np.testing.assert_allclose(np.stack(list(opened.read_from(0))), steps / STEPS, atol=1e-6)
    for stored in (maps[None, :1], maps[:1, ..., None]):
        opened = open_depth_maps(write_npz(film.with_name("maps.npz"), stored), None, probe(film))
        assert (opened.frames, opened.height, opened.width) == (1, HEIGHT, WIDTH)
        np.testing.assert_array_equal(next(opened.read_from(0)), maps[0])


SHOT = {"start": 0, "stop": 5, "confidence": 0.5}


@pytest.mark.parametrize(
    "wrong",
    [
        {"shots": [SHOT | {"start": "0"}]},
        {"shots": [SHOT | {"stop": 5.0}]},
        {"shots": [SHOT | {"stop": 0}]},
        {"shots": [SHOT | {"confidence": 1.5}]},
        {"shots": [SHOT | {"confidence": "0.5"}]},
        {"shots": [SHOT | {"confidence": True}]},
        {"shots": [SHOT | {"confidence": float("nan")}]},
        {"shots": [5]},
        {"shots": None},
        {"shots": SHOT},
        {"orientation": "left"},
        {"depth": "motion"},
    ],
)
def test_records_are_checked(tmp_path: Path, wrong: dict[str, Any]) -> None:
    maps, record = tmp_path / "maps.npz", tmp_path / "maps.npz.json"
    record.write_text(json.dumps({"orientation": "near", "shots": [SHOT | {"confidence": 1}]}))
    (shot,) = read_record(maps)["shots"]
    assert shot == SHOT | {"confidence": 1.0} and type(shot["confidence"]) is float
    record.write_text(json.dumps(wrong))
    with pytest.raises(UserError, match=r"maps\.npz\.json: cannot be read") as error:
        read_record(maps)
    assert "\n" not in str(error.value)


def test_another_record_beside_the_maps_is_another_conversion(film: Path, maps: np.ndarray) -> None:
    path = write_npz(film.with_name("maps.npz"), maps)
    settings = replace(settings_from_bundle(None), depth_maps=path)
    found = [settings.describe()["depth_maps"]]
    for text in ("{}", '{"orientation": "far"}'):
        film.with_name("maps.npz.json").write_text(text)
        found.append(settings.describe()["depth_maps"])
    assert len(set(found)) == 3


def test_colour_images_are_no_depth(film: Path) -> None:
    folder = film.with_name("maps")
    folder.mkdir()
    cv2.imwrite(str(folder / "0.png"), np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3)))
    with pytest.raises(UserError, match=r"0\.png: is a colour image; depth maps must be gray"):
        open_depth_maps(folder, None, probe(film))


def test_depth_that_was_interrupted_continues_to_the_same_bytes(
    film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = [film.with_name(name) for name in ("whole.npz", "broken.npz")]
    run("depth", film, "--depth", "motion", "--output", outputs[0])
    write, calls = depth_film._write, []

    def fail(*arguments: Any) -> None:
        calls.append(len(list(outputs[1].with_name(".broken.npz.unfinished").glob("depth_*.json"))))
        raise KeyboardInterrupt

    monkeypatch.setattr(depth_film, "_write", fail)
    assert "interrupted" in run("depth", film, "--depth", "motion", "--output", outputs[1], code=130)
    monkeypatch.setattr(depth_film, "_write", write)
    monkeypatch.setattr(depth_film, "load_estimator", lambda settings: _never)
    run("depth", film, "--depth", "motion", "--output", outputs[1])
    assert calls[0] > 0 and outputs[0].read_bytes() == outputs[1].read_bytes()


def _never(*arguments: Any) -> Any:
    raise AssertionError("all shots were finished")


def test_depth_overwrites_nothing_without_being_told(film: Path) -> None:
    folder = film.with_name("maps")
    run("depth", film, "--depth", "motion", "--output", folder)
    with pytest.raises(UserError, match="already exists"):
        raise UserError(run("depth", film, "--depth", "motion", "--output", folder, code=1))
    run("depth", film, "--depth", "motion", "--output", folder, "--overwrite")
    (other := film.with_name("other")).mkdir()
    (other / "keep.txt").write_text("mine")
    for given, reason in (
        (other, "holds other files"),
        (film.with_name("a.mp4"), r"must end in \.npz or \.mkv"),
        (film.with_name("no") / "maps", "folder does not exist"),
    ):
        with pytest.raises(UserError, match=reason):
            raise UserError(run("depth", film, "--output", given, "--overwrite", code=1))
    assert (other / "keep.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["maps", "maps.npz", "maps.mkv"])
def test_a_kill_after_the_maps_are_there_is_finished_by_the_next_call(
    film: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    output, unfinished = film.with_name(name), film.with_name(f".{name}.unfinished")
    for options in ([], ["--overwrite"]):
        with monkeypatch.context() as patch:
            patch.setattr(Checkpoint, "remove", interrupt)
            run("depth", film, "--depth", "motion", "--output", output, *options, code=130)
        assert output.exists() and unfinished.exists()
        assert "already exists" in run("depth", film, "--depth", "motion", "--output", output, code=1)
        assert output.exists() and not unfinished.exists()


def interrupt(*arguments: Any) -> None:
    raise KeyboardInterrupt


def test_a_kill_while_a_folder_is_replaced_is_continued(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = film.with_name("maps")
    run("depth", film, "--depth", "motion", "--output", folder)
    whole, rename = {each.name: each.read_bytes() for each in folder.iterdir()}, Path.rename

    def fail(path: Path, target: Path) -> Path:
        if target == folder:
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        run("depth", film, "--depth", "motion", "--output", folder, "--overwrite", code=130)
    assert not folder.exists()
    run("depth", film, "--depth", "motion", "--output", folder)
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == whole
    assert not list(film.parent.glob(".*"))


def test_depth_needs_six_bytes_per_pixel_and_less_to_continue(
    film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = film.with_name("maps.npz")
    run("depth", film, "--depth", "motion", "--output", film.with_name("size.npz"))
    height, width = np.load(film.with_name("size.npz"))["depth"].shape[1:]
    pixels = FRAMES * height * width
    monkeypatch.setattr(convert, "max_map_pixels", lambda depth, *frame: height * width)

    def depth_with(free: int, code: int) -> str:
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
        return run("depth", film, "--depth", "motion", "--output", output, code=code)

    assert "free disk space" in depth_with(6 * pixels - 1, 1) and not output.exists()
    with monkeypatch.context() as patch:
        patch.setattr(depth_film, "_write", interrupt)
        depth_with(6 * pixels, 130)
    assert "free disk space" in depth_with(2 * pixels - 1, 1)
    depth_with(2 * pixels, 0)
    assert output.read_bytes() == film.with_name("size.npz").read_bytes()


def test_maps_of_a_pillarboxed_film_are_as_fine_as_its_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A map of the network covers a third of the frame; what is written covers all of it."""
    film, output = tmp_path / "film.mp4", tmp_path / "maps.npz"
    write_film(film, pillarboxed(12, 72, 192, 64), Fraction(24))
    run("depth", film, "--depth", "motion", "--output", output)
    stored_pixels = np.load(output)["depth"].size
    map_pixels = stored_pixels // 3
    monkeypatch.setattr(convert, "max_map_pixels", lambda depth, *frame: map_pixels // 12)
    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: SimpleNamespace(free=4 * map_pixels + 2 * stored_pixels - 1)
    )
    assert "free disk space" in run(
        "depth", film, "--depth", "motion", "--output", output, "--overwrite", code=1
    )
    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: SimpleNamespace(free=4 * map_pixels + 2 * stored_pixels)
    )
    run("depth", film, "--depth", "motion", "--output", output, "--overwrite")


def pillarboxed(
    frames: int, height: int, width: int, picture: int
) -> Iterator[np.ndarray]:  # uint8 [H, W, 3]
    """Yield a picture that moves, in the middle third of black frames."""
    texture = np.random.default_rng(0).integers(60, 255, (height, picture + 2 * frames, 3), np.uint8)
    start = (width - picture) // 2
    for number in range(frames):
        image = np.zeros((height, width, 3), np.uint8)
        image[:, start : start + picture] = texture[:, 2 * number : 2 * number + picture]
        yield image


def test_overwrite_deletes_only_what_depth_wrote(film: Path) -> None:
    folder = film.with_name("maps")
    run("depth", film, "--depth", "motion", "--output", folder)
    for name in ("mine.png", "00000000.txt", "0000000000.png"):
        (folder / name).write_text("mine")
        refusal = run("depth", film, "--depth", "motion", "--output", folder, "--overwrite", code=1)
        assert "holds other files" in refusal
        assert (folder / name).read_text() == "mine"
        (folder / name).unlink()
    (folder / "00000099.png").write_bytes(b"")  # of a longer film
    run("depth", film, "--depth", "motion", "--output", folder, "--overwrite")
    assert len(list(folder.iterdir())) == FRAMES + 1


@pytest.mark.parametrize("text", ["my notes", '{"my": "notes"}', "[]"])
def test_a_file_beside_the_maps_is_not_overwritten(film: Path, text: str) -> None:
    output, record = film.with_name("maps.npz"), film.with_name("maps.npz.json")
    record.write_text(text)
    assert str(record) in run("depth", film, "--depth", "motion", "--output", output, code=1)
    assert record.read_text() == text and not output.exists()
    run("depth", film, "--depth", "motion", "--output", output, "--overwrite")
    assert json.loads(record.read_text())["orientation"] == "near"
    output.unlink()
    run("depth", film, "--depth", "motion", "--output", output)


def test_a_network_that_cannot_be_loaded_is_found_before_the_film_is_read(
    film: Path, decoded: list[int]
) -> None:
    network = film.with_name("own.pt2")
    network.write_text("no network")
    network.with_name("own.pt2.json").write_text('{"larger_is": "nearer"}')
    options = ["--depth", f"exported:{network}", "--output", film.with_name("maps.npz")]
    assert "own.pt2: not a plain file" in run("depth", film, *options, code=1)
    assert not decoded


def test_depth_says_nothing_of_inpainting(film: Path) -> None:
    for number, given in enumerate(([], ["--offload"])):
        options = ["--depth", "motion", *given, "--output", film.with_name(f"{number}.npz")]
        said = run("depth", film, *options)
        assert "depth: motion" in said and "inpaint" not in said
        assert ("warning: --offload" in said) == bool(given)


def test_a_registered_model_gives_the_depth_of_its_own_code(
    film: Path, with_registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = write_model(with_registry / "weights", "relative")
    bundle = write_bundle(with_registry / "bundle", Bundle("hf", "fill", 3.0, 0.5), weights, None)
    ensure_champion(bundle, VersionFacts({}, ""))
    uri, maps = "models:/secondeye@champion", film.with_name("maps.npz")
    given = ["depth", str(film), "--model", uri, "--output", str(maps)]
    monkeypatch.setattr("sys.argv", ["secondeye", *given])
    version = registered.fetch_version(uri)
    started: list[Any] = []

    def replace_process(program: str, command: list[str], environment: dict[str, str]) -> None:
        started.append(environment["PYTHONPATH"])
        run(*command[command.index("depth") :])
        raise SystemExit(0)

    monkeypatch.setattr("os.execve", replace_process)
    run(*given)
    assert started[0].startswith(str(with_registry / ".mlflow" / "models" / "code"))
    assert len(np.load(maps)["depth"]) == FRAMES
    made_by = read_record(maps)["depth"]
    assert made_by["name"] == "hf:depth" and made_by["licences"] == "apache-2.0"
    code = version.folder / "code" / "secondeye"
    (code / "conversion" / "depth_film.py").unlink()  # as in a version older than the command
    refusal = run(*given, code=1)
    assert f"give --model {version.bundle}" in refusal and "\n" not in refusal


def test_gray_film_is_lossless_and_repeatable(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 65536, (3, 30, 50)).astype(np.uint16)
    for name in ("a.mkv", "b.mkv"):
        write_gray_film(tmp_path / name, iter(frames), Fraction(24000, 1001))
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()
    np.testing.assert_array_equal(np.stack(list(decode_gray(tmp_path / "a.mkv"))), frames)
    assert probe(tmp_path / "a.mkv").fps == Fraction(24000, 1001)
