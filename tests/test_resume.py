"""Recovery: a conversion that stops anywhere, by any cause, continues to the bytes of an undisturbed one."""

import errno
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from secondeye.cli import main
from secondeye.conversion import checkpoint, segments, shot_depth, shots
from secondeye.conversion import convert as conversion
from secondeye.conversion.bundle_parts import SHIPPED
from secondeye.conversion.convert import convert
from secondeye.conversion.settings import ConversionSettings
from secondeye.depth import DepthEstimate, DepthEstimator
from secondeye.inpaint import Inpainted
from secondeye.system.errors import UserError
from secondeye.video.probe import probe
from secondeye.video.write import FilmWriter

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = ConversionSettings(3.0, 0.5, "motion", "fill", 10, "ultrafast", None)
MakeFilm = Callable[..., Path]


@pytest.fixture
def short_segments(monkeypatch: pytest.MonkeyPatch) -> int:
    """Make segments of 8 frames at 24 fps, and return that."""
    monkeypatch.setattr(segments, "SEGMENT_SECONDS", 1 / 3)
    return 8


class WatchedEstimator:
    """Tells a fuse of every estimate."""

    def __init__(self, estimator: DepthEstimator, fuse: "Fuse") -> None:
        self.estimator, self.fuse = estimator, fuse
        self.working_size = estimator.working_size

    def __call__(self, windows, state=None) -> Iterator[DepthEstimate]:  # type: ignore[no-untyped-def]
        for estimate in self.estimator(windows, state):
            self.fuse.burn("estimate")
            yield estimate


