"""Measure the cost of conversion against re-encoding the same film at twice the width.

    python benchmarks/convert.py FILM [--frames 96]

The baseline decodes the film and encodes it side by side with itself with the same x264 settings, the minimum
work of any converter. Each row is the best of three runs in one process, after one warm-up run.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

from machine import machine
from torch import Tensor

from secondeye.conversion.convert import _windows
from secondeye.conversion.render import LeftWindow, render
from secondeye.conversion.shot_depth import ShotDepth, estimate_shot
from secondeye.depth import make_depth_estimator
from secondeye.film.packing import side_by_side
from secondeye.imaging.arrays import frames_from_uint8
from secondeye.inpaint import make_inpainter
from secondeye.video.probe import probe
from secondeye.video.read import read_pictures
from secondeye.video.write import FilmWriter


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("film", type=Path)
    parser.add_argument("--frames", type=int, default=96)
    options = parser.parse_args()
    info = probe(options.film)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)

        def windows() -> Iterator[Tensor]:
            return _windows(islice(read_pictures(options.film), options.frames), lambda frames: None)

        def writer() -> FilmWriter:
            size = 2 * info.width, info.height
            return FilmWriter(work / "o.mp4", *size, fps=info.fps, time_base=Fraction(1, 25))

        def transcode() -> None:
            with writer() as film:
                for at, picture in enumerate(islice(read_pictures(options.film), options.frames)):
                    film.write(side_by_side(picture.rgb, picture.rgb), at)

        def depth() -> ShotDepth:
            frames = map(frames_from_uint8, windows())
            return estimate_shot(frames, make_depth_estimator("motion", None, "cpu"), work / "spill")

        spilled = depth()
        fill = make_inpainter("fill", None, "cpu")

        def render_views() -> None:
            pairs = zip(windows(), spilled.windows(8), strict=True)
            rendered = render(
                (LeftWindow(*pair) for pair in pairs), fill, strength_percent=3.0, convergence=0.5
            )
            with writer() as film:
                at = 0
                for window in rendered:
                    for left, right in zip(window.left.numpy(), window.right.numpy(), strict=True):
                        film.write(side_by_side(left, right), at)
                        at += 1

        transcode_s, depth_s, render_s = (best_seconds(job) for job in (transcode, depth, render_views))
    print(f"{machine()}\n{options.film.name}, {info.width}x{info.height}, {options.frames} frames\n")
    print("| step | ms per frame | relative to baseline |\n|---|---|---|")
    rows = {
        "decode and encode side by side (baseline)": transcode_s,
        "pass 1: motion depth": depth_s,
        "pass 2: warp, fill, encode": render_s,
        "both passes": depth_s + render_s,
    }
    for name, seconds in rows.items():
        print(f"| {name} | {1000 * seconds / options.frames:.0f} | {seconds / transcode_s:.1f} |")


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
