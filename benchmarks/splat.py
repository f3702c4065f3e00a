"""How fast splat and warp are against the released algorithm in torch, and how sharp the warp is.

    python benchmarks/splat.py [--fresh-memory] [--pairs FILM ...] [--shots 8]

There are two peers, both the released three-pass splat as torch scatters, with the two columns that a move to
the side reaches (the released kernel writes four pixels, two of them with a weight of 0). One scatters into
the whole picture, as the released kernel does, for a move in any direction; the other can only move pixels
along their row, and is the fastest form in torch that we know. Each time is the best of 15 runs.

Large arrays are kept by the process and used again, for both sides; with --fresh-memory each one is fetched
from the system anew, as torch does with arrays above 32 MB (the peers' at 4K).

FILM is a side-by-side stereo film; every 30th frame of it is matched and warped at its own size.
"""

import argparse
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
from layers import layered_scene
from machine import machine
from torch import Tensor
from tqdm import tqdm

from secondeye.alignment import find_shift
from secondeye.dataset.corrections import apply_shift
from secondeye.evaluation.regions import VISIBLE, regions_from_match
from secondeye.film.packing import unpack
from secondeye.imaging.arrays import frames_from_uint8
from secondeye.matching import make_matcher
from secondeye.matching.consistency import fill_from_background, match_both_ways
from secondeye.metrics.image_quality import psnr_db
from secondeye.splat import splat
from secondeye.synthetic import Shot, render, render_shot
from secondeye.video.read import read_pictures
from secondeye.warp import warp

SIZES = {"1080p": (1080, 1920), "4K": (2160, 3840)}
SHARE = 0.05  # of the width: the largest disparity of the timed scenes
SILHOUETTE_PX = 3  # nearer than this to a jump of the right eye's disparity is "at a silhouette"
WORLD_HEIGHT, WORLD_WIDTH = 540, 960
COPIED_BYTES = 1 << 28


class Rival(NamedTuple):
    name: str
    run: Callable[[Tensor, Tensor], object]  # of pictures and disparity
    goal: float | None  # times as fast as the peer


CPU_RIVALS = [
    Rival("splat", lambda pictures, disparity: splat(pictures, disparity), 18),
    Rival("warp, Lanczos-3", lambda pictures, disparity: warp(pictures, disparity), 12),
    Rival("warp, bilinear", lambda pictures, disparity: warp(pictures, disparity, kernel="bilinear"), 20),
]
GPU_RIVALS = [
    *(rival._replace(goal=None) for rival in CPU_RIVALS),
    Rival("splat, not deterministic", lambda p, d: splat(p, d, backend="triton_nondeterministic"), None),
]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--fresh-memory", action="store_true")
    parser.add_argument("--pairs", type=Path, nargs="*", default=[])
    parser.add_argument("--shots", type=int, default=8)
    options = parser.parse_args()
    set_memory(options.fresh_memory)
    print(machine())
    print_speed("cpu", CPU_RIVALS)
    if torch.cuda.is_available():
        print_speed("cuda", GPU_RIVALS)
    print_sharpness(options.shots)
    if options.pairs:
        print_pairs(options.pairs)
    print_cracks()


# ---- speed


def set_memory(fresh: bool) -> None:
    """Tell glibc what to do with large arrays: left alone it changes its mind, and a peer's time fourfold."""
    trim_threshold, mmap_threshold, mmap_max = -1, -3, -4  # mallopt's names for them
    libc = ctypes.CDLL(None)
    if fresh:
        libc.mallopt(mmap_threshold, 1 << 20)
    else:
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, (1 << 31) - 1)


