"""Monocular films as training data of the depth student: which runs are taken, and how they are drawn."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from released_lite import write_package
from small_dataset import write_rows, write_small_dataset
from test_train_depth import draw_sample, make_shot, settings

from secondeye.dataset.schema import SyntheticShot
from secondeye.depth.student import load_student_network
from secondeye.metrics.depth import rank_correlation
from secondeye.stages import train_depth
from secondeye.training import mono_depth
from secondeye.training.depth import DrawSample
from secondeye.training.mono_depth import MonoDepthRun, prepare_mono_depth
from secondeye.video.write import write_film

pytestmark = pytest.mark.usefixtures("one_thread", "short_runs")
HEIGHT, WIDTH, FRAMES = 96, 160, 10


@pytest.fixture
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mono_depth, "RUN_FRAMES", FRAMES)
    monkeypatch.setattr(mono_depth, "LONG_SIDE_PX", WIDTH)


def write_travel(path: Path, speed: int) -> Path:
    """Write a film of a camera that travels past posts on a lawn; the speed is that of the far wood, px."""
    rng = np.random.default_rng(0)
    far, near, post = (
        np.kron(rng.integers(30, 226, (HEIGHT // 4, 100, 3)), np.ones((4, 4, 1))) for _ in range(3)
    )
    images = []
    for t in range(FRAMES):
        image = far[:, speed * t :][:, :WIDTH].copy()
        image[HEIGHT // 2 :] = near[HEIGHT // 2 :, 3 * speed * t :][:, :WIDTH]
        for x in range(-WIDTH, 3 * WIDTH, 80):
            start, stop = (max(0, min(WIDTH, x - 4 * speed * t + side)) for side in (0, 32))
            image[HEIGHT // 4 :, start:stop] = post[HEIGHT // 4 :, start - x + 4 * speed * t :][
                :, : stop - start
            ]
        images.append(image.astype(np.uint8))
    write_film(path, iter(images), Fraction(24))
    return path


def test_only_films_with_parallax_teach(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    films = [write_travel(tmp_path / f"{speed}.mp4", speed) for speed in (0, 1)]
    runs = prepare_mono_depth(films, tmp_path / "mono", settings())
    assert [(run.film, run.frames, run.number) for run in runs] == [("1.mp4", FRAMES, 0)]
    assert runs[0].confidence >= mono_depth.MIN_CONFIDENCE and runs[0].visits >= 5
    assert "0.mp4: depth by motion in 0 of 1 run\n" in capsys.readouterr().err
    frames = runs[0].read([8, 9])
    assert frames.left.shape == (2, 3, 32, 64) and frames.disparity.shape == (2, 1, 32, 64)
    rows = torch.linspace(0, 1, 32).view(1, 1, 32, 1).expand(2, 1, 32, 64)
    assert rank_correlation(frames.disparity, rows, frames.valid) > 0.5, "the lawn is near"
    assert prepare_mono_depth(films, tmp_path / "mono", settings()) == runs and not capsys.readouterr().err


def test_monocular_samples_have_no_motion_cues_and_their_share(tmp_path: Path) -> None:
    """They come in proportion to their confidence; the shots come as without them."""
    (run,) = prepare_mono_depth([write_travel(tmp_path / "film.mp4", 1)], tmp_path / "mono", settings())
    shots, of = [make_shot(0)], settings(mono_share=0.25, dropout=0.0)
    draw = DrawSample(shots, of, [run])
    for number in range(8):
        inputs, *_ = draw(number, np.random.default_rng(0))
        assert bool(inputs[:, 5:8].any()) == (number % 4 != 3)
    assert all(
        torch.equal(*planes)
        for planes in zip(
            draw(0, np.random.default_rng(0)), draw_sample(shots, of, np.random.default_rng(0)), strict=True
        )
    )


@pytest.mark.slow(seconds=5)
def test_the_stage_trains_from_imagenet_weights_on_monocular_films(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_small_dataset(tmp_path / "data")
    write_rows(data, {SyntheticShot: []})
    (data / "raw").mkdir()
    write_travel(data / "raw" / "film.mp4", 1)
    (data / "raw" / "sources.csv").write_text("film,packing,split,licence\nfilm.mp4,mono,train,CC-BY-3.0\n")
    write_package(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    read = 0
    read_run = MonoDepthRun.read

    def count(self: MonoDepthRun, frames: list[int]) -> object:
        nonlocal read
        read += 1
        return read_run(self, frames)

    monkeypatch.setattr(MonoDepthRun, "read", count)
    of = settings(steps=2, mono_share=0.5, initial_weights="imagenet")

    train_depth.run(data, tmp_path / "out", tmp_path / "runs", train_depth=of)
    assert read == 2, "half of two batches of two"
    assert load_student_network(tmp_path / "out").encoder == "efficientnet-lite0"
    tags = json.loads((tmp_path / "out" / "run" / "run.json").read_text())["tags"]
    assert {"initial", "mono"} <= tags.keys()
    assert tags["licences"] == "Apache-2.0, CC-BY-3.0, CC0-1.0"
