"""Measure the speed of splat and warp against the released algorithm in torch, and the sharpness of the warp.

    python benchmarks/splat.py [--fresh-memory] [--pairs FILM ...] [--shots 8] [--sizes 1080p 4K]

Both baselines are the released three-pass splat as torch scatters, reduced to the two columns that a
horizontal move reaches (the released kernel writes four pixels, two of them with weight 0). One scatters into
the whole frame like the released kernel, for moves in any direction; the other moves pixels only along their
row and is the fastest torch version we know. Each time is the best of 15 runs.

By default the process keeps and reuses the memory of large arrays; with --fresh-memory each one is allocated
from the system again, as torch does with arrays above 32 MB (the baselines' at 4K).

FILM is a side-by-side stereo film; every 30th frame of it is matched and warped at its own size.
"""

import ctypes
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from aligned_views import align_views
from command import existing, make_parser, run
from layers import layered_scene
from machine import machine
from torch import Tensor
from tqdm import tqdm

from secondeye.evaluation.regions import VISIBLE, regions_from_match
from secondeye.film.packing import unpack
from secondeye.imaging.arrays import frames_from_uint8
from secondeye.matching import make_matcher
from secondeye.matching.consistency import fill_from_background, match_both_ways
from secondeye.metrics.image_quality import psnr_db
from secondeye.splat import splat
from secondeye.synthetic import Shot, render, render_shot
from secondeye.video.read import decode_film
from secondeye.warp import warp

SIZES = {"1080p": (1080, 1920), "4K": (2160, 3840)}
MAX_DISPARITY_SHARE = 0.05  # of the width, in the timed scenes
SILHOUETTE_PX = 3  # radius around depth edges of the right view that counts as silhouette
SYNTHETIC_HEIGHT, SYNTHETIC_WIDTH = 540, 960
COPIED_BYTES = 1 << 28


class Method(NamedTuple):
    name: str
    run: Callable[[Tensor, Tensor], tuple[Tensor, ...]]  # images and disparity
    goal: float | None  # target speed-up over the baseline


CPU_METHODS = [
    Method("splat", lambda images, disparity: splat(images, disparity), 18),
    Method("warp, Lanczos-3", lambda images, disparity: warp(images, disparity), 12),
    Method("warp, bilinear", lambda images, disparity: warp(images, disparity, kernel="bilinear"), 20),
]
GPU_METHODS = [
    *(method._replace(goal=None) for method in CPU_METHODS),
    Method("splat, not deterministic", lambda p, d: splat(p, d, backend="triton_nondeterministic"), None),
]


def main() -> None:
    """Print the tables."""
    parser = make_parser(__doc__)
    parser.add_argument("--fresh-memory", action="store_true")
    parser.add_argument("--pairs", type=existing, nargs="*", default=[])
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--sizes", nargs="*", choices=tuple(SIZES), default=list(SIZES), help="to be timed")
    options = parser.parse_args()
    set_memory(options.fresh_memory)
    print(machine())
    print_speed("cpu", CPU_METHODS, options.sizes)
    if torch.cuda.is_available():
        print_speed("cuda", GPU_METHODS, options.sizes)
    print_sharpness(options.shots)
    if options.pairs:
        print_pairs(options.pairs)
    print_cracks()


# ---- speed


def set_memory(fresh: bool) -> None:
    """Fix glibc's policy for large arrays; its adaptive default changes a baseline's time fourfold."""
    trim_threshold, mmap_threshold, mmap_max = -1, -3, -4  # mallopt's names for them
    libc = ctypes.CDLL(None)
    if fresh:
        libc.mallopt(mmap_threshold, 1 << 20)
    else:
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, (1 << 31) - 1)


def print_speed(device: str, methods: list[Method], sizes: list[str]) -> None:
    """Print milliseconds per uint8 frame and the speed-up over both baselines."""
    bandwidth = copy_bandwidth(device)
    print(f"\nOn the {device}, uint8; copying memory: {bandwidth / 1e9:.0f} GB/s read and written\n")
    columns = "ms per frame | speed-up over released | goal | speed-up over rows | of copying"
    print(f"| size | disparity | method | {columns} |")
    print("|---|---|---|---|---|---|---|---|")
    generator = torch.Generator().manual_seed(0)
    for size in sizes:
        height, width = SIZES[size]
        images = torch.randint(0, 256, (1, height, width, 3), generator=generator, dtype=torch.uint8)
        for kind in ("layers", "smooth", "random"):
            arrays = images.to(device), timed_disparity(kind, height, width).to(device)
            released, by_rows = (
                best_seconds(partial(three_passes, *arrays, scatter), device)
                for scatter in (scatter_anywhere, scatter_in_rows)
            )
            print(f"| {size} | {kind} | three passes, as released | {1e3 * released:.2f} | 1.0 | | | |")
            print(
                f"| {size} | {kind} | three passes, by rows | {1e3 * by_rows:.2f} | | | 1.0 | |", flush=True
            )
            for method in methods:
                taken = best_seconds(partial(method.run, *arrays), device)
                moved = sum(array.nbytes for array in (*arrays, *method.run(*arrays)))
                goal = method.goal if method.goal and (size, kind) == ("1080p", "layers") else ""
                ratios = f"{released / taken:.1f} | {goal} | {by_rows / taken:.1f}"
                row = f"| {size} | {kind} | {method.name} | {1e3 * taken:.2f} | {ratios} |"
                print(f"{row} {moved / taken / bandwidth:.0%} |", flush=True)


