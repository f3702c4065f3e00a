"""Measure speed and memory of the sample pipeline, by length of the dataset and number of workers.

    python benchmarks/training_samples.py [--sizes laptop paper] [--clips 4 600] [--workers 0 2] [--samples 9]

Each row draws samples of the diffusion network in a process of its own from clips of 150 frames. All clips of
a dataset are links to one, which moves and has film grain, so a long dataset takes no disk space. Memory is
the kernel's high-water mark (VmHWM) of the training process, and of the largest of its workers.
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import psutil
import torch
from command import make_parser, run
from machine import machine
from process_memory import high_water_mib

from presets import load_preset
from secondeye.dataset.clip_files import write_disparity, write_frames, write_occlusion
from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import (
    AcceptedClip,
    Clip,
    ClipDisparity,
    ClipOcclusion,
    Correction,
    Film,
    SyntheticShot,
)
from secondeye.dataset.tables import write_table
from secondeye.imaging.arrays import occlusion_mask
from secondeye.inpaint.working_size import image_area_px
from secondeye.params import Gate, TrainDiffusion
from secondeye.run_folder import open_run
from secondeye.splat import splat
from secondeye.synthetic import render_shot
from secondeye.training.diffusion import draw_sample
from secondeye.training.sample_loader import SampleShare, load_micro_batches
from secondeye.training.shots import list_shots
from secondeye.training.views import DrawViews, min_size, used_planes

Row = TypeVar("Row")
FRAMES = 150  # of a clip: six seconds, the longest of the paper preset
FILMS = 100
GRAIN = 2.0  # levels of 255, standard deviation: without it FFV1 would be unusually fast and small
COLUMNS = (
    "sample",
    "film, minutes",
    "workers",
    "samples a second",
    "CPU seconds a sample",
    "training process, MiB",
    "worker, MiB",
)
EMPTY: dict[Any, Any] = {str: "", int: 0, float: 0.0, bool: False}


class Size(NamedTuple):
    """A preset and the size of its views."""

    preset: str
    height: int
    width: int
    sample_size: int  # of the network, see `image_area_px`


SIZES = {
    "laptop": Size("laptop", 256, 448, 22),
    "small": Size("small", 288, 512, 64),
    "paper": Size("paper", 640, 1152, 96),
}


def main() -> None:
    """Print the table, or measure one row in a child process."""
    parser = make_parser(__doc__)
    parser.add_argument("--sizes", nargs="*", default=["laptop", "paper"], choices=list(SIZES))
    parser.add_argument("--clips", nargs="*", type=int, default=[4, 600])
    parser.add_argument("--workers", nargs="*", type=int, default=[0, 2])
    parser.add_argument("--samples", type=int, default=12)
    parser.add_argument("--child", nargs=2, metavar=("SIZE", "DATA"))
    options = parser.parse_args()
    if options.child:
        size, data = SIZES[options.child[0]], Path(options.child[1])
        print("\n" + measure(size, data, options.workers[0], options.samples))
        return
    print(f"{machine()}\n")
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for name in options.sizes:
        for clips in options.clips:
            with tempfile.TemporaryDirectory() as folder:
                write_dataset(Path(folder) / "data", SIZES[name], clips)
                for workers in options.workers:
                    command = [sys.executable, __file__, "--child", name, str(Path(folder) / "data")]
                    command += ["--workers", str(workers), "--samples", str(options.samples)]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    minutes = clips * FRAMES / 25 / 60
                    print(f"| {describe(name)} | {minutes:.0f} | {workers} | {done.stdout.splitlines()[-1]}")


def settings_of(size: Size) -> TrainDiffusion:
    return load_preset(size.preset).train_diffusion


def describe(name: str) -> str:
    """Describe a sample."""
    settings = settings_of(SIZES[name])
    return f"{settings.frames}x{settings.height}x{settings.width}, {settings.conditioning}"


def measure(size: Size, data: Path, workers: int, samples: int) -> str:
    """Draw samples one by one and return the rest of the row."""
    settings = replace(settings_of(size), mono_share=0.0)
    started = open_run(data.parent, f"run{workers}", "benchmark", Gate(confidence=0.5), {})
    pool = list_shots(started, data, min_size(settings), settings.conditioning, used_planes(settings))
    draw = DrawViews(
        pool,
        settings,
        settings.frames,
        image_area_px(size.sample_size),
        max_stride=settings.max_stride,
        seed=0,
    )
    hyperparams = replace(settings.network, steps=samples + 1, batch_size=1, gradient_accumulation_steps=1)
    batches = load_micro_batches(
        partial(draw_sample, draw), hyperparams, SampleShare(1, 1, 0, 1), first_step=0, workers=workers
    )
    next(batches)  # workers start
    start, spent, workers_peak = time.perf_counter(), cpu_seconds(), 0.0
    for _ in batches:
        peaks = [high_water_mib(child.pid) for child in psutil.Process().children(recursive=True)]
        workers_peak = max(workers_peak, *peaks, 0.0)
        drawn, used = time.perf_counter(), cpu_seconds()  # before the workers have ended
    rates = f"{samples / (drawn - start):.2f} | {(used - spent) / samples:.1f}"
    return f"{rates} | {high_water_mib(os.getpid()):.0f} | {workers_peak:.0f} |"


def cpu_seconds() -> float:
    """Return the time that this process and its children have computed."""
    process = psutil.Process()
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return float(sum(one.user + one.system for one in times))


def write_dataset(data: Path, size: Size, clips: int) -> None:
    """Write one clip, links to it and the tables that a training reads."""
    dataset = Dataset(data)
    for stage in ("raw", "split", "shift", "match", "splat", "filter", "synthetic"):
        dataset.folder(stage).mkdir(parents=True)
    names = [f"{number:016x}" for number in range(clips)]
    offset_px = write_clip(dataset, names[0], size)
    kinds = {"split": ("left", "right"), "match": ("disparity",), "splat": ("warped", "occlusion")}
    for name in names[1:]:
        for stage, files in kinds.items():
            for kind in files:
                os.link(dataset.file(stage, names[0], kind), dataset.file(stage, name, kind))
    films = [f"film{number % FILMS}" for number in range(clips)]
    gains = {"red_gain": 1.0, "green_gain": 1.0, "blue_gain": 1.0}
    shape = {"stop": FRAMES, "stride": 6, "height": size.height, "width": size.width}
    pairs = list(zip(names, films, strict=True))
    tables: dict[type, list[Any]] = {
        Film: [row(Film, id=film, name=film) for film in sorted(set(films))],
        Clip: [row(Clip, id=name, film=film, **shape) for name, film in pairs],
        Correction: [row(Correction, id=name, **gains) for name in names],
        ClipDisparity: [row(ClipDisparity, id=name, offset_px=offset_px) for name in names],
        ClipOcclusion: [row(ClipOcclusion, id=name) for name in names],
        AcceptedClip: [row(AcceptedClip, id=name, film=film, split="train") for name, film in pairs],
        SyntheticShot: [],
    }
    for row_type, rows in tables.items():
        write_table(dataset.path(row_type), rows, row_type)


def row(kind: type[Row], **given: object) -> Row:
    """Return a row with the given columns, and empty values in the others."""
    return kind(**{field.name: EMPTY[field.type] for field in fields(kind)} | given)  # type: ignore[arg-type]


def write_clip(dataset: Dataset, name: str, size: Size) -> float:
    """Write a clip that pans over a synthetic shot, with film grain; returns its disparity's offset, px."""
    shot = render_shot(0, 1, size.height, size.width)
    rng = np.random.default_rng(0)

    def pan(plane: torch.Tensor, grain: float = 0.0) -> torch.Tensor:
        frames = torch.cat([plane.roll(2 * t, dims=-1) for t in range(FRAMES)])
        noise = rng.standard_normal(frames.shape, np.float32) * np.float32(grain / 255)
        return (frames + torch.from_numpy(noise)).clamp(0, 1) if grain else frames

    write_frames(dataset.file("split", name, "right"), pan(shot.right, GRAIN))
    write_frames(dataset.file("split", name, "left"), left := pan(shot.left, GRAIN))
    disparity = pan(shot.disparity)
    parts = [splat(left[t : t + 1], disparity[t : t + 1]) for t in range(FRAMES)]
    occlusion = occlusion_mask(torch.cat([part.coverage for part in parts]))
    write_frames(
        dataset.file("splat", name, "warped"), torch.cat([part.warped for part in parts]) * ~occlusion
    )
    write_occlusion(dataset.file("splat", name, "occlusion"), occlusion)
    return write_disparity(dataset.file("match", name, "disparity"), disparity)


if __name__ == "__main__":
    run(main)
