"""Measure the peak memory of conversion by frame size and by length.

    python benchmarks/memory.py [--inpainter fill] [--sizes 720p 1080p] [--seconds 10 60]
    python benchmarks/memory.py --inpainter diffusion --sizes 720p 1080p --seconds --frames 50
    python benchmarks/memory.py --text caption --sizes 4K 8K --seconds --frames 40

Besides the peak, each row has the bound that `--max-memory-gb` relies on.

Each row is a synthetic film, converted in a process of its own, by default without a memory budget. The
peak is the kernel's high-water mark of that process (VmHWM; `getrusage` would include its parent).
The diffusion network has random weights and as few channels as its blocks allow, and is made for 576 x 1024
px and windows of 25 frames. The estimate of its plan is printed, too.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from command import make_parser, run

SIZES = {
    "240p": (320, 240),
    "720p": (1280, 720),
    "1080p": (1920, 1080),
    "4K": (3840, 2160),
    "5K": (5120, 2880),
    "8K": (7680, 4320),
}
SHORT_FRAMES = 24  # more than the encoder holds
LONG_SIZE = (160, 120)
FPS = 24
TEXTS = {"none": (), "caption": (0.9,), "title": (0.3, 0.5, 0.7)}  # rows of text, of the height


def main() -> None:
    """Print the tables, or convert one film in a child process."""
    parser = make_parser(__doc__)
    parser.add_argument("--inpainter", default="fill", choices=("fill", "propagation", "light", "diffusion"))
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--seconds", nargs="*", type=int, default=[10, 60, 600])
    parser.add_argument("--frames", type=int, default=SHORT_FRAMES)
    parser.add_argument("--text", default="none", choices=list(TEXTS), help="titles have a plain background")
    parser.add_argument("--tiles", type=int, help="of the diffusion inpainter, per side")
    parser.add_argument("--max-memory-gb", type=float)
    parser.add_argument("--views", choices=("right", "both"), default="right")
    parser.add_argument("--child", nargs=3, type=int, metavar=("WIDTH", "HEIGHT", "FRAMES"))
    options = parser.parse_args()
    settings = {
        "inpainter": options.inpainter,
        "tiles": options.tiles,
        "max_memory_gb": options.max_memory_gb,
        "views": options.views,
    }
    if options.child:
        width, height, frames = options.child
        peak, estimate = convert_film(width, height, frames, options.text, **settings)
        print(f"\n{peak:.0f} {estimate:.0f}")
        return
    from machine import machine

    print(f"{machine()}, inpainter {options.inpainter}, views {options.views}, text: {options.text}\n")
    print("| film | frames | peak, MiB | bound, MiB |\n|---|---|---|---|")
    films = [(name, *SIZES[name], options.frames) for name in options.sizes]
    films += [(f"{s} s of {LONG_SIZE[0]}x{LONG_SIZE[1]}", *LONG_SIZE, FPS * s) for s in options.seconds]
    given = [
        text for name, value in settings.items() if value is not None for text in (flag(name), str(value))
    ]
    given += ["--text", options.text]
    for name, width, height, frames in films:
        command = [sys.executable, __file__, *given, "--child", str(width), str(height), str(frames)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        measured, planned = done.stdout.decode().split()[-2:]
        print(f"| {name} | {frames} | {measured} | {planned} |", flush=True)


def flag(name: str) -> str:
    """Return the command line option with this name."""
    return f"--{name.replace('_', '-')}"


def convert_film(
    width: int, height: int, frames: int, text: str, inpainter: str, **options: Any
) -> tuple[float, float]:
    """Write a synthetic film and convert it; return this process's peak and its bound in MiB.

    The bound is that of the frames in memory, or of the plan of a diffusion network.
    """
    from secondeye.conversion import convert as conversion
    from secondeye.conversion.bundle import settings_from_bundle
    from secondeye.conversion.checkpoint import Checkpoint
    from secondeye.conversion.memory import choose_window_frames, estimate_bytes, held_bytes
    from secondeye.conversion.views import views_to_make
    from secondeye.video.probe import probe
    from secondeye.video.write import write_film

    estimates: list[int] = []
    record = Checkpoint.save_inpaint_plans

    def watch(checkpoint: Checkpoint, plans: Any) -> None:
        estimates.append(max(plan.memory_bytes for plan in plans))
        record(checkpoint, plans)

    Checkpoint.save_inpaint_plans = watch  # type: ignore[method-assign, assignment]
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        images = title_images if text == "title" else drifting_images
        written = (burn_in(image, TEXTS[text]) for image in images(width, height, frames))
        write_film(film, written, Fraction(FPS), preset="ultrafast")
        model = write_narrow_model(Path(folder)) if inpainter == "diffusion" else None
        settings = settings_from_bundle(model, 3.0, 0.5, depth="motion", inpainter=inpainter, **options)
        if inpainter != "diffusion":
            window_frames = choose_window_frames(probe(film), settings)
            views = len(views_to_make(settings.views))
            bound = estimate_bytes(width * height, window_frames, views)
            estimates.append(bound + held_bytes(width * height, settings))
        conversion.convert(film, None, settings, log=lambda line: print(line, file=sys.stderr))
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024, estimates[-1] / 2**20


def write_narrow_model(folder: Path) -> Path:
    """Write a bundle with an untrained network of one step."""
    import torch

    from secondeye.conversion.bundle import Bundle, write_bundle
    from secondeye.inpaint.module_checks import IN_CHANNELS
    from secondeye.inpaint.pipeline import StereoInpaintPipeline
    from secondeye.inpaint.tiny import make_autoencoder, make_image_encoder, make_network, make_scheduler

    torch.manual_seed(0)
    parts = make_autoencoder(8, (32,)), make_image_encoder(), make_network(25, IN_CHANNELS, (32, 32), 96)
    StereoInpaintPipeline(*parts, make_scheduler()).save_pretrained(folder / "weights")
    bundle = Bundle("motion", "diffusion", strength_percent=5.0, convergence=0.5, steps=1)
    return write_bundle(folder / "bundle", bundle, None, folder / "weights")


def drifting_images(width: int, height: int, frames: int) -> Iterator[np.ndarray]:  # uint8 [H, W, 3]
    """Yield smooth noise that drifts to the left, 2 px a frame, and repeats after 60 frames."""
    import cv2

    small = np.random.default_rng(0).uniform(0, 255, (height // 16 + 2, width // 16 + 8, 3)).astype(np.uint8)
    canvas = cv2.resize(small, (width + 120, height), interpolation=cv2.INTER_CUBIC)
    for frame in range(frames):
        start = 2 * (frame % 60)
        yield np.ascontiguousarray(canvas[:, start : start + width])


def title_images(width: int, height: int, frames: int) -> Iterator[np.ndarray]:  # uint8 [H, W, 3]
    """Yield a plain background."""
    for _ in range(frames):
        yield np.full((height, width, 3), 40, np.uint8)


def burn_in(image: np.ndarray, rows: tuple[float, ...]) -> np.ndarray:  # uint8 [H, W, 3]
    """Write text over an image, as wide as most of it."""
    import cv2

    height, width = image.shape[:2]
    for row in rows:
        place, scale = (width // 10, round(row * height)), width / 760
        font, thickness = cv2.FONT_HERSHEY_DUPLEX, round(2 * scale)
        cv2.putText(image, "What is written on the screen", place, font, scale, (250,) * 3, thickness)
    return image


if __name__ == "__main__":
    run(main)
