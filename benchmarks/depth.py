"""Measure how well weight-free depth orders the scene, on side-by-side stereo films.

    python benchmarks/depth.py FILM [FILM ...] [--frames 60]

The ground truth is the block matcher's disparity where it passes the left-right check. The score is
Spearman's rank correlation, averaged over every eighth frame; baselines are a vertical ramp and the flow
magnitude.
"""

from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from aligned_views import align_views
from command import existing, make_parser, run
from machine import machine
from scipy.stats import spearmanr
from torch import Tensor

from secondeye.depth import make_depth_estimator
from secondeye.film.packing import crop_and_resize, unpack
from secondeye.imaging.arrays import frames_from_uint8, resize
from secondeye.imaging.optical_flow import dense_flow, flow_magnitude
from secondeye.matching import make_matcher
from secondeye.matching.consistency import match_both_ways
from secondeye.video.read import decode_film

HEIGHT, WIDTH, EVERY = 216, 384, 8


def main() -> None:
    """Print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("films", type=existing, nargs="+")
    parser.add_argument("--frames", type=int, default=60)
    options = parser.parse_args()
    print(f"{machine()}\n\n| film | vertical ramp | flow magnitude | motion | motion's confidence |")
    print("|---|---|---|---|---|")
    for film in options.films:
        figures = " | ".join(f"{value:.2f}" for value in score(film, options.frames))
        print(f"| {film.name} | {figures} |")


def score(film: Path, frames: int) -> list[float]:
    """Return the rank correlations of ramp, flow magnitude and motion, and motion's mean confidence."""
    eyes = [unpack(frame.rgb, "sbs") for frame in islice(decode_film(film), frames)]
    left, right = (
        frames_from_uint8(
            torch.from_numpy(
                np.stack([crop_and_resize(pair[side], HEIGHT, WIDTH, Fraction(1)) for pair in eyes])
            )
        )
        for side in (0, 1)
    )
    near, far = align_views(left, right, EVERY)
    matcher = make_matcher("block", round(0.2 * WIDTH))
    disparity, known = match_both_ways(matcher, near[::EVERY], far[::EVERY], tolerance_px=1.0)
    estimates = list(make_depth_estimator("motion", None, "cpu")(iter(near.split(8))))
    depth = resize(torch.cat([estimate.depth for estimate in estimates]), *near.shape[-2:])[::EVERY]
    ramp = torch.linspace(0, 1, HEIGHT).view(1, 1, -1, 1).expand_as(depth)
    maps = {"ramp": ramp, "flow": flow_magnitude_frames(near)[::EVERY], "motion": depth}
    ranks = [rank_correlation(guess, disparity, known) for guess in maps.values()]
    return [*ranks, float(np.mean([estimate.confidence for estimate in estimates]))]


def flow_magnitude_frames(frames: Tensor) -> Tensor:
    """Return the magnitude of the flow to the next frame, [T, 1, H, W] px."""
    gray = (frames.mean(1) * 255).round().byte().numpy()
    sizes = [
        flow_magnitude(dense_flow(here, there))
        for here, there in zip(gray, [*gray[1:], gray[-2]], strict=True)
    ]
    return torch.from_numpy(np.stack(sizes))[:, None]


def rank_correlation(guess: Tensor, truth: Tensor, known: Tensor) -> float:
    """Return Spearman's correlation where the ground truth is known, averaged over frames."""
    frames = zip(guess, truth, known, strict=True)
    return float(np.mean([spearmanr(g[k].numpy(), t[k].numpy()).statistic for g, t, k in frames]))


if __name__ == "__main__":
    run(main)
