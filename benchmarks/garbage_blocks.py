"""Measure which garbage the guardrail of blocks catches on real films, and how far honest methods differ.

    SECONDEYE_FOOTAGE=... python benchmarks/garbage_blocks.py [--films candle toon]

Each block of what `fill` inpaints is spoilt alone, in each way; the guardrail compares with `fill` itself.
"By maxima" compares the worst blocks of both clips instead, with the bound that it had as a guardrail. The
bound of blocks was chosen on motorcycle, fence and toon; candle, cones and kitti are held out.
"""

import os
from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from command import make_parser, run
from light import METHODS
from machine import machine
from real_films import FILMS, RealFilm, read_clips
from torch import Tensor

from secondeye.evaluation.eval_clips import EvalFrames
from secondeye.evaluation.guardrails import MAX_BLOCK_LOSSES
from secondeye.evaluation.methods import make_right
from secondeye.evaluation.regions import BORDER, DISOCCLUDED
from secondeye.metrics.outliers import chroma_blocks, error_blocks
from secondeye.system.errors import UserError

MAX_ERROR, MAX_ERROR_OF_MAXIMA = MAX_BLOCK_LOSSES["worst_block"][2], 0.5
SHIPPED = ("fill", "light")


def gray_noise(clip: EvalFrames) -> Tensor:
    noise = torch.rand(clip.right[:, :1].shape, generator=torch.Generator().manual_seed(0))
    return noise.expand_as(clip.right)


def elsewhere(clip: EvalFrames) -> Tensor:
    """Return sharp texture of the scene, from half a width away."""
    return clip.right.roll(clip.right.shape[-1] // 2, -1)


GARBAGE: dict[str, Callable[[EvalFrames], Tensor]] = {
    "gray noise": gray_noise,
    "flat gray": lambda clip: torch.full_like(clip.right, 0.5),
    "black": lambda clip: torch.zeros_like(clip.right),
    "texture from elsewhere": elsewhere,
}


def main() -> None:
    """Print both tables."""
    parser = make_parser(__doc__)
    names = [film.name for film in FILMS]
    parser.add_argument("--films", nargs="+", choices=names, default=names)
    options = parser.parse_args()
    footage = os.environ.get("SECONDEYE_FOOTAGE")
    if not footage:
        raise UserError("SECONDEYE_FOOTAGE must name the folder of real films")
    caught, honest = [], []
    for film in FILMS:
        if film.name in options.films:
            one, other = rows_of(film, Path(footage))
            caught.append(one)
            honest.append(other)
    print(f"{machine()}\n")
    print_table(["spoilt blocks that are caught: by maxima, by blocks", "blocks", *GARBAGE], caught)
    heads = [
        f"largest difference of {', '.join(method.name for method in METHODS)}",
        "of maxima",
        "of blocks",
        f"of blocks, {' or '.join(SHIPPED)} worse",
        f"of blocks, {' and '.join(SHIPPED)}",
        "of blocks in chroma, levels",
    ]
    print_table(heads, honest)


def rows_of(film: RealFilm, footage: Path) -> tuple[list[str], list[str]]:
    """Return the film's row of each table."""
    count, found = 0, {name: np.zeros(2, int) for name in GARBAGE}
    largest = np.zeros(5)
    for clip in read_clips(footage, film):
        where = (clip.regions == DISOCCLUDED) | (clip.regions == BORDER)
        made = {method.name: make_right(method, clip).right for method in METHODS}
        errors = {name: error_blocks(right, clip.right, where).numpy() for name, right in made.items()}
        chroma = {name: 255 * chroma_blocks(right, clip.right, where).numpy() for name, right in made.items()}
        known = ~np.isnan(errors["fill"])
        count += known.sum()
        for name, spoil in GARBAGE.items():
            spoilt = error_blocks(spoil(clip), clip.right, where).numpy()
            found[name] += caught_of(errors["fill"][known], spoilt[known])
        for one, other in permutations(errors, 2):
            by_blocks = np.nanmax(errors[one] - errors[other])
            differences = (
                np.nanmax(errors[one]) - np.nanmax(errors[other]),
                by_blocks,
                by_blocks if one in SHIPPED else 0,
                by_blocks if one in SHIPPED and other in SHIPPED else 0,
                np.nanmax(chroma[one] - chroma[other]),
            )
            largest = np.maximum(largest, differences)
    cells = [f"{by_maxima}, {by_blocks}" for by_maxima, by_blocks in found.values()]
    return [film.name, str(count), *cells], [film.name, *(f"{value:.2f}" for value in largest)]


def caught_of(
    honest: np.ndarray,  # [N] error of every block of a clip
    spoilt: np.ndarray,  # [N] the same where it alone is spoilt
) -> tuple[int, int]:
    """Return how many spoilt blocks are caught by the maxima of the clip, and by blocks."""
    by_maxima = spoilt - honest.max() > MAX_ERROR_OF_MAXIMA
    return int(by_maxima.sum()), int((spoilt - honest > MAX_ERROR).sum())


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print()


if __name__ == "__main__":
    run(main)
