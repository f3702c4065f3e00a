"""Measure the peak memory of conversion by frame size and by length.

    python benchmarks/memory.py [--inpainter fill] [--sizes 720p 1080p] [--seconds 10 60]

Each row is a synthetic film converted in a process of its own without a memory budget. The peak is the
kernel's high-water mark of that process (VmHWM; `getrusage` would include the process that started it).
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

SIZES = {
    "240p": (320, 240),
    "720p": (1280, 720),
    "1080p": (1920, 1080),
    "4K": (3840, 2160),
    "8K": (7680, 4320),
}
SHORT_FRAMES = 24  # more than the encoder holds
LONG_SIZE = (160, 120)
FPS = 24


def main() -> None:
    """Print the tables, or convert one film in a child process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--inpainter", default="fill", choices=("fill", "light"))
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--seconds", nargs="*", type=int, default=[10, 60, 600])
    parser.add_argument("--frames", type=int, default=SHORT_FRAMES)
    parser.add_argument("--child", nargs=4, metavar=("WIDTH", "HEIGHT", "FRAMES", "INPAINTER"))
    options = parser.parse_args()
    if options.child:
        width, height, frames, inpainter = options.child
        print(f"\n{convert_film(int(width), int(height), int(frames), inpainter):.0f}")
        return
    from machine import machine

    print(f"{machine()}, inpainter {options.inpainter}\n")
    print("| film | frames | peak, MiB |\n|---|---|---|")
    films = [(name, *SIZES[name], options.frames) for name in options.sizes]
    films += [(f"{s} s of {LONG_SIZE[0]}x{LONG_SIZE[1]}", *LONG_SIZE, FPS * s) for s in options.seconds]
    for name, width, height, frames in films:
        command = [sys.executable, __file__, "--child", str(width), str(height), str(frames)]
        done = subprocess.run(
            [*command, options.inpainter], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        print(f"| {name} | {frames} | {done.stdout.split()[-1].decode()} |", flush=True)


def convert_film(width: int, height: int, frames: int, inpainter: str) -> float:
    """Write a synthetic film and convert it; return the peak of this process in MiB."""
    from secondeye.conversion.bundle import settings_from_bundle
    from secondeye.conversion.convert import convert
    from secondeye.video.write import write_film

    settings = settings_from_bundle(None, depth="motion", inpainter=inpainter)
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        write_film(film, drifting_images(width, height, frames), Fraction(FPS), preset="ultrafast")
        convert(film, None, settings, log=lambda line: None)
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024


def drifting_images(width: int, height: int, frames: int) -> Iterator[np.ndarray]:  # uint8 [H, W, 3]
    """Yield smooth noise that drifts to the left, 2 px a frame, and repeats after 60 frames."""
    import cv2

    small = np.random.default_rng(0).uniform(0, 255, (height // 16 + 2, width // 16 + 8, 3)).astype(np.uint8)
    canvas = cv2.resize(small, (width + 120, height), interpolation=cv2.INTER_CUBIC)
    for frame in range(frames):
        start = 2 * (frame % 60)
        yield np.ascontiguousarray(canvas[:, start : start + width])


if __name__ == "__main__":
    main()
