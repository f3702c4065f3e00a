"""Measure time and memory of everything that handles all rows of a large dataset, without pictures.

    python benchmarks/dataset_scale.py [--clips 180000] [--steps tables filter ...] [--folder FOLDER]

180 000 clips are the 25 million frames of the paper. Tables and side entries are real, pictures are
placeholders of a few bytes (about 8 GB of disk in 2.0 million files). Each step runs in a process of its
own; its peak is the kernel's high-water mark (VmHWM), of which the interpreter and its imports take the
first row. A folder that is given is kept, and used again.
"""

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import torch
from command import make_parser, run
from large_dataset import FILES, build_stage, hash_of, write_tables
from machine import machine
from process_memory import high_water_mib

from presets import load_preset, run_stage
from secondeye.dataset.drift import describe_drift
from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import AcceptedClip, Clip, ClipQuality, EvalClip, Film, Score
from secondeye.dataset.tables import read_columns, read_table, write_table
from secondeye.evaluation.aggregate import aggregate_scores
from secondeye.evaluation.manifest import manifest_hash
from secondeye.evaluation.methods import BASELINES, Method
from secondeye.evaluation.report import build_sections, plot_points, write_reports
from secondeye.evaluation.score_methods import score_id, score_key
from secondeye.params import Gate
from secondeye.run_folder import open_run
from secondeye.stages import validate
from secondeye.training.export import export_dataset
from secondeye.training.provenance import hash_inpaint_inputs, join_inpaint_licences
from secondeye.training.sample_loader import SampleShare, load_micro_batches
from secondeye.training.shots import hold_out, list_shots, select_usable
from secondeye.training.stereo_shot import ShotPool
from secondeye.training.views import min_size, used_planes
from secondeye.training.windows import Windows

RANKS, WORKERS, SAMPLES = 8, 2, 2000
METHODS = (*BASELINES, *(Method(f"method {number}", "inpainter", inpainter="fill") for number in range(7)))
EXPORT_SHARDS = 1000
SCORED_CLIPS = 1000  # a test split that can be evaluated
PAPER = load_preset("paper")

Step = Callable[[Path], str]


