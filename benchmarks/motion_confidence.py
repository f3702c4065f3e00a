"""Measure whether the confidence of `motion` ranks clips by how right its depth is.

    SECONDEYE_FOOTAGE=... python benchmarks/motion_confidence.py [--clips] [--sheet FILE.png]
    python benchmarks/motion_confidence.py --films FILM [FILM ...]

A clip's score is Spearman's rank correlation of depth and true disparity over the known pixels, averaged over
every eighth frame. A clip's confidence is the mean over its frames, as of a shot in a conversion. The table
has the means of each kind of clip for the tuning and for the held-out half; the last rows have Spearman's
correlation of confidence and score over clips. `--clips` prints a row for each clip. `--films` prints the
confidence of each shot of any film. See `motion_clips.py` for the clips.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from command import existing, make_parser, run
from machine import machine
from motion_clips import EVERY, Clip, all_clips
from scipy.stats import spearmanr
from torch import Tensor

from secondeye.depth.motion import MotionEstimator, working_size
from secondeye.film.cuts import CUT_THRESHOLD, shortest_shot_frames
from secondeye.film.shots import plan_shots
from secondeye.imaging.arrays import resize
from secondeye.report.contact_sheet import Tile, disparity_map, write_contact_sheet
from secondeye.system.errors import UserError
from secondeye.video.probe import probe
from secondeye.video.read import ShotReader

INVERTED, SURE = -0.1, 0.5  # a score and a confidence that must not meet
COLUMNS = ("clips", "rank correlation", "confidence", "largest")
OVER_CLIPS = ("Spearman with confidence", "mean difference from confidence", "inverted but sure")
MAX_FILM_FRAMES = 96  # of a shot


class Result(NamedTuple):
    """What was measured on one clip."""

    clip: Clip
    depth: Tensor  # [t, 1, H, W]
    score: float  # rank correlation
    confidence: float


def main() -> None:
    """Print the tables."""
    parser = make_parser(__doc__)
    parser.add_argument("--clips", action="store_true", help="print every clip")
    parser.add_argument("--sheet", type=Path, help="write the middle frames, depths and disparities as a PNG")
    parser.add_argument("--films", type=existing, nargs="*", default=[])
    chosen = parser.parse_args()
    print(f"{machine()}\n")
    if chosen.films:
        print("| film | frames | confidence |\n|---|---|---|")
        for film in chosen.films:
            print_film(film)
        return
    footage = os.environ.get("SECONDEYE_FOOTAGE")
    if not footage:
        raise UserError("SECONDEYE_FOOTAGE is not set: set it to the folder of real films")
    results = [measure(clip) for clip in all_clips(Path(footage))]
    if chosen.clips:
        print_clips(results)
    print_kinds(results)
    if chosen.sheet:
        write_contact_sheet(chosen.sheet, [tiles(result) for result in results])


def measure(clip: Clip) -> Result:
    """Estimate a clip's depth and score it."""
    estimates = list(MotionEstimator()(clip.frames.split(8)))
    depth = torch.cat([estimate.depth for estimate in estimates])[::EVERY]
    depth = resize(depth, *clip.disparity.shape[-2:])
    confidence = float(np.mean([estimate.confidence for estimate in estimates]))
    return Result(clip, depth, rank_correlation(depth, clip.disparity, clip.known), confidence)


def rank_correlation(guess: Tensor, truth: Tensor, known: Tensor) -> float:
    """Return Spearman's correlation where the disparity is known, averaged over frames; 0 for flat depth."""
    frames = zip(guess, truth, known, strict=True)
    found = [spearmanr(g[k].numpy(), t[k].numpy()).statistic for g, t, k in frames]
    return float(np.nan_to_num(found).mean())


def print_clips(results: Sequence[Result]) -> None:
    """Print a row for each clip."""
    print("| clip | kind | half | rank correlation | confidence |\n|---|---|---|---|---|")
    for clip, _, score, confidence in results:
        half = "tuning" if clip.tuning else "held out"
        print(f"| {clip.source} | {clip.kind} | {half} | {score:.2f} | {confidence:.2f} |")
    print()


def print_kinds(results: Sequence[Result]) -> None:
    """Print the means of each kind, and the correlations over clips."""
    halves = {
        "tuning": [r for r in results if r.clip.tuning],
        "held out": [r for r in results if not r.clip.tuning],
    }
    header = ["kind", *(f"{half}: {name}" for half in halves for name in COLUMNS)]
    print(f"| {' | '.join(header)} |\n{'|---' * len(header)}|")
    for kind in dict.fromkeys(result.clip.kind for result in results):
        cells = [cell for half in halves.values() for cell in kind_cells(half, kind)]
        print(f"| {kind} | {' | '.join(cells)} |")
    header = [*("clips", "number", "mean rank correlation"), *OVER_CLIPS]
    print(f"\n| {' | '.join(header)} |\n{'|---' * len(header)}|")
    for name, part in (*halves.items(), ("all", results)):
        scores, confidences = (np.array([r[column] for r in part]) for column in (2, 3))
        wrong = int(((scores < INVERTED) & (confidences > SURE)).sum())
        ranked = spearmanr(confidences, scores).statistic
        figures = scores.mean(), ranked, abs(scores - confidences).mean()
        print(f"| {name} | {len(part)} | {' | '.join(f'{figure:.2f}' for figure in figures)} | {wrong} |")


def kind_cells(half: Sequence[Result], kind: str) -> list[str]:
    """Return the cells of one kind: clips, mean score, mean and largest confidence."""
    own = [result for result in half if result.clip.kind == kind]
    if not own:
        return ["0", "", "", ""]
    confidences = [result.confidence for result in own]
    score = np.mean([result.score for result in own])
    return [str(len(own)), f"{score:.2f}", f"{np.mean(confidences):.2f}", f"{max(confidences):.2f}"]


def print_film(film: Path) -> None:
    """Print the confidence of each shot."""
    info = probe(film)
    plan = plan_shots(info, cut_threshold=CUT_THRESHOLD, min_shot_frames=shortest_shot_frames(info.fps))
    reader = ShotReader(film, plan.timestamps, working_size(info.height, info.width))
    for start, stop in plan.shots:
        stop = min(stop, start + MAX_FILM_FRAMES)
        windows = (torch.from_numpy(frame.rgb)[None] for frame in reader.read(start, stop))
        confidence = np.mean([estimate.confidence for estimate in MotionEstimator()(windows)])
        print(f"| {film.name} | {start} to {stop - 1} | {confidence:.2f} |", flush=True)


def tiles(result: Result) -> list[Tile]:
    """Return the middle frame, its depth and its disparity."""
    clip, depth, score, confidence = result
    middle = len(depth) // 2
    truth = np.where(clip.known[middle, 0], clip.disparity[middle, 0], np.nan)
    maps = [disparity_map(m, *np.nanpercentile(m, [1, 99])) for m in (depth[middle, 0].numpy(), truth)]
    labels = f"{clip.source}: {clip.kind}", f"depth {score:.2f}, {confidence:.2f}", "disparity"
    return list(zip(labels, [clip.frames[middle * EVERY].numpy(), *maps], strict=True))


if __name__ == "__main__":
    run(main)
