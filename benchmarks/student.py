"""Compare the depth student, mixed with `motion` by confidence, with `motion` alone, film by film.

    SECONDEYE_FOOTAGE=... python benchmarks/student.py models/depth [--clips | --speed]

Quality is that of the stage `evaluate`: depth after one scale and shift per clip against the film's matched
disparity, and the right view that warp and `fill` make of it against the true one. `--clips` prints the rank
correlation of depth and the confidence for longer clips of the films that move; `network` is the student
without `motion`.
"""

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from command import existing, make_parser, run
from machine import machine
from motion_clips import EVERY, Clip, real_clips
from motion_confidence import rank_correlation
from real_films import FILMS, read_clips
from torch import Tensor

from secondeye.depth import DepthEstimator
from secondeye.depth.cues import CUE_CHANNELS
from secondeye.depth.motion import MotionEstimator
from secondeye.depth.student import load_student_network, make_student_estimator, predict_depth
from secondeye.depth.student_network import Student
from secondeye.evaluation.methods import Method, make_right
from secondeye.evaluation.score import compute, prepare, score_depth, update
from secondeye.imaging.arrays import frames_from_uint8, resize
from secondeye.system.errors import UserError

COLUMNS = {"rank_correlation": 3, "haarpsi": 4, "psnr_db": 2}  # and their digits
SPEED_HEIGHT, SPEED_WIDTH, SPEED_FRAMES = 224, 384, 24


def main() -> None:
    """Print the tables."""
    parser = make_parser(__doc__)
    parser.add_argument("weights", type=existing)
    parser.add_argument("--speed", action="store_true", help="measure frames per second")
    parser.add_argument("--clips", action="store_true", help="score longer clips")
    chosen = parser.parse_args()
    footage = os.environ.get("SECONDEYE_FOOTAGE")
    if not footage:
        raise UserError("SECONDEYE_FOOTAGE is not set: set it to the folder of real films")
    print(f"{machine()}\n")
    if chosen.speed:
        print_speed(load_student_network(chosen.weights))
        return
    if chosen.clips:
        print_clips(Path(footage), load_student_network(chosen.weights))
        return
    print_films(Path(footage), chosen.weights)


def print_films(footage: Path, weights: Path) -> None:
    """Print a row for each film: means over its clips."""
    methods = {
        "best shift": Method("best shift", "baseline"),
        "motion": Method("motion", "model", "motion", None, "fill"),
        "student": Method("student", "model", "student", weights, "fill"),
    }
    head = [f"{column}: {name}" for column in COLUMNS for name in methods]
    print(f"| film | {' | '.join(head)} |\n{'|---' * (len(head) + 1)}|")
    table = []
    for film in FILMS:
        rows: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
        for clip in read_clips(footage, film):
            reference = prepare(clip.left, clip.right, clip.regions)
            for name, method in methods.items():
                made = make_right(method, clip)
                scores = compute(update(reference, made.right, overlap=0, learned=None))
                rows[name].append(scores | score_depth(made.disparity, clip))
        values = [float(np.mean([row[c] for row in found])) for c in COLUMNS for found in rows.values()]
        print_row(film.name, values, len(methods))
        table.append(values)
    print_row("mean of films", [float(value) for value in np.mean(table, axis=0)], len(methods))


def print_row(name: str, values: Sequence[float], methods: int) -> None:
    """Print the scores of one film."""
    digits = [count for count in COLUMNS.values() for _ in range(methods)]
    cells = (f"{value:.{count}f}" for value, count in zip(values, digits, strict=True))
    print(f"| {name} | {' | '.join(cells)} |".replace("nan", "-"), flush=True)


def print_clips(footage: Path, network: Student) -> None:
    """Print the rank correlation of depth for each clip, and the confidences."""
    ways: dict[str, Callable[[Tensor], tuple[Tensor, float]]] = {
        "motion": partial(estimate, MotionEstimator()),
        "network": partial(predict, network),
        "student": partial(estimate, make_student_estimator(network, "cpu")),
    }
    print(f"| clip | kind | {' | '.join(ways)} |{' confidence |' * len(ways)}")
    print(f"{'|---' * (2 + 2 * len(ways))}|")
    scores = []
    for clip in real_clips(footage):
        found = [way(clip.frames) for way in ways.values()]
        ranks = [rank_of(depth, clip) for depth, _ in found]
        cells = [f"{value:.2f}" for value in (*ranks, *(confidence for _, confidence in found))]
        print(f"| {clip.source} | {clip.kind} | {' | '.join(cells)} |", flush=True)
        scores.append(ranks)
    means = (f"{value:.3f}" for value in np.mean(scores, axis=0))
    print(f"| mean of {len(scores)} clips | | {' | '.join(means)} |{' |' * len(ways)}")


def estimate(estimator: DepthEstimator, frames: Tensor) -> tuple[Tensor, float]:
    """Return the depth of an estimator and its mean confidence."""
    estimates = list(estimator(frames.split(8)))
    confidence = np.mean([estimate.confidence for estimate in estimates])
    return torch.cat([estimate.depth for estimate in estimates]), float(confidence)


def predict(network: Student, frames: Tensor) -> tuple[Tensor, float]:
    """Return the depth of the network alone and its mean confidence."""
    found = list(predict_depth(network, iter(frames_from_uint8(frames))))
    return torch.cat([one.depth for one in found]), float(np.mean([one.confidence for one in found]))


def rank_of(depth: Tensor, clip: Clip) -> float:
    """Return the rank correlation with the known disparity."""
    return rank_correlation(resize(depth[::EVERY], *clip.disparity.shape[-2:]), clip.disparity, clip.known)


def print_speed(network: Student) -> None:
    """Print frames per second of the network, alone and as an estimator, and its size."""
    inputs = torch.rand(4, CUE_CHANNELS, SPEED_HEIGHT, SPEED_WIDTH)
    frames = torch.rand(SPEED_FRAMES, 3, SPEED_HEIGHT, SPEED_WIDTH)
    sized = Student(SPEED_HEIGHT, SPEED_WIDTH, network.encoder).eval()
    sized.load_state_dict(network.state_dict())

    def run_network() -> None:
        with torch.inference_mode():
            sized(inputs)

    ways: dict[str, tuple[Callable[[], object], int]] = {
        "the network": (run_network, len(inputs)),
        "with its optical flow": (lambda: list(predict_depth(sized, iter(frames))), len(frames)),
        "mixed with `motion`": (lambda: list(make_student_estimator(sized, "cpu")([frames])), len(frames)),
    }
    megabytes = 2 * sum(value.numel() for value in network.state_dict().values()) / 1e6
    print(f"{megabytes:.1f} MB in float16, {torch.get_num_threads()} threads, {SPEED_WIDTH}x{SPEED_HEIGHT}\n")
    print("| | frames per second | CPU s per frame |\n|---|---|---|")
    for name, (call, count) in ways.items():
        call()
        times = []
        for _ in range(3):
            start = time.perf_counter(), time.process_time()
            call()
            times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
        seconds, spent = (min(column) for column in zip(*times, strict=True))
        print(f"| {name} | {count / seconds:.1f} | {spent / count:.3f} |", flush=True)


if __name__ == "__main__":
    run(main)
