"""Aligned scores on real stereo films: conversions at other strengths and convergences, and inverted ones.

python benchmarks/aligned_scores.py    # with SECONDEYE_FOOTAGE

Conversions are the left view, warped with the disparity that the stage `match` finds times a strength plus a
shift, and filled by `fill`; so their errors are those of matching and filling. Nothing was tuned on these
films. Cells are raw, aligned; `flat` is a film without depth against the aligned reference.
"""

import os
import sys
import time
from pathlib import Path

import torch
from command import make_parser, run
from machine import machine
from real_films import FILMS, read_clips
from torch import Tensor

from secondeye.evaluation.aligned_reference import (
    fit_alignment,
    prepare_aligned,
    sample_disparities,
)
from secondeye.evaluation.baselines import shift_left
from secondeye.evaluation.eval_clips import EvalFrames
from secondeye.evaluation.methods import warp_and_inpaint
from secondeye.evaluation.regions import match_by_search
from secondeye.evaluation.score import PreparedFrames, compute, prepare, update
from secondeye.inpaint.fill import fill_shot

CHOICES = (
    (1.0, 0.0),
    (1.0, 2.0),
    (0.5, 0.0),
    (0.3, 1.0),
    (1.3, 0.0),
    (-0.5, 0.0),
)  # strength, shift in % of width
COLUMNS = ("psnr_visible_db", "psnr_disoccluded_db", "haarpsi", "siou", "epe_px")


def main() -> None:
    """Print the table."""
    make_parser(__doc__).parse_args()
    if "SECONDEYE_FOOTAGE" not in os.environ:
        sys.exit("aligned_scores.py: SECONDEYE_FOOTAGE must name a folder of real films")
    torch.set_num_threads(1)
    head = " | ".join(f"`{name}`" for name in COLUMNS)
    print(f"{machine()}\n\n| film | strength, shift | fitted | {head} | flat: `haarpsi` | s a frame |")
    print("|" + "---|" * (len(COLUMNS) + 5))
    for film in FILMS:
        clip = next(iter(read_clips(Path(os.environ["SECONDEYE_FOOTAGE"]), film)))
        raw = prepare(clip.left, clip.right, clip.regions)
        for strength, shift_percent in CHOICES:
            print(_row(film.name, clip, raw, strength, shift_percent), flush=True)


def _row(name: str, clip: EvalFrames, raw: PreparedFrames, strength: float, shift_percent: float) -> str:
    width = clip.left.shape[-1]
    disparity = strength * clip.disparity + shift_percent / 100 * width
    made = warp_and_inpaint(clip.left, disparity, fill_shot)
    start = time.perf_counter()
    alignment = fit_alignment(sample_disparities(clip.left, clip.right, made), width)
    inputs = raw
    if not alignment.obstacle:
        match = match_by_search(clip.left, clip.right)
        inputs = prepare_aligned(clip.left, clip.right, clip.regions, match, alignment)
    before, after = _score(raw, made), _score(inputs, made)
    seconds = (time.perf_counter() - start) / len(made)
    flat = _score(inputs, shift_left(clip.left, round(alignment.median_px)))
    cells = " | ".join(f"{before[column]:.3g}, {after[column]:.3g}" for column in COLUMNS)
    shift = f"{100 * alignment.shift_px / width:+.1f} %"
    fitted = f"{alignment.scale:.2f}, {'not aligned' if alignment.obstacle else shift}"
    return (
        f"| {name} | {strength:g}, {shift_percent:+g} % | {fitted} | {cells} | {flat['haarpsi']:.3g} "
        f"| {seconds:.1f} |"
    )


def _score(inputs: PreparedFrames, made: Tensor) -> dict[str, float]:
    return compute(update(inputs, made, overlap=0, learned=None))


if __name__ == "__main__":
    run(main)
