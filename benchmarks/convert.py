"""Measure the cost of `secondeye convert` against re-encoding the same film at twice the width.

    python benchmarks/convert.py FILM [--frames 96] [--runs 3] [--profile] [--beside N]

The film is cut to its first frames and encoded again. The baseline decodes it and encodes it side by side
with itself with the same x264 settings, the minimum work of any converter. The other rows run the whole
conversion, which also finds the cuts, with each inpainter that needs no training. Each row is the best of
several runs in one process, after one warm-up run. `--beside` measures it beside N processes that are busy
all the time; `--profile` adds the shares of processor time by part.
"""

import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from types import FrameType

import numpy as np

from secondeye.system.process import wait_without_spinning

wait_without_spinning()  # as the command line does, before torch and numba are imported

from command import existing, make_parser, run  # noqa: E402
from machine import machine  # noqa: E402

from secondeye.conversion.bundle import settings_from_bundle  # noqa: E402
from secondeye.conversion.convert import convert  # noqa: E402
from secondeye.film.packing import side_by_side  # noqa: E402
from secondeye.video.probe import probe  # noqa: E402
from secondeye.video.read import decode_film  # noqa: E402
from secondeye.video.write import write_film  # noqa: E402

SETTINGS = {
    name: settings_from_bundle(None, 3.0, 0.5, depth="motion", inpainter=name) for name in ("fill", "light")
}
SAMPLE_SECONDS = 0.002
PARTS = {  # the first that a thread's stack has, from the inside: what the thread works on
    "video/write.py": "convert colours and encode",
    "video/read.py": "decode and convert colours",
    "film/cuts.py": "find cuts",
    "depth/motion.py": "depth from motion",
    "depth/edges.py": "upsample and sharpen the disparity",
    "warp/": "warp",
    "inpaint/fill.py": "fill",
    "inpaint/light": "light: network and its input",
    "inpaint/hole_crops.py": "light: plan crops",
    "video/mux.py": "mux",
    "video/verify.py": "verify the result",
}


def main() -> None:
    """Print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("film", type=existing)
    parser.add_argument("--frames", type=int, default=96)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--beside", type=int, default=0, metavar="N")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, busy_processes(options.beside):
        film = Path(folder) / "film.mp4"
        info = probe(options.film)
        write_film(film, islice(pictures(options.film), options.frames), info.fps)
        rows = jobs(film)
        measured = {name: measure(job, options.runs) for name, job in rows.items()}
        profiles = {name: profile(job) for name, job in rows.items()} if options.profile else {}
    print(f"{machine()}\n{options.film.name}, {info.width}x{info.height}, {options.frames} frames", end="")
    print(f", beside {options.beside} busy processes\n" if options.beside else "\n")
    print("| step | ms per frame | relative to baseline | ms of processor time |\n|---|---|---|---|")
    baseline, *_ = measured.values()
    for name, (seconds, processor_seconds) in measured.items():
        each, processor = (1000 * taken / options.frames for taken in (seconds, processor_seconds))
        print(f"| {name} | {each:.0f} | {seconds / baseline[0]:.1f} | {processor:.0f} |")
    for name, shares in profiles.items():
        print(f"\n| {name} | share, % |\n|---|---|")
        for part, samples in shares.most_common():
            print(f"| {part} | {100 * samples / shares.total():.0f} |")


def jobs(film: Path) -> dict[str, Callable[[], object]]:
    """Return the work that each row measures; the baseline is first."""
    rows: dict[str, Callable[[], object]] = {
        "decode and encode side by side (baseline)": partial(encode_twice, film)
    }
    for name, settings in SETTINGS.items():
        output = film.with_name(f"{name}.mp4")
        rows[f"convert with {name}"] = partial(
            convert, film, output, settings, overwrite=True, log=lambda line: None
        )
    return rows


def pictures(film: Path) -> Iterator[np.ndarray]:
    """Yield the frames of a film, uint8 [H, W, 3]."""
    return (picture.rgb for picture in decode_film(film))


def encode_twice(film: Path) -> None:
    """Encode the film side by side with itself."""
    write_film(film.with_name("twice.mp4"), (side_by_side(p, p) for p in pictures(film)), probe(film).fps)


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Run processes that do nothing but count."""
    with ExitStack() as stack:
        for _ in range(count):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(process.kill)
        yield


def measure(job: Callable[[], object], runs: int) -> tuple[float, float]:
    """Return seconds, and seconds of processor time, of the fastest run after a warm-up run."""
    job()
    times = []
    for _ in range(runs):
        start, processor_start = time.perf_counter(), time.process_time()
        job()
        times.append((time.perf_counter() - start, time.process_time() - processor_start))
    return min(times)


def profile(job: Callable[[], object]) -> Counter[str]:
    """Run the job and count, at regular moments, what each of its threads works on."""
    counts: Counter[str] = Counter()
    done = threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLE_SECONDS):
            counts.update(filter(None, map(part_of, sys._current_frames().values())))

    sampler = threading.Thread(target=sample)
    sampler.start()
    job()
    done.set()
    sampler.join()
    return counts


def part_of(frame: FrameType | None) -> str | None:
    """Return the part that a thread with this stack works on; None if it waits."""
    if frame is None or frame.f_code.co_filename.endswith(("threading.py", "concurrent/futures/thread.py")):
        return None
    found = None
    while frame is not None:
        _, _, module = frame.f_code.co_filename.rpartition("secondeye/")
        part = next((part for path, part in PARTS.items() if module.startswith(path)), None)
        if part is not None:
            return part
        found = found or ("rest" if f"secondeye/{module}" in frame.f_code.co_filename else None)
        frame = frame.f_back
    return found


if __name__ == "__main__":
    run(main)
