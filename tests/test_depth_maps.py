"""Depth maps in and out: what is written converts to the same film, and maps of other tools are read."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from secondeye import cli
from secondeye.conversion import depth_film
from secondeye.conversion.depth_maps import open_depth_maps
from secondeye.conversion.shot_depth import STEPS, ShotDepth
from secondeye.system.errors import UserError
from secondeye.video.probe import probe
from secondeye.video.read import decode_gray
from secondeye.video.write import write_gray_film

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


def test_gray_film_is_lossless_and_repeatable(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 65536, (3, 30, 50)).astype(np.uint16)
    for name in ("a.mkv", "b.mkv"):
        write_gray_film(tmp_path / name, iter(frames), Fraction(24000, 1001))
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()
    np.testing.assert_array_equal(np.stack(list(decode_gray(tmp_path / "a.mkv"))), frames)
    assert probe(tmp_path / "a.mkv").fps == Fraction(24000, 1001)
