"""Shots spread over processes and a Ray cluster: the bytes are those of one process."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_cli import Run, secondeye
from test_ray import cluster, started_cluster

from secondeye.conversion import shots
from secondeye.conversion.convert import convert
from secondeye.conversion.settings import ConversionSettings
from secondeye.execution.parallel import WorkerCrashed
from secondeye.system.errors import UserError

__all__ = ["cluster", "secondeye", "started_cluster"]  # fixtures

SETTINGS = ConversionSettings(3.0, 0.5, "motion", "fill", 16, "ultrafast", None)
OPTIONS = ("--depth", "motion", "--inpainter", "fill", "--preset", "ultrafast")
OPTIONS += ("--strength-percent", "3", "--convergence", "0.5")


@pytest.fixture
def film(make_film: Callable[..., Path]) -> Path:
    return make_film(shots=(14, 20, 16), height=96, width=128)


@pytest.mark.slow(seconds=6)
def test_two_workers_give_the_bytes_of_one(film: Path, secondeye: Run) -> None:
    whole = convert(film, film.with_name("whole.mp4"), SETTINGS).output
    spread, preview = film.with_name("spread.mp4"), film.with_name("preview.png")
    done = secondeye("convert", film, *OPTIONS, "--workers", 2, "--output", spread, "--preview", preview)
    assert done.returncode == 0, done.stderr
    assert spread.read_bytes() == whole.read_bytes()
    assert preview.exists()
    assert {path.name for path in film.parent.iterdir()} == {
        "film.mp4",
        "whole.mp4",
        "spread.mp4",
        "preview.png",
    }


@pytest.mark.slow(seconds=13)
def test_killed_run_of_two_workers_continues_with_one(film: Path) -> None:
    whole = convert(film, film.with_name("whole.mp4"), SETTINGS).output
    output = film.with_name("out.mp4")
    command = [
        sys.executable,
        "-m",
        "secondeye",
        "convert",
        film,
        *OPTIONS,
        "--workers=2",
        "--output",
        output,
    ]
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        deadline = time.monotonic() + 120
        while not list(film.parent.glob(".*/segment_*.mp4")) and time.monotonic() < deadline:
            time.sleep(0.01)
        run.send_signal(signal.SIGKILL)
    assert list(film.parent.glob(".*/segment_*.mp4")), "killed after a segment, before the end"
    said: list[str] = []
    convert(film, output, SETTINGS, log=said.append)
    assert any("frames already converted" in line for line in said)
    assert output.read_bytes() == whole.read_bytes()


@pytest.mark.slow(seconds=15)
def test_cluster_gives_the_bytes_of_one_process(
    cluster: Any, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spread = convert(film, film.with_name("spread.mp4"), SETTINGS).output
    monkeypatch.delenv("SECONDEYE_RAY_ADDRESS")
    whole = convert(film, film.with_name("whole.mp4"), SETTINGS).output
    assert spread.read_bytes() == whole.read_bytes()


def test_shot_whose_worker_crashes_is_named(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crash = WorkerCrashed("its process was killed by SIGKILL")
    monkeypatch.setattr(shots.parallel, "map", lambda *_, **options: (pair for pair in [(0, crash)]))
    with pytest.raises(UserError, match=r"film.mp4: shot 2 cannot be converted: its process was killed"):
        convert(film, None, replace(SETTINGS, workers=2))