def print_speed(device: str, rivals: list[Rival]) -> None:
    """Milliseconds a frame of uint8, and how many times as fast as both peers."""
    bandwidth = copy_bandwidth(device)
    print(f"\nOn the {device}, uint8; copying memory: {bandwidth / 1e9:.0f} GB/s read and written\n")
    print("| size | disparity | what | ms a frame | times as released | goal | times by rows | of copying |")
    print("|---|---|---|---|---|---|---|---|")
    generator = torch.Generator().manual_seed(0)
    for size, (height, width) in SIZES.items():
        pictures = torch.randint(0, 256, (1, height, width, 3), generator=generator, dtype=torch.uint8)
        for kind in ("layers", "smooth", "random"):
            arrays = pictures.to(device), timed_disparity(kind, height, width).to(device)
            released, by_rows = (
                best_seconds(partial(three_passes, *arrays, scatter), device)
                for scatter in (scatter_anywhere, scatter_in_rows)
            )
            print(f"| {size} | {kind} | three passes, as released | {1e3 * released:.2f} | 1.0 | | | |")
            print(
                f"| {size} | {kind} | three passes, by rows | {1e3 * by_rows:.2f} | | | 1.0 | |", flush=True
            )
            for rival in rivals:
                taken = best_seconds(partial(rival.run, *arrays), device)
                moved = sum(array.nbytes for array in (*arrays, *rival.run(*arrays)))
                goal = rival.goal if rival.goal and (size, kind) == ("1080p", "layers") else ""
                ratios = f"{released / taken:.1f} | {goal} | {by_rows / taken:.1f}"
                row = f"| {size} | {kind} | {rival.name} | {1e3 * taken:.2f} | {ratios} |"
                print(f"{row} {moved / taken / bandwidth:.0%} |", flush=True)


def timed_disparity(kind: str, height: int, width: int) -> Tensor:
    """25 discs on a ramp, the ramp alone, or noise: [1, 1, H, W] px, up to SHARE of the width."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    reach = SHARE * width
    if kind == "random":
        return torch.from_numpy(rng.uniform(-reach, reach, (1, 1, height, width)).astype(np.float32))
    disparity = reach * (y / height - 1)
    for _ in range(25 if kind == "layers" else 0):
        radius = rng.uniform(0.02, 0.1) * width
        inside = (x - rng.uniform(0, width)) ** 2 + (y - rng.uniform(0, height)) ** 2 < radius**2
        disparity[inside] = rng.uniform(-reach, reach)
    return torch.from_numpy(disparity)[None, None]


Scatter = Callable[[Tensor, Tensor], Tensor]  # planes [1, C, H, W] and where they land [1, 1, H, W] -> sums


def three_passes(pictures: Tensor, disparity: Tensor, scatter: Scatter) -> tuple[Tensor, Tensor]:
    """The released algorithm: weighted colours, weights and ones are splatted one after the other."""
    frames = (pictures.float() / 255).permute(0, 3, 1, 2)
    weight = 1.414 ** (disparity - disparity.min())
    landing = torch.arange(disparity.shape[3], device=disparity.device) - disparity
    colours, weights, ones = (
        scatter(plane, landing) for plane in (frames * weight, weight, torch.ones_like(weight))
    )
    view = (colours / weights.clamp(min=1e-6) * 255).round().clamp(0, 255).byte()
    return view.permute(0, 2, 3, 1).contiguous(), ((1 - ones.clamp(0, 1)) * 255).byte()


def scatter_anywhere(planes: Tensor, landing: Tensor) -> Tensor:
    """Into the picture as one line of pixels, as for a move in any direction; the released border rule."""
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
    """Into the pixel's own row; the released border rule."""
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
    """The best of 15 runs, after two to warm up."""
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
    """Bytes read and written a second by a plain copy."""
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
    """Exact arrays: an analytic scene, and the world with and without what its lens and film do."""
    print(f"\nExact arrays, {WORLD_WIDTH}x{WORLD_HEIGHT}; gradient energy as a share of the truth's\n")
    print("| scene | what | visible, dB | gradient | away from silhouettes, dB | gradient |")
    print("|---|---|---|---|---|---|")
    seeds = range(1, shots + 1)
    scenes: dict[str, Callable[[int], Shot]] = {
        "analytic layers": lambda seed: layered_scene(seed, WORLD_HEIGHT, WORLD_WIDTH),
        "world, sharp and without grain": lambda seed: without_lens(seed),
        "world, as filmed": lambda seed: render_shot(seed, 1, WORLD_HEIGHT, WORLD_WIDTH),
    }
    for name, make in scenes.items():
        figures: dict[str, list[list[float]]] = {view: [] for view in [*VIEWS, "looked up"]}
        for seed in tqdm(seeds, desc=name, leave=False):
            shot = make(seed)
            visible = ~shot.right_occlusion
            away = visible & ~silhouettes(shot)
            made = {view: run(shot.left, shot.disparity) for view, run in VIEWS.items()}
            made["looked up"] = looked_up(shot)
            for view, frames in made.items():
                figures[view].append(
                    [f(frames, shot.right, where) for where in (visible, away) for f in (psnr_db, gradient)]
                )
        for view, rows in figures.items():
            a, b, c, d = np.mean(rows, axis=0)
            print(f"| {name} | {view} | {a:.2f} | {b:.2f} | {c:.2f} | {d:.2f} |", flush=True)
    print(
        "\nlooked up: the left eye, looked up bilinearly where the exact disparity of the right eye points."
    )