def main() -> None:
    """Print the table, or run one step in a child process."""
    parser = make_parser(__doc__)
    parser.add_argument("--clips", type=int, default=180_000)
    parser.add_argument("--steps", nargs="*", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--child", choices=list(STEPS))
    options = parser.parse_args()
    if options.child:
        measure(STEPS[options.child], options.folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if not (folder / "data" / "synthetic" / "synthetic.parquet").exists():
            write_tables(folder / "data", options.clips)
        print(f"{machine()}; {options.clips} clips\n\n| step | seconds | peak, MiB | |\n|---|---|---|---|")
        for name in options.steps:
            command = [sys.executable, __file__, "--child", name, "--folder", str(folder)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            lines = done.stdout.splitlines()
            result = lines[-1] if done.returncode == 0 else f" | | failed: {lines[-1:] or done.returncode} |"
            print(f"| {name} {result}", flush=True)


def measure(step: Step, folder: Path) -> None:
    """Run a step and print the rest of its row on the last line."""
    os.chdir(folder)
    start = time.perf_counter()
    note = step(Path("data"))
    seconds = time.perf_counter() - start
    print(f"\n| {seconds:.1f} | {high_water_mib(os.getpid()):.0f} | {note} |")


def build(data: Path) -> str:
    """Build the folders of all stages from nothing."""
    return f"{sum(build_stage(data, stage) for stage in FILES)} items of {len(FILES)} stages"


def tables(data: Path) -> str:
    """Read two tables and write them again."""
    dataset = Dataset(data)
    for row_type in (Clip, ClipQuality):
        before, start = dataset.path(row_type).read_bytes(), time.perf_counter()
        rows = read_table(dataset.path(row_type), row_type)
        read = time.perf_counter()
        write_table(dataset.path(row_type), rows, row_type)
        print(f"{row_type.__name__}: {read - start:.1f} s, {time.perf_counter() - read:.1f} s")
        assert dataset.path(row_type).read_bytes() == before
    return f"two tables of {len(rows)} rows, read and written"


def listing(data: Path) -> str:
    """Join all tables and list both splits."""
    dataset = Dataset(data)
    return f"{len(dataset.clips('train'))} train, {len(dataset.clips('test'))} test"


def identity(data: Path) -> str:
    """Hash the dataset, and what an inpainter is trained on."""
    dataset = Dataset(data)
    dataset.require_validated()
    hashes = hash_inpaint_inputs(dataset, "splat")
    return f"{dataset.hash[:8]}, {len(hashes)} hashes of inputs, {join_inpaint_licences(dataset)}"


def stage(data: Path) -> str:
    """Run a stage that has nothing to do."""
    entries = min(Dataset(data).folder("splat").glob("*.json")).stat().st_mtime_ns
    run_stage("splat", data, PAPER)
    assert min(Dataset(data).folder("splat").glob("*.json")).stat().st_mtime_ns == entries, "was built again"
    return "`splat`, up to date"


def filter_(data: Path) -> str:
    """Run the stage `filter`, which also finds duplicates and splits films."""
    run_stage("filter", data, PAPER)
    return f"{len(Dataset(data).rows(AcceptedClip))} accepted"


def expectations(data: Path) -> str:
    """Check all rows with Great Expectations."""
    dataset = Dataset(data)
    rows = validate.expectation_rows(dataset, {}, PAPER.validate)
    assert validate.find_failures(rows, 1) == []
    return f"{len(rows)} rows passed"


def faults(data: Path) -> str:
    """Check rows of which every one fails in two columns."""
    dataset = Dataset(data)
    damaged = {row.id: 1 for row in dataset.rows(AcceptedClip)}
    rows = [row | {"ssim": 2.0} for row in validate.expectation_rows(dataset, damaged, PAPER.validate)]
    found = validate.find_failures(rows, 1)
    return f"all rows fail, messages of {sum(map(len, found)) / 1e6:.3f} MB"


def validation(data: Path) -> str:
    """Run the stage `validate`: files, expectations, report, stamp."""
    validate.run(data, Path("reports"), validate=PAPER.validate)
    files = {path.name: path.stat().st_size for path in Path("reports").iterdir()}
    return ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in sorted(files.items()) if size > 1e5)


def training(data: Path) -> str:
    """List a training's shots and draw the first sample's window; count an epoch."""
    windows = make_windows(data)
    start = time.perf_counter()
    windows.draw(0, np.random.default_rng(0))
    first = time.perf_counter() - start
    order = windows._stereo
    visits = np.bincount([order.shot(number) for number in range(order.length)], minlength=len(order.windows))
    assert (visits == order.windows).all()
    return f"epoch of {order.length} windows, each visited once; its order takes {first:.2f} s"


def make_windows(data: Path) -> Windows:
    """List shots as the training of the network does."""
    settings = PAPER.train_diffusion
    started = open_run(data.parent / "runs", "listing", "benchmark", Gate(confidence=0.5), {})
    size = min_size(settings)
    pool = list_shots(started, data, size, settings.conditioning, used_planes(settings))
    trained_on = hold_out("diffusion", select_usable("diffusion", pool, size))[1]
    pool = ShotPool(trained_on.stereo, [])
    return Windows(pool, settings.frames, mono_share=0.0, seed=0, max_stride=settings.max_stride)


def workers(data: Path) -> str:
    """Draw the windows of one of eight ranks on two workers; no file is read."""
    windows = make_windows(data)
    hyperparams = PAPER.train_diffusion.network
    share = SampleShare(hyperparams.batch_size, RANKS, 3, RANKS)
    start = time.perf_counter()
    batches = load_micro_batches(partial(draw_index, windows), hyperparams, share, 0, workers=WORKERS)
    next(batches)
    first = time.perf_counter() - start
    for _ in range(SAMPLES):
        next(batches)
    peak = max(high_water_mib(child.pid) for child in psutil.Process().children(recursive=True))
    rate = SAMPLES / (time.perf_counter() - start - first)
    return f"first sample after {first:.1f} s, then {rate:.0f} a second; a worker's peak {peak:.0f} MiB"


def draw_index(windows: Windows, number: int, rng: np.random.Generator) -> tuple[torch.Tensor]:
    """Draw a window and return its frames' indices."""
    return (torch.tensor(windows.draw(number, rng)[1]),)


def export(data: Path) -> str:
    """Export the placeholders to shards."""
    size = sum(path.stat().st_size + 2048 for path in data.glob("*/*.mkv"))
    return export_dataset(data, Path("shards"), split="train", shard_megabytes=size / EXPORT_SHARDS / 1e6)


def scores(data: Path) -> str:
    """List the jobs of `evaluate` and write its report from scores of every clip and method."""
    dataset = Dataset(data)
    clips = [eval_clip(clip.id, clip.film.id) for clip in dataset.clips("test")[:SCORED_CLIPS]]
    rows = [
        score(clip, method, score_id(clip.id, method), score_key(clip, method, PAPER.evaluate))
        for clip in clips
        for method in METHODS
    ]
    names = {film.id: film.name for film in dataset.rows(Film)}
    Path("evaluation").mkdir(exist_ok=True)
    aggregates = aggregate_scores(rows, PAPER.evaluate)
    sections = build_sections(
        rows,
        clips,
        names,
        blocks_of=lambda row: {},
        manifest=manifest_hash(clips),
        evaluate=PAPER.evaluate,
        costs={},
    )
    write_reports(Path("evaluation"), sections, aggregates, plot_points(rows, names, PAPER.evaluate))
    sizes = {path.name: path.stat().st_size for path in Path("evaluation").iterdir()}
    shown = ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in sorted(sizes.items()) if size > 1e5)
    return f"{len(rows)} scores; {shown}"


def eval_clip(name: str, film: str) -> EvalClip:
    return EvalClip(name, "k" * 64, film, "match", name, 0.02, 0.9, 0.05, 0.03)


def score(clip: EvalClip, method: Method, name: str, key: str) -> Score:
    values = np.random.default_rng(hash_of(int(name, 16))).random(len(Score.__dataclass_fields__) - 6)
    row = Score(name, key, clip.id, clip.film, method.name, method.kind, *values.tolist())
    return replace(row, worst_block=math.nan)  # no block to compare


def drift(data: Path) -> str:
    """Compare the tables with themselves."""
    dataset = Dataset(data)
    paths = [dataset.path(row_type) for row_type in (ClipQuality, Film, AcceptedClip)]
    now = {path: read_columns(path) for path in paths}
    return f"{len(describe_drift('HEAD', now, now).splitlines())} lines"


STEPS: dict[str, Step] = {
    "imports": lambda data: "",
    "tables": tables,
    "build": build,
    "stage": stage,
    "filter": filter_,
    "validate": validation,
    "listing": listing,
    "identity": identity,
    "expectations": expectations,
    "faults": faults,
    "training": training,
    "workers": workers,
    "export": export,
    "scores": scores,
    "drift": drift,
}

if __name__ == "__main__":
    run(main)
