"""Conversions at other strengths and convergences, honest and degraded, and what alignment makes of them.

    python tests/aligned_sabotage.py

prints both tables of docs/metrics.md. An honest conversion is the left view, warped with its exact disparity
times a strength plus a shift, and filled; degradations are those of sabotage.py, made of it.
"""

import math
from functools import cached_property
from itertools import product
from typing import NamedTuple

import torch
from sabotage import CAST, CAUGHT_BY, SABOTAGES, is_worse
from torch import Tensor

from secondeye.evaluation.aligned_reference import (
    Alignment,
    fit_alignment,
    prepare_aligned,
    sample_disparities,
)
from secondeye.evaluation.baselines import shift_left
from secondeye.evaluation.eval_clips import EvalFrames
from secondeye.evaluation.methods import warp_and_inpaint
from secondeye.evaluation.regions import PairMatch, match_by_search, regions_from_truth
from secondeye.evaluation.score import PreparedFrames, compute, prepare, update
from secondeye.imaging.arrays import occlusion_mask
from secondeye.inpaint.fill import fill_shot
from secondeye.matching.consistency import fill_from_background
from secondeye.synthetic import render_shot
from secondeye.warp import warp

SHOTS, SIZE = (1, 16), (8, 256, 440)  # seeds; frames, height, width
CHOICES = ((1.0, 0.0), (1.0, 8.0), (1.0, -8.0), (0.8, 0.0), (0.5, 5.0), (0.3, -5.0), (1.5, 0.0))
OTHER = (0.6, 4.0)  # strength and shift, px, of the conversions that are degraded
UNCHANGED = {CAST}  # alignment does not touch the scores that detect it, and it needs more frames
FORGIVEN = "shifted by 2 px"  # a shift is another convergence
SHOWN = ("psnr_visible_db", "psnr_disoccluded_db", "haarpsi", "siou", "epe_px")


class Aligned(NamedTuple):
    """The scores of a conversion, aligned."""

    alignment: Alignment
    scores: dict[str, float]
    flat_scores: dict[str, float]


class Study:
    """A synthetic shot and conversions of it."""

    def __init__(self, seed: int, frames: int, height: int, width: int) -> None:
        shot = render_shot(seed, frames, height, width)
        regions = regions_from_truth(shot.right_disparity, shot.right_occlusion)
        self.clip = EvalFrames(shot.left, shot.right, shot.disparity, regions)

    @cached_property
    def raw(self) -> PreparedFrames:
        """The scores against the true right view."""
        return prepare(self.clip.left, self.clip.right, self.clip.regions)

    @cached_property
    def match(self) -> PairMatch:
        """The true pair, matched."""
        return match_by_search(self.clip.left, self.clip.right)

    def conversion(self, strength: float, shift_px: float) -> tuple[EvalFrames, Tensor]:
        """Return an honest conversion, and the clip with disparity and regions at that strength."""
        left = self.clip.left
        disparity = strength * self.clip.disparity + shift_px
        warped = warp(left, disparity, kernel="bilinear")
        holes = occlusion_mask(warped.coverage)
        regions = regions_from_truth(fill_from_background(warped.disparity, ~holes), holes)
        made = warp_and_inpaint(left, disparity, fill_shot)
        return EvalFrames(left, self.clip.right, disparity, regions), made

    def align(self, made: Tensor) -> Aligned:
        """Fit strength and convergence, and score."""
        left, right, _, regions = self.clip
        alignment, inputs = self.fit(made), self.raw
        if not alignment.obstacle:
            inputs = prepare_aligned(left, right, regions, self.match, alignment)
        flat = shift_left(left, round(alignment.median_px))
        return Aligned(alignment, score(inputs, made), score(inputs, flat))

    def fit(self, made: Tensor) -> Alignment:
        """Fit strength and convergence."""
        samples = sample_disparities(self.clip.left, self.clip.right, made)
        return fit_alignment(samples, made.shape[-1])

    @cached_property
    def honest(self) -> Aligned:
        """The honest conversion that is degraded."""
        return self.align(self.conversion(*OTHER)[1])

    def degraded(self, name: str) -> Aligned:
        """Return one of its degradations."""
        return self.align(SABOTAGES[name](*self.conversion(*OTHER)))


def score(inputs: PreparedFrames, made: Tensor) -> dict[str, float]:
    """Return all scores of a right view."""
    return compute(update(inputs, made, overlap=0, learned=None))


def missed(name: str, honest: Aligned, degraded: Aligned) -> list[str]:
    """Return the scores that should be clearly worse, by the bounds of sabotage.py, but are not."""
    columns = [column for column in CAUGHT_BY[name] if not math.isnan(honest.scores[column])]
    return [c for c in columns if not is_worse(c, degraded.scores[c], honest.scores[c])]


def main() -> None:
    """Print both tables."""
    studies = {seed: Study(seed, *SIZE) for seed in SHOTS}
    head = " | ".join(f"`{name}`" for name in SHOWN)
    print(f"| shot | strength, shift | fitted | {head} | without depth: `psnr_visible_db`, `haarpsi` |")
    print("|" + "---|" * (len(SHOWN) + 4))
    for seed, (strength, shift_px) in product(SHOTS, CHOICES):
        study = studies[seed]
        made = study.conversion(strength, shift_px)[1]
        raw, aligned = score(study.raw, made), study.align(made)
        fit, flat = aligned.alignment, aligned.flat_scores
        cells = " | ".join(f"{raw[name]:.3g}, {aligned.scores[name]:.3g}" for name in SHOWN)
        print(
            f"| {seed} | {strength:g}, {shift_px:+g} px | {fit.scale:.2f}, {fit.shift_px:+.1f} px | {cells} "
            f"| {flat['psnr_visible_db']:.3g}, {flat['haarpsi']:.3g} |",
            flush=True,
        )
    study = studies[SHOTS[0]]
    print(
        "\n| degradation | strength | caught by (honest, degraded) | not clearly worse |\n|---|---|---|---|"
    )
    for name in (name for name in SABOTAGES if name not in UNCHANGED):
        after = study.degraded(name)
        lost = missed(name, study.honest, after)
        cells = {
            column: f"`{column}` {study.honest.scores[column]:.3g}, {after.scores[column]:.3g}"
            for column in CAUGHT_BY[name]
        }
        caught = "; ".join(cell for column, cell in cells.items() if column not in lost)
        others = "; ".join(cell for column, cell in cells.items() if column in lost)
        strength = f"{after.alignment.scale:.2f}{', not aligned' if after.alignment.obstacle else ''}"
        print(f"| {name} | {strength} | {caught} | {others} |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