def without_lens(seed: int) -> Shot:
    """A shot of the world without defocus, motion blur and grain."""
    draw = render.draw_lens

    def sharp(rng: np.random.Generator, width: int) -> render.Lens:
        return replace(draw(rng, width), noise=0.0, blur_px=0.0, shutter=0.0)

    with mock.patch.object(render, "draw_lens", sharp):
        return render_shot(seed, 1, WORLD_HEIGHT, WORLD_WIDTH)


def silhouettes(shot: Shot) -> Tensor:
    """True within SILHOUETTE_PX of a jump in the right eye's disparity, or of what the left does not see."""
    edge = shot.right_occlusion.clone()
    for axis in (-1, -2):
        jump = shot.right_disparity.diff(dim=axis).abs() > 1
        length = jump.shape[axis]
        edge.narrow(axis, 0, length).logical_or_(jump)
        edge.narrow(axis, 1, length).logical_or_(jump)
    return widened(edge)


def widened(places: Tensor) -> Tensor:
    """True within SILHOUETTE_PX of a place."""
    return F.max_pool2d(places.float(), 2 * SILHOUETTE_PX + 1, 1, SILHOUETTE_PX) > 0


def looked_up(shot: Shot) -> Tensor:
    """What no warp of the left eye can know: for each pixel of the right eye the place it comes from."""
    width = shot.left.shape[-1]
    place = torch.arange(width) + shot.right_disparity
    left = place.floor().clamp(0, width - 1).long()
    share = (place - left).clamp(0, 1)
    here, there = (
        shot.left.gather(3, (left + step).clamp(max=width - 1).expand_as(shot.left)) for step in (0, 1)
    )
    return (1 - share) * here + share * there


def gradient(frames: Tensor, truth: Tensor, where: Tensor) -> float:
    """Energy of the horizontal gradient as a share of the truth's, where both pixels count."""
    both = (where[..., 1:] & where[..., :-1]).expand_as(frames[..., 1:])
    made, wanted = (array.diff(dim=-1)[both].double().square().sum() for array in (frames, truth))
    return float(made / wanted)


def print_pairs(films: list[Path]) -> None:
    """Real pairs: matched disparity, judged where matching from the right eye agrees."""
    print("\n| stereo film | what | visible, dB | gradient | away from what is not, dB | gradient |")
    print("|---|---|---|---|---|---|")
    for film in films:
        eyes = [unpack(picture.rgb, "sbs") for picture in islice(read_pictures(film), 0, 240, 30)]
        left, right = (
            frames_from_uint8(torch.from_numpy(np.stack([pair[side] for pair in eyes]))) for side in (0, 1)
        )
        parallax = find_shift(left, right, max_disparity_percent=25, margin_px=1)
        left, right = apply_shift(left, right, parallax.shift_px)
        matcher = make_matcher("block", round(0.2 * left.shape[-1]))
        disparity = fill_from_background(*match_both_ways(matcher, left, right, tolerance_px=1.0))
        visible = regions_from_match(matcher, left, right, tolerance_px=1.0) == VISIBLE
        away = ~widened(~visible)
        for view, run in VIEWS.items():
            made = run(left, disparity)
            figures = [f(made, right, where) for where in (visible, away) for f in (psnr_db, gradient)]
            print(f"| {film.stem} | {view} | {' | '.join(f'{value:.2f}' for value in figures)} |", flush=True)


def print_cracks() -> None:
    """Holes inside a plane stretched 2.5 times."""
    width = 1920
    disparity = (-1.5 * (torch.arange(width) - width / 2 + 0.3)).expand(1, 1, 4, width).contiguous()
    frames = torch.ones(1, 3, 4, width)
    print("\n| a plane stretched 2.5 times | pixels without coverage, % |\n|---|---|")
    for name, coverage in (("splat", splat(frames, disparity)), ("warp", warp(frames, disparity))):
        print(f"| {name} | {100 * float((coverage.coverage == 0).float().mean()):.1f} |")


if __name__ == "__main__":
    main()
