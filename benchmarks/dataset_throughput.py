"""Measure the speed of each dataset stage on one core, against plain decoding of the same films.

    python benchmarks/dataset_throughput.py [--matcher video] [--films 4]

Uses synthetic films, the real film in SECONDEYE_FOOTAGE if that is set, and the laptop preset. Times on one
core are CPU times, which other processes hardly affect; two workers against one is wall-clock time, which is
valid only on an idle machine.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import get_args

from command import make_parser, run
from machine import machine

from presets import load_preset, run_stage
from secondeye.dataset.reader import Dataset
from secondeye.dataset.sample_films import write_sample_films
from secondeye.dataset.schema import Clip
from secondeye.params import Matcher, Params
from secondeye.video.read import decode_film

STAGES = ("split", "shift", "match", "splat", "quality")
REAL = "sv_candle_ego/candle_ego_sbs_2560x720.mp4"
FILMS, SEED = 4, 7
DATASET_FRAMES, CORES, NODE_CORES = 25_000_000, 32, 96


@dataclass(frozen=True)
class Speed:
    """Measurements of one set of films."""

    frames: int
    pixels: int  # of one view at working size
    decoding_s: float
    seconds: Mapping[str, float]  # by stage
    bytes: Mapping[str, int]


def table(matcher: Matcher | None = None, films: int = FILMS) -> str:
    """Return the tables: stages on one core, two workers against one, projection to a large dataset."""
    params = load_preset("laptop")
    params = replace(params, dataset=replace(params.dataset, max_bad_fraction=1.0))
    if matcher is not None:
        params = replace(params, match=replace(params.match, matcher=matcher))
    with tempfile.TemporaryDirectory() as folder:
        roots = [Path(folder) / "synthetic"]
        write_sample_films(roots[0] / "raw", films, SEED)
        real = Path(os.environ.get("SECONDEYE_FOOTAGE") or "/nowhere") / REAL
        if real.is_file():
            roots.append(Path(folder) / "real")
            (roots[1] / "raw").mkdir(parents=True)
            shutil.copy(real, roots[1] / "raw" / real.name)
        found = _on_one_core(roots, params)
        scaling = _compare_workers(roots, Path(folder) / "all", params)
    return "\n\n".join([_stages(found), scaling, _projection(found)])


def _stages(found: Mapping[str, Speed]) -> str:
    head = "| films | stage | frames/s, one core | relative to decoding | us per pixel | bytes per pixel |"
    lines = [head, "|---|---|---|---|---|---|"]
    for films, speed in found.items():
        decoding = speed.frames / speed.decoding_s
        lines.append(f"| {films} | plain decoding (baseline) | {decoding:.1f} | 1 | | |")
        for stage in STAGES:
            each_s = speed.seconds[stage]
            figures = f"{speed.frames / each_s:.1f} | {each_s / speed.decoding_s:.1f}"
            used = f"{each_s / speed.pixels * 1e6:.3f} | {speed.bytes[stage] / speed.pixels:.3f}"
            lines.append(f"| {films} | {stage} | {figures} | {used} |")
        slowest = max(STAGES, key=lambda stage: speed.seconds[stage])
        share = speed.seconds[slowest] / sum(speed.seconds.values())
        lines.append(f"| {films} | all; {share:.0%} of it is {slowest} | {_rate(speed):.1f} | | | |")
    return "\n".join(lines)


def _rate(speed: Speed) -> float:
    return speed.frames / sum(speed.seconds.values())


def _projection(found: Mapping[str, Speed]) -> str:
    """Project the cost to a large dataset at the paper's size, proportional to the pixels."""
    split = load_preset("paper").split
    pixels = DATASET_FRAMES * split.height * split.width
    core_s = [sum(speed.seconds.values()) / speed.pixels * pixels for speed in found.values()]
    disk = [sum(speed.bytes.values()) / speed.pixels * pixels / 2**40 for speed in found.values()]
    size = f"{DATASET_FRAMES / 1e6:.0f} M frames at {split.width}x{split.height}"
    means = sum(core_s) / len(core_s), sum(disk) / len(disk)
    return (
        f"{size}: about {means[0] / CORES / 3600:.0f} h on {CORES} cores like these, "
        f"{means[0] / NODE_CORES / 3600:.0f} h on the {NODE_CORES} cores that a node of 8 GPUs is assumed to "
        f"have (its GPUs unused), {means[1]:.0f} TiB. Assumed: cost by the pixel, no waiting for the disk."
    )


def _compare_workers(roots: Sequence[Path], root: Path, params: Params) -> str:
    """Time the match stage on all films with one and two workers, start-up included."""
    for one in roots:
        shutil.copytree(one / "raw", root / "raw", dirs_exist_ok=True)
    for stage in ("split", "shift"):
        _time_stage(stage, root, params, time.perf_counter)
    seconds = {}
    for workers in (1, 2):
        os.environ["SECONDEYE_WORKERS"] = str(workers)
        shutil.rmtree(root / "match", ignore_errors=True)
        seconds[workers] = _time_stage("match", root, params, time.perf_counter)
    gain = seconds[1] / seconds[2]
    lines = ["| match | seconds | speed-up |", "|---|---|---|", f"| 1 worker | {seconds[1]:.1f} | 1 |"]
    return "\n".join([*lines, f"| 2 workers, their start included | {seconds[2]:.1f} | {gain:.2f} |"])


def _on_one_core(roots: Sequence[Path], params: Params) -> dict[str, Speed]:
    """Measure in a separate process pinned to one core, after a first run that compiles."""
    os.environ |= {"SECONDEYE_WORKERS": "1", "NUMBA_NUM_THREADS": "1"}
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        pool.submit(_measure, roots[0], params).result()
        found = {root.name: pool.submit(_measure, root, params).result() for root in roots}
    del os.environ["NUMBA_NUM_THREADS"]
    return found


def _measure(root: Path, params: Params) -> Speed:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for stage in STAGES:
        shutil.rmtree(root / stage, ignore_errors=True)
    seconds = {stage: _time_stage(stage, root, params, time.process_time) for stage in STAGES}
    start = time.process_time()
    for film in sorted((root / "raw").glob("*.mp4")):
        if film.name != "mono.mp4":
            for _ in decode_film(film):
                pass
    decoding_s = time.process_time() - start
    clips = Dataset(root).rows(Clip)
    files = {stage: [path for path in (root / stage).rglob("*") if path.is_file()] for stage in STAGES}
    return Speed(
        sum(clip.stop - clip.start for clip in clips),
        sum(clip.pixels for clip in clips),
        decoding_s,
        seconds,
        {stage: sum(path.stat().st_size for path in paths) for stage, paths in files.items()},
    )


def _time_stage(stage: str, root: Path, params: Params, clock: Callable[[], float]) -> float:
    """Run a stage on the data root and return the elapsed time."""
    start = clock()
    run_stage(stage, root, params)
    return clock() - start


def main() -> None:
    """Print the tables."""
    parser = make_parser(__doc__)
    parser.add_argument("--matcher", choices=get_args(Matcher), help="instead of the preset's")
    parser.add_argument("--films", type=int, default=FILMS, help=f"synthetic films (default: {FILMS})")
    print(f"{machine()}\n\n{table(**vars(parser.parse_args()))}")


if __name__ == "__main__":
    run(main)
