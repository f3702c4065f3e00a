"""Pairs made from a single view: sharpened edges against a maximum gradient, see training/monocular.py.

python benchmarks/mono_pairs.py [--shots N] [--films FILM ...]

Synthetic shots: their true disparities are blurred as depth networks blur them, and the holes of the pair are
compared with the true disocclusion. Films: disparities are estimated as for a training. Tables in Markdown.
"""

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from command import existing, make_parser, run
from torch import Tensor

from secondeye.depth.edges import sharpen
from secondeye.synthetic import render_shot
from secondeye.training.film_runs import read_runs
from secondeye.training.monocular import RUN_FRAMES, double_warp, plausible_disparity

HEIGHT, WIDTH = 288, 512
SEED = 90_201  # of the first synthetic shot; no preset uses it
BLUR_PX = 4.0  # standard deviation
GRADIENTS = (0.1, 0.2, 0.33, 0.5)  # px per px
FLECK_PX = 8  # a smaller hole is a fleck
HEADER = ("edges", "holes, %", "flecks, % of holes", "PSNR where seen, dB")


class Pair(NamedTuple):
    """One side of the comparison: how the disparity is made and its maximum gradient."""

    name: str
    sharp: bool
    max_gradient: float


PAIRS = (
    Pair("sharpened", True, 0.0),
    Pair("as estimated, no maximum", False, 0.0),
    *(Pair(f"maximum {gradient} px per px", False, gradient) for gradient in GRADIENTS),
)


def main() -> None:
    """Print both tables."""
    parser = make_parser(__doc__)
    parser.add_argument("--shots", type=int, default=12, help="synthetic shots (default: 12)")
    parser.add_argument("--films", type=existing, nargs="*", default=[], help="monocular films")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    shots = [render_shot(SEED + n, 1, HEIGHT, WIDTH) for n in range(chosen.shots)]

    def blurred(index: int, sharp: bool) -> Tensor:
        soft = blur(shots[index].right_disparity)
        return sharpen(soft, shots[index].right) if sharp else soft

    print_table([shot.right for shot in shots], blurred, [shot.right_occlusion for shot in shots])
    if chosen.films:
        runs = read_films(chosen.films)

        @cache
        def estimated(index: int, sharp: bool) -> Tensor:
            return plausible_disparity(runs[index], np.random.default_rng(index), sharp=sharp)

        print_table(runs, estimated, [])


def read_films(films: Iterable[Path]) -> list[Tensor]:
    """Read runs of frames as a training does."""
    return [frames for film in films for frames in read_runs(film, RUN_FRAMES, HEIGHT, WIDTH)]


def blur(disparity: Tensor) -> Tensor:
    """Blur maps [T, 1, H, W] with a Gaussian."""
    planes = [cv2.GaussianBlur(plane.numpy(), (0, 0), BLUR_PX) for plane in disparity[:, 0]]
    return torch.from_numpy(np.stack(planes))[:, None]


def print_table(
    views: list[Tensor],  # [T, 3, H, W] in [0, 1], the right views
    make_disparity: Callable[[int, bool], Tensor],  # index of a view, whether sharpened -> px
    truth: list[Tensor],  # true disocclusion of each view, bool [T, 1, H, W]; or nothing
) -> None:
    """Print a row for each way to make pairs, means over views."""
    header = (*HEADER, "overlap with the true holes (IoU)") if truth else HEADER
    print(f"\n{len(views)} views\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for pair in PAIRS:
        rows = []
        for index, right in enumerate(views):
            sample = double_warp(right, make_disparity(index, pair.sharp), "warp", pair.max_gradient)
            holes = sample.coverage < 0.5
            error = (sample.warped - right).square().mean(1, keepdim=True)[~holes].mean()
            row = [100 * float(holes.float().mean()), 100 * fleck_share(holes), -10 * float(error.log10())]
            if truth:
                row.append(float((holes & truth[index]).sum() / (holes | truth[index]).sum()))
            rows.append(row)
        means = np.mean(rows, axis=0)
        decimals = (2, 2, 1, 3)
        numbers = [f"{value:.{places}f}" for value, places in zip(means, decimals, strict=False)]
        print(f"| {' | '.join((pair.name, *numbers))} |", flush=True)


def fleck_share(
    holes: Tensor,  # bool [T, 1, H, W]
) -> float:
    """Return the share of hole pixels that lie in holes of fewer than FLECK_PX pixels."""
    areas = [
        cv2.connectedComponentsWithStats(plane[0].numpy().astype(np.uint8), connectivity=8)[2][1:, 4]
        for plane in holes
    ]
    sizes = np.concatenate(areas)
    return float(sizes[sizes < FLECK_PX].sum() / max(1, sizes.sum()))


if __name__ == "__main__":
    run(main)
