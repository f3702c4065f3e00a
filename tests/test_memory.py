"""Memory of a conversion: frames in memory follow from their size and the budget."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from secondeye.cli import main
from secondeye.conversion import memory
from secondeye.conversion import shots as conversion
from secondeye.conversion.convert import convert
from secondeye.conversion.memory import choose_window_frames, estimate_bytes, parent_bytes
from secondeye.conversion.settings import GIB, ConversionSettings
from secondeye.system.errors import UserError
from secondeye.video.probe import FilmInfo, probe

SETTINGS = ConversionSettings(3.0, 0.5, "motion", "fill", 10, "ultrafast", None)
MakeFilm = Callable[..., Path]


@pytest.fixture
def info(make_film: MakeFilm) -> FilmInfo:
    return probe(make_film(shots=(2,), sound=False))


@pytest.mark.parametrize(
    ("width", "height", "budget_gb", "frames"),
    [(320, 240, 4, 32), (1920, 1080, 4, 2), (3840, 2160, 6, 1), (7680, 4320, 6, 1), (1920, 1080, 1.5, 1)],
)
def test_frames_in_memory_follow_from_size_and_budget(
    info: FilmInfo, width: int, height: int, budget_gb: float, frames: int
) -> None:
    sized = replace(info, width=width, height=height)
    chosen = choose_window_frames(sized, replace(SETTINGS, max_memory_gb=budget_gb))
    assert chosen == frames
    assert estimate_bytes(width * height, chosen) <= budget_gb * GIB


def test_processes_share_the_budget(info: FilmInfo) -> None:
    sized, settings = replace(info, width=1920, height=1080), replace(SETTINGS, max_memory_gb=5.1)
    alone, beside = (choose_window_frames(sized, settings, processes) for processes in (1, 3))
    assert beside < alone
    assert 3 * estimate_bytes(1920 * 1080, beside) + parent_bytes(settings, 3) <= 5.1 * GIB


def test_slow_presets_leave_less_for_frames(info: FilmInfo) -> None:
    sized = replace(info, width=1280, height=720)
    frames = [
        choose_window_frames(sized, replace(SETTINGS, max_memory_gb=1.3, preset=preset))
        for preset in ("ultrafast", "medium")
    ]
    assert frames[0] > frames[1] >= 1
    with pytest.raises(UserError, match="1280x720 needs"):
        choose_window_frames(sized, replace(SETTINGS, max_memory_gb=1.3, preset="veryslow"))


def test_a_depth_network_counts(info: FilmInfo) -> None:
    """It runs before the frames are rendered: the film has to fit beside it, with windows as long as ever."""
    motion, network = (
        replace(SETTINGS, depth=name, max_memory_gb=3.0) for name in ("motion", "depth-anything-v2")
    )
    sized = replace(info, width=1920, height=1080)
    assert choose_window_frames(sized, network) == choose_window_frames(sized, motion)
    assert choose_window_frames(sized, replace(motion, max_memory_gb=1.7)) >= 1
    with pytest.raises(UserError, match=r"1920x1080 needs 1\.8 GiB"):
        choose_window_frames(sized, replace(network, max_memory_gb=1.7))


def test_without_a_budget_half_of_the_free_memory_is_used(
    info: FilmInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    sized = replace(info, width=1920, height=1080)
    monkeypatch.setattr(memory, "free_memory_bytes", lambda: 3 * GIB)
    assert choose_window_frames(sized, SETTINGS) == choose_window_frames(
        sized, replace(SETTINGS, max_memory_gb=1.5)
    )
    monkeypatch.setattr(memory, "free_memory_bytes", lambda: GIB)
    with pytest.raises(UserError, match=r"1920x1080 needs 1\.\d GiB of memory, but 1\.0 GiB are free"):
        choose_window_frames(sized, SETTINGS)


def test_film_that_does_not_fit_is_one_line_before_the_work(
    make_film: MakeFilm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    film = make_film(shots=(3,), sound=False)
    arguments = ["secondeye", "convert", str(film), "--depth", "motion", "--max-memory-gb", "0.25"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"64x48 needs 0\.\d GiB of memory, but --max-memory-gb allows 0\.2 GiB; ", last)
    assert [path.name for path in film.parent.iterdir()] == ["film.mp4"]


def test_budget_reaches_the_windows_of_a_conversion(
    make_film: MakeFilm, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = make_film(shots=(9,), sound=False)
    monkeypatch.setattr(memory, "_WINDOW_BYTES", GIB // (64 * 48) // 4)  # a quarter of a GiB for a frame
    lengths: list[int] = []
    read_windows = conversion.read_windows

    def watched(*given, **options):  # type: ignore[no-untyped-def]
        for window in read_windows(*given, **options):
            lengths.append(len(window))
            yield window

    monkeypatch.setattr(conversion, "read_windows", watched)
    convert(film, None, replace(SETTINGS, max_memory_gb=1.5))
    assert lengths == [3, 3, 3]


FREED = """
import numpy, psutil
from secondeye.system.memory import return_freed_arrays
return_freed_arrays()
before = psutil.Process().memory_info().rss
numpy.ones(31 * 2**17)  # glibc would now keep freed blocks of this size
planes, kept = [], []
for _ in range(10):
    planes.append(numpy.ones(16 * 2**17))
    kept.append(numpy.ones(2**14))
del planes
print((psutil.Process().memory_info().rss - before) // 2**20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_freed_frames_are_returned_while_others_are_in_use() -> None:
    done = subprocess.run([sys.executable, "-c", FREED], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 40  # MiB of 160


@pytest.mark.slow(seconds=8)
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from Linux's /proc")
def test_peak_of_memory_stays_below_the_estimate() -> None:
    """In a process of its own, as the benchmark measures it."""
    peak_bytes, _ = measure("1280", "720", "24")
    assert peak_bytes < estimate_bytes(1280 * 720, 18)


@pytest.mark.slow(seconds=58)
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from Linux's /proc")
def test_the_plan_of_diffusion_tells_the_peak_of_the_whole_conversion() -> None:
    """Two windows of one tile.

    A pass counts as in Stable Video Diffusion, almost twice what it takes in this network, hence 1.6.
    """
    peak_bytes, estimate = measure(
        "1280", "720", "30", "--inpainter", "diffusion", "--tiles", "1", "--max-memory-gb", "3"
    )
    assert peak_bytes <= estimate <= min(3 * GIB, 1.6 * peak_bytes)


def measure(width: str, height: str, frames: str, *options: str) -> list[float]:
    """Return the peak of a conversion in its own process, and the estimate of its plan, in bytes."""
    benchmark = Path(__file__).parent.parent / "benchmarks" / "memory.py"
    command = [sys.executable, benchmark, *options, "--child", width, height, frames]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(mib) * 2**20 for mib in done.stdout.split()[-2:]]