def timed_disparity(kind: str, height: int, width: int) -> Tensor:
    """Return 25 discs on a ramp, the ramp alone, or noise; [1, 1, H, W] px."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    reach = MAX_DISPARITY_SHARE * width
    if kind == "random":
        return torch.from_numpy(rng.uniform(-reach, reach, (1, 1, height, width)).astype(np.float32))
    disparity = reach * (y / height - 1)
    for _ in range(25 if kind == "layers" else 0):
        radius = rng.uniform(0.02, 0.1) * width
        inside = (x - rng.uniform(0, width)) ** 2 + (y - rng.uniform(0, height)) ** 2 < radius**2
        disparity[inside] = rng.uniform(-reach, reach)
    return torch.from_numpy(disparity)[None, None]


Scatter = Callable[[Tensor, Tensor], Tensor]  # planes [1, C, H, W], landing columns [1, 1, H, W] -> sums


def three_passes(images: Tensor, disparity: Tensor, scatter: Scatter) -> tuple[Tensor, Tensor]:
    """Run the released algorithm: splat weighted colours, weights and ones one after the other."""
    frames = (images.float() / 255).permute(0, 3, 1, 2)
    weight = 1.414 ** (disparity - disparity.min())
    landing = torch.arange(disparity.shape[3], device=disparity.device) - disparity
    colours, weights, ones = (
        scatter(plane, landing) for plane in (frames * weight, weight, torch.ones_like(weight))
    )
    view = (colours / weights.clamp(min=1e-6) * 255).round().clamp(0, 255).byte()
    return view.permute(0, 2, 3, 1).contiguous(), ((1 - ones.clamp(0, 1)) * 255).byte()


def scatter_anywhere(planes: Tensor, landing: Tensor) -> Tensor:
    """Scatter into the flattened frame, as for moves in any direction; released border rule."""
    _, channels, height, width = planes.shape
    left = landing.floor()
    planes = (planes * _inside(left)).flatten(2)
    row = torch.arange(height, device=planes.device)[:, None] * width
    index = (left.clamp(0, width - 2).long() + row).flatten(2).expand_as(planes)
    share = (landing - left).flatten(2)
    total = torch.zeros_like(planes)
    total.scatter_add_(2, index, planes * (1 - share))
    total.scatter_add_(2, index + 1, planes * share)
    return total.view(1, channels, height, width)


def scatter_in_rows(planes: Tensor, landing: Tensor) -> Tensor:
    """Scatter within each row; released border rule."""
    left = landing.floor()
    planes = planes * _inside(left)
    index = left.clamp(0, planes.shape[3] - 2).long().expand_as(planes)
    share = landing - left
    total = torch.zeros_like(planes)
    total.scatter_add_(3, index, planes * (1 - share))
    total.scatter_add_(3, index + 1, planes * share)
    return total


def _inside(left: Tensor) -> Tensor:
    lands = (left >= 0) & (left + 1 < left.shape[3])
    lands[:, :, -1] = False
    return lands


def best_seconds(job: Callable[[], object], device: str) -> float:
    """Return the best of 15 runs after two warm-up runs."""
    seconds = []
    for _ in range(17):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        job()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds[2:])


def copy_bandwidth(device: str) -> float:
    """Return the bytes per second read and written by a plain copy."""
    source = torch.zeros(COPIED_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * COPIED_BYTES / best_seconds(lambda: target.copy_(source), device)


# ---- sharpness

Views = dict[str, Callable[[Tensor, Tensor], Tensor]]
VIEWS: Views = {
    "splat": lambda frames, disparity: splat(frames, disparity).warped,
    "warp, bilinear": lambda frames, disparity: warp(frames, disparity, kernel="bilinear").frames,
    "warp, Lanczos-3": lambda frames, disparity: warp(frames, disparity).frames,
}


def print_sharpness(shots: int) -> None:
    """Print sharpness on exact arrays: the analytic scene, synthetic shots with and without lens effects."""
    print(
        f"\nExact arrays, {SYNTHETIC_WIDTH}x{SYNTHETIC_HEIGHT}; gradient energy relative to the true view's\n"
    )
    print("| scene | method | visible, dB | gradient | away from silhouettes, dB | gradient |")
    print("|---|---|---|---|---|---|")
    seeds = range(1, shots + 1)
    scenes: dict[str, Callable[[int], Shot]] = {
        "analytic layers": lambda seed: layered_scene(seed, SYNTHETIC_HEIGHT, SYNTHETIC_WIDTH),
        "synthetic, sharp and without grain": lambda seed: without_lens(seed),
        "synthetic, with lens and grain": lambda seed: render_shot(
            seed, 1, SYNTHETIC_HEIGHT, SYNTHETIC_WIDTH
        ),
    }
    for name, make in scenes.items():
        figures: dict[str, list[list[float]]] = {view: [] for view in [*VIEWS, "looked up"]}
        for seed in tqdm(seeds, desc=name, leave=False):
            shot = make(seed)
            visible = ~shot.right_occlusion
            away = visible & ~silhouettes(shot)
            made = {view: make(shot.left, shot.disparity) for view, make in VIEWS.items()}
            made["looked up"] = looked_up(shot)
            for view, frames in made.items():
                figures[view].append(
                    [f(frames, shot.right, where) for where in (visible, away) for f in (psnr_db, gradient)]
                )
        for view, rows in figures.items():
            a, b, c, d = np.mean(rows, axis=0)
            print(f"| {name} | {view} | {a:.2f} | {b:.2f} | {c:.2f} | {d:.2f} |", flush=True)
    print("\nlooked up: the left view, sampled bilinearly at the exact disparity of the right view.")


def without_lens(seed: int) -> Shot:
    """Render a synthetic shot without defocus, motion blur and grain."""
    draw = render.sample_lens

    def sharp(rng: np.random.Generator, width: int) -> render.Lens:
        return replace(draw(rng, width), noise=0.0, blur_px=0.0, shutter=0.0)

    with mock.patch.object(render, "sample_lens", sharp):
        return render_shot(seed, 1, SYNTHETIC_HEIGHT, SYNTHETIC_WIDTH)


def silhouettes(shot: Shot) -> Tensor:
    """Return True within SILHOUETTE_PX of a disparity edge of the right view or of an occlusion."""
    edge = shot.right_occlusion.clone()
    for axis in (-1, -2):
        jump = shot.right_disparity.diff(dim=axis).abs() > 1
        length = jump.shape[axis]
        edge.narrow(axis, 0, length).logical_or_(jump)
        edge.narrow(axis, 1, length).logical_or_(jump)
    return dilated(edge)


def dilated(places: Tensor) -> Tensor:
    """Dilate a mask by SILHOUETTE_PX."""
    return F.max_pool2d(places.float(), 2 * SILHOUETTE_PX + 1, 1, SILHOUETTE_PX) > 0


def looked_up(shot: Shot) -> Tensor:
    """Sample the left view at the exact source position of each right pixel, which no warp can know."""
    width = shot.left.shape[-1]
    place = torch.arange(width) + shot.right_disparity
    left = place.floor().clamp(0, width - 1).long()
    share = (place - left).clamp(0, 1)
    here, there = (
        shot.left.gather(3, (left + step).clamp(max=width - 1).expand_as(shot.left)) for step in (0, 1)
    )
    return (1 - share) * here + share * there


def gradient(frames: Tensor, truth: Tensor, where: Tensor) -> float:
    """Return the horizontal gradient energy relative to the ground truth, over pairs inside the mask."""
    both = (where[..., 1:] & where[..., :-1]).expand_as(frames[..., 1:])
    made, wanted = (array.diff(dim=-1)[both].double().square().sum() for array in (frames, truth))
    return float(made / wanted)


def print_pairs(films: list[Path]) -> None:
    """Print sharpness on real pairs with matched disparity, where left-right matching agrees."""
    print("\n| stereo film | method | visible, dB | gradient | away from unmatched pixels, dB | gradient |")
    print("|---|---|---|---|---|---|")
    for film in films:
        eyes = [unpack(frame.rgb, "sbs") for frame in islice(decode_film(film), 0, 240, 30)]
        left, right = (
            frames_from_uint8(torch.from_numpy(np.stack([pair[side] for pair in eyes]))) for side in (0, 1)
        )
        left, right = align_views(left, right)
        matcher = make_matcher("block", round(0.2 * left.shape[-1]))
        disparity = fill_from_background(*match_both_ways(matcher, left, right, tolerance_px=1.0))
        visible = regions_from_match(matcher, left, right, tolerance_px=1.0) == VISIBLE
        away = ~dilated(~visible)
        for view, make in VIEWS.items():
            made = make(left, disparity)
            figures = [f(made, right, where) for where in (visible, away) for f in (psnr_db, gradient)]
            print(f"| {film.stem} | {view} | {' | '.join(f'{value:.2f}' for value in figures)} |", flush=True)


def print_cracks() -> None:
    """Print the share of holes inside a plane stretched 2.5 times."""
    width = 1920
    disparity = (-1.5 * (torch.arange(width) - width / 2 + 0.3)).expand(1, 1, 4, width).contiguous()
    frames = torch.ones(1, 3, 4, width)
    print("\n| a plane stretched 2.5 times | pixels without coverage, % |\n|---|---|")
    for name, coverage in (("splat", splat(frames, disparity)), ("warp", warp(frames, disparity))):
        print(f"| {name} | {100 * float((coverage.coverage == 0).float().mean()):.1f} |")


if __name__ == "__main__":
    run(main)