class Fuse:
    """Raises an exception at the n-th event: an estimate, an encoded frame, before or after a rename."""

    def __init__(self, patch: pytest.MonkeyPatch, error: BaseException) -> None:
        self.left, self.error = 10**9, error
        self.names: list[str] = []
        self._watch(patch, FilmWriter, "write")
        self._watch(patch, os, "replace")
        make = shots.make_depth_estimator

        def watched(*given: object) -> DepthEstimator:
            return WatchedEstimator(make(*given), self)  # type: ignore[arg-type]

        patch.setattr(shots, "make_depth_estimator", watched)

    def burn(self, name: str) -> None:
        self.names.append(name)
        self.left -= 1
        if self.left == 0:
            raise self.error

    def _watch(self, patch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        original = getattr(owner, name)

        def watched(*given, **options):  # type: ignore[no-untyped-def]
            self.burn(f"before {name}")
            original(*given, **options)
            self.burn(f"after {name}")

        patch.setattr(owner, name, watched)


@pytest.mark.usefixtures("short_segments")
def test_run_that_stops_at_any_event_continues_to_the_same_bytes(
    make_film: MakeFilm, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = make_film(shots=(18,), height=32, width=32, sound=False)
    whole, broken, preview = (film.with_name(name) for name in ("whole.mp4", "broken.mp4", "preview.png"))
    convert(film, whole, SETTINGS, preview=preview)
    fuse, bars, make_bar = Fuse(monkeypatch, KeyboardInterrupt()), list[Any](), conversion.tqdm
    monkeypatch.setattr(conversion, "tqdm", lambda **given: bars.append(make_bar(**given)) or bars[-1])
    draw, stops = random.Random(0), []
    while not broken.exists():
        fuse.left, fuse.names[:] = draw.randint(8, 25), []
        try:
            convert(film, broken, SETTINGS, preview=film.with_name("again.png"))
        except KeyboardInterrupt:
            stops.append(fuse.names[-1])
    assert len(stops) > 2 and {"estimate"} < set(stops)
    assert bars[-1].n == bars[-1].total == 2 * 18
    assert broken.read_bytes() == whole.read_bytes()
    assert film.with_name("again.png").read_bytes() == preview.read_bytes()
    assert {path.name for path in film.parent.iterdir()} == {
        "film.mp4",
        "whole.mp4",
        "broken.mp4",
        "preview.png",
        "again.png",
    }


def test_shot_is_encoded_in_segments_that_begin_with_a_key_frame(
    make_film: MakeFilm, monkeypatch: pytest.MonkeyPatch, short_segments: int
) -> None:
    film = make_film(shots=(20, 12), height=32, width=32, sound=False)
    monkeypatch.setattr(conversion, "_mux", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert(film, None, SETTINGS)
    folder = film.with_name(".film_LRF_Full_SBS.mp4.unfinished")
    names = [f"segment_{a:08d}_{b:08d}.mp4" for a, b in ((0, 8), (8, 16), (16, 20), (20, 28), (28, 32))]
    records = ("shot_00000000.json", "shot_00000020.json")
    assert {path.name for path in folder.iterdir()} == {*names, *records, "key", "plan.json", "preview.png"}
    assert [probe(folder / name).frames for name in names] == [8, 8, 4, 8, 4]


def test_next_convert_deletes_the_checkpoint_of_a_run_killed_after_the_rename(
    make_film: MakeFilm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    film = make_film(shots=(9,), height=32, width=32, sound=False)
    output, folder = (
        film.with_name("film_LRF_Full_SBS.mp4"),
        film.with_name(".film_LRF_Full_SBS.mp4.unfinished"),
    )
    monkeypatch.setattr(sys, "argv", ["secondeye", "convert", str(film), "--inpainter", "fill"])
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="130"):
        patch.setattr(checkpoint.Checkpoint, "remove", interrupt)
        main()
    made = output.read_bytes()
    assert folder.exists()
    with pytest.raises(SystemExit, match="1"):
        main()
    assert "already exists" in capsys.readouterr().err
    assert not folder.exists() and output.read_bytes() == made


def test_an_interrupted_run_that_replaces_an_output_keeps_its_checkpoint(
    make_film: MakeFilm, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = make_film(shots=(9,), height=32, width=32, sound=False)
    output, folder = (
        film.with_name("film_LRF_Full_SBS.mp4"),
        film.with_name(".film_LRF_Full_SBS.mp4.unfinished"),
    )
    output.write_bytes(b"before")
    monkeypatch.setattr(checkpoint, "publish", interrupt_for(output, checkpoint.publish))
    with pytest.raises(KeyboardInterrupt):
        convert(film, None, SETTINGS, overwrite=True)
    with pytest.raises(UserError, match="already exists"):
        convert(film, None, SETTINGS)
    assert output.read_bytes() == b"before" and (folder / "finished").exists()


def interrupt_for(name: Path, function: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
    """Interrupt instead of giving a file this name."""
    return lambda part, path: interrupt() if path == name else function(part, path)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.usefixtures("short_segments")
def test_segments_end_where_an_inpainter_with_its_own_windows_knows_its_state(
    make_film: MakeFilm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups of 5 frames, like those of 22 of the diffusion inpainter; the state counts frames."""

    def grouping(windows, state=None) -> Iterator[Inpainted]:  # type: ignore[no-untyped-def]
        seen = 0 if state is None else int(state["seen"])
        resumed.append(seen)
        waiting: list[torch.Tensor] = []
        for warped in windows:
            waiting += warped.frames.split(1)
            while len(waiting) >= 5:
                seen += 5
                yield Inpainted(torch.cat(waiting[:5]), {"seen": torch.tensor(seen)})
                del waiting[:5]
        if waiting:
            yield Inpainted(torch.cat(waiting), {"seen": torch.tensor(seen + len(waiting))})

    resumed: list[int] = []
    film = make_film(shots=(23,), height=32, width=32, sound=False)
    monkeypatch.setattr(shots, "make_inpainter", lambda *_: grouping)
    whole, broken = film.with_name("whole.mp4"), film.with_name("broken.mp4")
    convert(film, whole, SETTINGS)
    with monkeypatch.context() as patch:
        patch.setattr(FilmWriter, "write", after(17, FilmWriter.write))
        with pytest.raises(KeyboardInterrupt):
            convert(film, broken, SETTINGS)
    folder = film.with_name(".broken.mp4.unfinished")
    assert {path.name for path in folder.glob("*_*")} >= {
        "segment_00000000_00000010.mp4",
        "inpaint_00000010.safetensors",
    }
    convert(film, broken, SETTINGS)
    assert resumed == [0, 0, 10]
    assert broken.read_bytes() == whole.read_bytes()


def after(count: int, function: Callable[..., None]) -> Callable[..., None]:
    """Interrupt at the call after `count` calls."""
    calls: list[int] = []

    def counted(*given: object) -> None:
        calls.append(1)
        if len(calls) > count:
            raise KeyboardInterrupt
        function(*given)

    return counted


@pytest.mark.usefixtures("short_segments")
@pytest.mark.parametrize("inpainter", ["fill", pytest.param("light", marks=pytest.mark.slow)])
def test_length_of_windows_does_not_change_bytes(
    make_film: MakeFilm, monkeypatch: pytest.MonkeyPatch, inpainter: str
) -> None:
    film = make_film(shots=(13,), height=32, width=32, sound=False)
    settings = replace(SETTINGS, inpainter=inpainter, model=SHIPPED)
    made = set()
    for frames in (1, 3, 32):
        monkeypatch.setattr(conversion, "choose_window_frames", lambda *_, frames=frames: frames)
        convert(film, film.with_name("out.mp4"), settings, overwrite=True)
        made.add(film.with_name("out.mp4").read_bytes())
    assert len(made) == 1


@pytest.mark.usefixtures("short_segments")
def test_full_disk_anywhere_is_one_line_and_the_run_continues(
    make_film: MakeFilm, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = make_film(shots=(9,), height=32, width=32, sound=False)
    whole, output = film.with_name("whole.mp4"), film.with_name("out.mp4")
    convert(film, whole, SETTINGS)
    places = [
        (checkpoint, "write_atomic", 1),
        (os, "fsync", 1),
        (shot_depth, "save_tensors", 1),
        (shot_depth, "write_atomic", 1),
        (FilmWriter, "write", 3),
        (FilmWriter, "close", 1),
        (checkpoint, "save_tensors", 1),
        (os, "replace", 2),
        (segments, "write_preview", 1),
        (conversion, "mux_film", 1),
        (checkpoint.Checkpoint, "publish_films", 1),
    ]
    for owner, name, call in places:
        with monkeypatch.context() as patch:
            fill_disk(patch, owner, name, call)
            with pytest.raises(UserError, match=r"No space left on device; free some and run") as caught:
                convert(film, output, SETTINGS)
        assert "\n" not in str(caught.value) and str(film.parent) in str(caught.value)
        assert not output.exists(), name
    convert(film, output, SETTINGS)
    assert output.read_bytes() == whole.read_bytes()


def fill_disk(patch: pytest.MonkeyPatch, owner: object, name: str, call: int) -> None:
    """Make a call of a function fail as on a full disk."""
    original, calls = getattr(owner, name), []

    def write(*given, **options):  # type: ignore[no-untyped-def]
        calls.append(1)
        if len(calls) == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*given, **options)

    patch.setattr(owner, name, write)


COMMAND = [sys.executable, "-c", "from secondeye.cli import main; main()", "convert"]
OPTIONS = ["--depth", "motion", "--inpainter", "fill", "--preset", "ultrafast"]


@pytest.mark.slow(seconds=15)
def test_files_of_limited_size_are_one_line_and_the_run_continues(make_film: MakeFilm) -> None:
    """The kernel refuses to write beyond 400 kB into one file, as on a full disk: here the raw depth."""
    film = make_film(shots=(60,), height=96, width=128)
    whole, output = film.with_name("whole.mp4"), film.with_name("out.mp4")
    command = [*COMMAND, str(film), *OPTIONS, "--output"]
    subprocess.run([*command, str(whole)], check=True, capture_output=True)
    limited = subprocess.run(
        [*command, str(output)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000)),
    )
    assert limited.returncode == 1 and not output.exists()
    assert limited.stderr.splitlines()[-1].startswith(f"secondeye: {film.parent}: File too large; free some")
    subprocess.run([*command, str(output)], check=True, capture_output=True)
    assert output.read_bytes() == whole.read_bytes()


@pytest.mark.slow(seconds=35)
def test_random_kills_continue_to_the_same_bytes(make_film: MakeFilm) -> None:
    film = make_film(shots=(300,))  # two segments
    whole, output = film.with_name("whole.mp4"), film.with_name("out.mp4")
    command = [*COMMAND, str(film), *OPTIONS, "--output"]
    started = time.monotonic()
    subprocess.run([*command, str(whole)], check=True, capture_output=True)
    seconds, draw, kills = time.monotonic() - started, random.Random(1), 0
    while kills < 3:
        started = time.monotonic()
        process = subprocess.Popen(
            [*command, str(output)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(draw.uniform(0.5, 1) * seconds)  # before, it only starts
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        else:
            seconds = time.monotonic() - started  # the machine is less busy than before
        if output.exists():
            assert output.read_bytes() == whole.read_bytes()
            output.unlink()
    subprocess.run([*command, str(output)], check=True, capture_output=True)
    assert output.read_bytes() == whole.read_bytes()
