"""Measure the cost of conversion against re-encoding the same film at twice the width.

    python benchmarks/convert.py FILM [--frames 96]

The film is cut to its first frames and encoded again. The baseline decodes it and encodes it side by side
with itself with the same x264 settings, the minimum work of any converter. Both passes are measured alone,
with each inpainter that needs no training, and so is `convert` as a whole, which also finds the cuts. Each
row is the best of three runs in one process, after one warm-up run.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from machine import machine
from torch import Tensor

from secondeye.conversion.bundle import settings_from_bundle, weights_folder
from secondeye.conversion.convert import convert
from secondeye.conversion.render import LeftWindow, render
from secondeye.conversion.shot_depth import ShotDepth, estimate_shot
from secondeye.depth import make_depth_estimator
from secondeye.film.packing import side_by_side
from secondeye.imaging.arrays import frames_from_uint8
from secondeye.inpaint import Inpainter, make_inpainter
from secondeye.video.probe import probe
from secondeye.video.read import decode_film
from secondeye.video.write import write_film

WINDOW_FRAMES = 8
DEFAULTS = settings_from_bundle(None)
SETTINGS = {name: settings_from_bundle(None, depth="motion", inpainter=name) for name in ("fill", "light")}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("film", type=Path)
    parser.add_argument("--frames", type=int, default=96)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        info = probe(options.film)
        write_film(film, islice(pictures(options.film), options.frames), info.fps)
        seconds = {name: best_seconds(job) for name, job in jobs(film).items()}
    print(f"{machine()}\n{options.film.name}, {info.width}x{info.height}, {options.frames} frames\n")
    print("| step | ms per frame | relative to baseline |\n|---|---|---|")
    baseline, *_ = seconds.values()
    for name, taken in seconds.items():
        print(f"| {name} | {1000 * taken / options.frames:.0f} | {taken / baseline:.1f} |")


def jobs(film: Path) -> dict[str, Callable[[], object]]:
    """Return the work that each row measures; the baseline is first."""
    rows: dict[str, Callable[[], object]] = {
        "decode and encode side by side (baseline)": partial(encode_twice, film),
        "pass 1: motion depth": partial(estimate_depth, film),
    }
    depth = estimate_depth(film)
    for name, settings in SETTINGS.items():
        inpainter = make_inpainter(name, weights_folder(settings.model, "inpaint"), "cpu")
        rows[f"pass 2: warp, {name}, encode"] = partial(render_views, film, depth, inpainter)
    for name, settings in SETTINGS.items():
        output = film.with_name(f"{name}.mp4")
        rows[f"convert with {name}"] = partial(
            convert, film, output, settings, overwrite=True, log=lambda line: None
        )
    return rows


def pictures(film: Path) -> Iterator[np.ndarray]:
    """Yield the frames of a film, uint8 [H, W, 3]."""
    return (picture.rgb for picture in decode_film(film))


def windows(film: Path) -> Iterator[Tensor]:
    """Yield the frames of a film in groups, uint8 [t, H, W, 3]."""
    frames = pictures(film)
    while window := list(islice(frames, WINDOW_FRAMES)):
        yield torch.from_numpy(np.stack(window))


def encode_twice(film: Path) -> None:
    """Encode the film side by side with itself."""
    write_film(film.with_name("twice.mp4"), (side_by_side(p, p) for p in pictures(film)), probe(film).fps)


def estimate_depth(film: Path) -> ShotDepth:
    """Run pass 1 on the film as one shot."""
    path = film.with_name("depth.f32")
    for earlier in film.parent.glob("depth.*"):
        earlier.unlink()
    return estimate_shot(
        lambda first: (frames_from_uint8(window) for window in windows(film)),
        make_depth_estimator("motion", None, "cpu"),
        path,
        save_every=240,
    )


def render_views(film: Path, depth: ShotDepth, inpainter: Inpainter) -> None:
    """Run pass 2 on the film as one shot."""
    starts = range(0, depth.frames, WINDOW_FRAMES)
    rendered = render(
        (
            LeftWindow(frames, depth.read(start, start + len(frames)))
            for start, frames in zip(starts, windows(film), strict=True)
        ),
        inpainter,
        strength_percent=DEFAULTS.strength_percent,
        convergence=DEFAULTS.convergence,
        device="cpu",
    )
    views = (
        side_by_side(left, right)
        for window in rendered
        for left, right in zip(window.left.numpy(), window.right.numpy(), strict=True)
    )
    write_film(film.with_name("views.mp4"), views, probe(film).fps)


def best_seconds(job: Callable[[], object]) -> float:
    """Return the shortest of three runs after a warm-up run."""
    times = []
    for _ in range(4):
        start = time.perf_counter()
        job()
        times.append(time.perf_counter() - start)
    return min(times[1:])


if __name__ == "__main__":
    main()
