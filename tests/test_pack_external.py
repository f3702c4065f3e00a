"""From the left views of data/raw to data/external: what another converter returns is checked and filed."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from conftest import moving_images
from test_cli import Run, one_line, secondeye

from secondeye.film.packing import pack, unpack
from secondeye.video.probe import probe
from secondeye.video.read import decode_film
from secondeye.video.write import write_film, write_lossless_film

__all__ = ["secondeye"]  # a fixture

FRAMES, HEIGHT, WIDTH, FPS = 20, 64, 96, Fraction(25)


def frames_of(path: Path) -> np.ndarray:  # uint8 [T, H, W, 3]
    return np.stack([frame.rgb for frame in decode_film(path)])


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secondeye: Run) -> np.ndarray:
    """Make a project with one stereo film, and return its left view as it was exported to out/candle.mp4."""
    monkeypatch.chdir(tmp_path)
    Path("data/raw").mkdir(parents=True)
    views = moving_images(FRAMES, HEIGHT, WIDTH, 1), moving_images(FRAMES, HEIGHT, WIDTH, 2)
    packed = (pack(*pair, "sbs") for pair in zip(*views, strict=True))
    write_lossless_film(Path("data/raw/candle_sbs.mkv"), packed, FPS, Fraction(1))
    done = secondeye("data", "left", "out", "candle")
    assert done.returncode == 0 and done.stdout == "out/candle.mp4\n", done.stderr
    exported = frames_of(Path("out/candle.mp4"))
    assert np.abs(exported.astype(int) - views[0]).mean() < 3 and probe(Path("out/candle.mp4")).fps == FPS
    return exported


def service(left: np.ndarray, packing: str, lead: int = 0) -> list[np.ndarray]:
    """Return what a service makes of a left view: a shifted right view, packed, perhaps after a logo."""
    images = [pack(image, np.roll(image, -4, 1), packing) for image in left]
    return [np.full_like(images[0], 200)] * lead + images


def write(name: str, images: list[np.ndarray], fps: Fraction = FPS) -> str:
    write_film(Path(name), iter(images), fps, crf=4)
    return name


@pytest.mark.slow(seconds=3)
@pytest.mark.parametrize(
    ("name", "packing", "options"),
    [
        ("candle_sbs.mp4", "sbs", ()),
        ("candle.mp4", "half-sbs", ()),
        ("candle.mp4", "tb", ()),
        ("result 7.mp4", "sbs-right-first", ("--original", "candle", "--packing", "sbs-right-first")),
    ],
)
def test_the_right_view_is_filed_bit_by_bit(
    left: np.ndarray, secondeye: Run, name: str, packing: str, options: tuple[str, ...]
) -> None:
    film = write(name, service(left, packing))
    done = secondeye("data", "external", film, "--method", "owl", *options)
    assert done.returncode == 0 and done.stdout.startswith("data/external/owl/candle.mkv: right view, 0."), (
        done.stderr
    )
    made = Path("data/external/owl/candle.mkv")
    wanted = np.stack([unpack(image, packing)[1] for image in frames_of(Path(film))])
    assert np.array_equal(frames_of(made), wanted) and probe(made).fps == FPS
    assert "exists already" in one_line(secondeye("data", "external", film, "--method", "owl", *options))


def test_a_lead_is_left_out_only_when_asked_for(left: np.ndarray, secondeye: Run) -> None:
    film = write("candle_sbs.mp4", service(left, "sbs", lead=3))
    command = ("data", "external", film, "--method", "owl")
    assert "its frame 3 is frame 0 of candle_sbs.mkv; pack it with --skip-frames 3" in one_line(
        secondeye(*command)
    )
    assert not Path("data/external").exists()
    assert secondeye(*command, "--skip-frames", "3").returncode == 0
    wanted = np.stack([unpack(image, "sbs")[1] for image in frames_of(Path(film))[3:]])
    assert np.array_equal(frames_of(Path("data/external/owl/candle.mkv")), wanted)


def test_each_problem_is_one_line_and_nothing_is_written(left: np.ndarray, secondeye: Run) -> None:
    def problem(name: str, images: list[np.ndarray], fps: Fraction = FPS, *options: str) -> str:
        return one_line(secondeye("data", "external", write(name, images, fps), "--method", "owl", *options))

    good = service(left, "sbs")
    assert "has 18 frames, candle_sbs.mkv has 20" in problem("candle_sbs.mp4", good[:-2])
    assert "its frame 0 is frame 2 of candle_sbs.mkv" in problem("candle_sbs.mp4", good[2:])
    assert "has 30.000 frames a second" in problem("candle_sbs.mp4", good, Fraction(30))
    assert "the aspect of 96x32 px differs" in problem("candle_sbs.mp4", [image[:32] for image in good])
    swapped = service(left, "sbs-right-first")
    assert "its eyes are swapped; use --packing sbs-right-first" in problem("candle_sbs.mp4", swapped)
    assert "no film in data/raw is called kandle" in problem("kandle_sbs.mp4", good)
    assert "--packing must be" in problem("candle_sbs.mp4", good, FPS, "--packing", "cross")
    right = [np.roll(image, -4, 1) for image in left]
    option = ("--packing", "right")

    def alone(images: list[np.ndarray]) -> str:
        return problem("candle.mp4", images, FPS, *option)

    assert "is the left view of candle_sbs.mkv, as it was uploaded" in alone(list(left))
    for wrong in (
        [image[:, ::-1] for image in right],
        [np.zeros_like(image) for image in right],
    ):
        assert "does not show what candle_sbs.mkv shows" in alone(wrong)
    assert "its frame 10 repeats the one before" in alone([*right[:10], *right[9:-1]])
    high = service(left, "tb")
    slipped = problem("candle_tb.mp4", [*high[:10], *high[9:-1]])
    assert "from about frame 12 on, it shows frames of candle_sbs.mkv 1 too late" in slipped
    other = service(moving_images(FRAMES, HEIGHT, WIDTH, 3), "tb")
    assert "does not show what candle_sbs.mkv shows" in problem("candle_tb.mp4", other)
    write_lossless_film(Path("cut.mkv"), iter(good), FPS, Fraction(1))
    Path("candle_sbs.mkv").write_bytes(Path("cut.mkv").read_bytes()[: Path("cut.mkv").stat().st_size // 2])
    damaged = secondeye("data", "external", "candle_sbs.mkv", "--method", "owl")
    assert "is damaged: it has only" in one_line(damaged)
    assert "--method 'a.dvc'" in one_line(secondeye("data", "external", "candle.mp4", "--method", "a.dvc"))
    assert "--method 'a/b'" in one_line(secondeye("data", "external", "candle_sbs.mp4", "--method", "a/b"))
    both = secondeye("data", "external", "candle_sbs.mp4", "kandle_sbs.mp4", "missing.mp4", "--method", "owl")
    assert both.returncode == 1 and len(both.stderr.splitlines()) == 2
    assert not Path("data/external").exists()


def test_a_right_view_alone_is_filed_and_says_that_its_time_is_unclear(
    left: np.ndarray, secondeye: Run
) -> None:
    film = write(
        "candle.mp4", [np.roll(image, -4, 1) for image in left]
    )  # a pan: late, or another convergence
    done = secondeye("data", "external", film, "--method", "owl", "--packing", "right")
    assert (
        done.returncode == 0 and "motion does not show whether frames are early or late by one" in done.stderr
    )
    assert np.array_equal(frames_of(Path("data/external/owl/candle.mkv")), frames_of(Path(film)))


def test_a_film_without_depth_and_unknown_names_are_reported(left: np.ndarray, secondeye: Run) -> None:
    film = write("candle_sbs.mp4", [pack(image, image, "sbs") for image in left])
    done = secondeye("data", "external", film, "--method", "owl")
    assert done.returncode == 0 and "both eyes are the same; it has no depth" in done.stderr
    assert "kandle: no film of data/raw is called that" in one_line(
        secondeye("data", "left", "out", "kandle")
    )
    assert "out/candle.mp4: exists already" in one_line(secondeye("data", "left", "out"))
