"""Measure how much steadier the depth of an estimator that sees single frames becomes, and what that costs.

python benchmarks/depth_steady.py [--shots 6] [--frames 24]

True depth of synthetic shots is blurred and gets a random scale, shift and noise in each frame, as such
estimators have. Flicker is the mean change of a surface point from frame to frame beyond the truth's; AbsRel
follows one fit of scale and shift to the whole shot; edges are the F-score. All raw and smoothed.
"""

import cv2
import numpy as np
import torch
from command import make_parser, run
from machine import machine

from secondeye.depth.temporal_smoothing import SmoothedFrame, smooth
from secondeye.imaging.optical_flow import backward_warp, dense_flow, forward_backward_error, to_gray
from secondeye.metrics.depth import edge_f_score
from secondeye.synthetic import render_shot

HEIGHT, WIDTH = 288, 512
BLUR_PX, SCALE, SHIFT, NOISE = 2.0, 0.06, 0.04, 0.01  # of the simulated estimator


def main() -> None:
    """Print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--shots", type=int, default=6)
    parser.add_argument("--frames", type=int, default=24)
    options = parser.parse_args()
    print(f"{machine()}\n{options.frames} frames of {WIDTH}x{HEIGHT}\n")
    print(
        "| shot | flicker, % of range: raw | smoothed | AbsRel, %: raw | smoothed | edges: raw | smoothed |"
    )
    print("|---|---|---|---|---|---|---|")
    rows = []
    for seed in range(101, 101 + options.shots):
        shot = render_shot(seed, options.frames, HEIGHT, WIDTH)
        truth = shot.disparity[:, 0].numpy()
        truth = (truth - truth.min()) / np.ptp(truth)
        gray = to_gray(shot.left)
        raw = simulate(truth, seed)
        state: SmoothedFrame | None = None
        smoothed = []
        for depth, image in zip(raw, gray, strict=True):
            state = smooth(depth, image, state)
            smoothed.append(state.depth)
        row = [
            value
            for pair in zip(scores(raw, truth, gray), scores(np.stack(smoothed), truth, gray), strict=True)
            for value in pair
        ]
        rows.append(row)
        print(f"| {seed} | {line(row)} |", flush=True)
    print(f"| mean | {line(np.mean(rows, axis=0))} |")


def line(row: "np.ndarray | list[float]") -> str:
    """Return the numbers of a row."""
    return " | ".join(f"{value:.2f}" for value in row)


def simulate(truth: np.ndarray, seed: int) -> np.ndarray:
    """Return true depth, [T, H, W] in [0, 1], as an estimator of single frames would see it."""
    rng = np.random.default_rng(seed)
    frames = []
    for depth in truth:
        blurred = cv2.GaussianBlur(depth, (0, 0), BLUR_PX)
        noise = cv2.resize(
            rng.normal(0, NOISE, (9, 16)).astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC
        )
        frames.append(blurred * np.float32(rng.normal(1, SCALE)) + np.float32(rng.normal(0, SHIFT)) + noise)
    return np.stack(frames)


def scores(depth: np.ndarray, truth: np.ndarray, gray: np.ndarray) -> list[float]:
    """Return flicker and AbsRel in percent, and the F-score of edges."""
    x, y = depth.ravel().astype(np.float64), truth.ravel()
    scale, shift = np.polyfit(x[::7], y[::7], 1)
    fitted = (depth * scale + shift).astype(np.float32)
    changes = []
    for before, after in zip(range(len(depth) - 1), range(1, len(depth)), strict=True):
        flow = dense_flow(gray[after], gray[before])
        usable = forward_backward_error(flow, dense_flow(gray[before], gray[after])) < 1
        change = fitted[after] - backward_warp(fitted[before], flow)
        true_change = truth[after] - backward_warp(truth[before], flow)
        changes.append(float(np.abs(change - true_change)[usable].mean()))
    relative = float((np.abs(fitted - truth) / (truth + 0.5)).mean())
    planes = [
        torch.from_numpy(np.ascontiguousarray(each))[:, None] * 0.05 * WIDTH
        for each in (fitted, truth.astype(np.float32))
    ]
    edges = edge_f_score(*planes)
    return [100 * float(np.mean(changes)), 100 * relative, float(np.nanmean(edges.numpy()))]


if __name__ == "__main__":
    run(main)
