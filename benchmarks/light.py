"""Measure cost and quality of the inpainter `light` against `fill` on synthetic shots.

    secondeye stage synthetic DATA                             training shots, as in params.yaml
    python benchmarks/light.py --train DATA/synthetic --out FOLDER   weights go to FOLDER/model
    python benchmarks/light.py [--weights FOLDER/model] [--shots 6]  the tables; scores with weights only
    SECONDEYE_FOOTAGE=... python benchmarks/light.py --films     real films, with baselines; shipped weights

Films get the disparity of their two views, as in the stage `evaluate`; processor time includes the warp. The
cost does not depend on the weights. The baseline for cropping is the same network on whole frames.
"""

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from command import existing, make_parser, run
from machine import machine
from real_films import FILMS, read_clips, without_colour

from secondeye.conversion.bundle_parts import SHIPPED
from secondeye.dataset.reader import Dataset
from secondeye.evaluation.columns import COLUMNS as SCORES
from secondeye.evaluation.eval_clips import EvalFrames
from secondeye.evaluation.methods import BASELINES, Method, make_right
from secondeye.evaluation.regions import regions_from_truth
from secondeye.evaluation.score import compute, prepare, update
from secondeye.inpaint import Warped, inpaint_shot, light
from secondeye.inpaint.fill import fill, fill_shot
from secondeye.inpaint.light import inpaint_frames, load_light
from secondeye.inpaint.light_inputs import soft_hole_mask
from secondeye.inpaint.light_network import CHANNELS, Light
from secondeye.params import load_params
from secondeye.run_folder import open_run
from secondeye.synthetic import render_shot
from secondeye.system.errors import UserError
from secondeye.system.text import pluralize
from secondeye.training.light import train_light
from secondeye.training.shots import rendered_shots
from secondeye.training.stereo_shot import ShotPool
from secondeye.warp import warp

HEIGHT, WIDTH, FRAMES = 256, 448, 6
FIRST_SEED = 70_001  # of the held-out shots; no preset uses it
WIDE_PERCENT = 5.0  # of the width, between nearest and farthest point: a strong conversion
GRAY_FILM = "candle"  # is scored without its colours, too
METHODS = (
    *(method for method in BASELINES if method.name in ("nearest", "Telea")),
    Method("fill", "inpainter", inpainter="fill"),
    Method("light", "inpainter", inpainter="light", inpaint_weights=SHIPPED / "inpaint"),
)
FILM_COLUMNS = {
    "psnr_border_db": "border PSNR, dB",
    "psnr_disoccluded_db": "hole PSNR, dB",
    "haarpsi": "HaarPSI",
    "psnr_db": "PSNR, dB",
    "worst_block": "worst block",
    "chroma_excess": "chroma excess, levels",
}
WORST = ("worst_block", "chroma_excess")  # of all clips; the others are means
COLUMNS = ("haarpsi", "psnr_disoccluded_db", "gradient_ratio", "temporal_error", "warping_ratio")


def main() -> None:
    """Train, or print the tables."""
    parser = make_parser(__doc__)
    parser.add_argument("--train", type=existing)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--weights", type=existing)
    parser.add_argument("--films", action="store_true", help="score on real films")
    parser.add_argument("--shots", type=int, default=6, help="held-out shots (default: 6)")
    options = parser.parse_args()
    if options.train:
        if options.out is None:
            parser.error("--train needs --out")
        train(options.train, options.out)
        return
    if options.films:
        print(f"{machine()}\n")
        for lines in film_tables():
            print(lines, flush=True)
        return
    seeds = range(FIRST_SEED, FIRST_SEED + options.shots)
    print(f"{machine()}\n\n{table(seeds)}")
    if options.weights:
        print(f"\n{scores(options.weights, seeds)}")


def train(folder: Path, out: Path) -> None:
    """Train on synthetic shots with the settings of params.yaml; resumes if it was killed."""
    settings = load_params(Path("params.yaml")).train_light
    pool = ShotPool(rendered_shots(Dataset(folder.parent), "warp"), [])
    out.mkdir(parents=True, exist_ok=True)
    train_light(open_run(out.parent, out.name, "train_light", settings, {}), pool, settings)


def table(seeds: range) -> str:
    """Return a Markdown table of milliseconds per frame and frames per second of a whole inpainter call."""
    torch.manual_seed(0)
    model = Light(CHANNELS).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    megabytes = 2 * sum(weights.numel() for weights in model.parameters()) / 1e6
    lines = [
        f"{WIDTH}x{HEIGHT}, {pluralize(len(seeds), 'shot')} of {FRAMES} frames, "
        f"{torch.get_num_threads()} threads; `light` has {megabytes:.1f} MB in fp16.\n",
        "| holes | hidden, % | method | ms per frame | frames per second |",
        "|---|---|---|---|---|",
    ]
    for holes, strong in (("original disparity", False), (f"strength {WIDE_PERCENT:g} %", True)):
        shots = [warped_shot(seed, strong) for seed in seeds]
        hidden = 100 * np.mean([float((soft_hole_mask(shot.coverage) > 0).float().mean()) for shot in shots])
        ways: dict[str, Callable[[Warped], object]] = {
            "fill": lambda warped: fill(warped.frames, warped.coverage, warped.disparity),
            "light, whole frames": lambda warped: _on_whole_frames(model, warped),
            "light": lambda warped: inpaint_frames(model, warped, None),
        }
        for name, way in ways.items():
            spent = np.mean([_seconds(partial(way, shot)) for shot in shots]) / FRAMES
            lines.append(f"| {holes} | {hidden:.1f} | {name} | {1e3 * spent:.0f} | {1 / spent:.1f} |")
    return "\n".join(lines)


def scores(weights: Path, seeds: range) -> str:
    """Return a Markdown table of both inpainters' scores with exact disparity on held-out shots."""
    inpainters = {"fill": fill_shot, "light": load_light(weights, "cpu")}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in inpainters}
    for seed in seeds:
        shot = render_shot(seed, FRAMES, HEIGHT, WIDTH)
        reference = prepare(
            shot.left, shot.right, regions_from_truth(shot.right_disparity, shot.right_occlusion)
        )
        for name, inpainter in inpainters.items():
            made = inpaint_shot(inpainter, [Warped(shot.left, *warp(shot.left, shot.disparity))])
            found[name].append(compute(update(reference, made, overlap=0, learned=None)))
    lines = [f"| mean of {len(seeds)} shots | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, rows in found.items():
        means = (f"{np.mean([row[column] for row in rows]):.4f}" for column in COLUMNS)
        lines.append(f"| {name} | {' | '.join(means)} |")
    better = sum(
        mine["haarpsi"] > theirs["haarpsi"]
        for mine, theirs in zip(found["light"], found["fill"], strict=True)
    )
    return "\n".join([*lines, f"\nBy HaarPSI `light` is ahead on {better} of {len(seeds)} shots."])


def film_tables() -> Iterator[str]:
    """Yield a Markdown table for each real film, and one for candle without its colours."""
    footage = os.environ.get("SECONDEYE_FOOTAGE")
    if not footage:
        raise UserError("SECONDEYE_FOOTAGE must name the folder of real films")
    for film in FILMS:
        clips = list(read_clips(Path(footage), film))
        yield film_table(film.name, clips)
        if film.name == GRAY_FILM:
            yield film_table(f"{film.name}, gray", [without_colour(clip) for clip in clips])


def film_table(name: str, clips: list[EvalFrames]) -> str:
    """Return a row for each method: means over clips, the worst clip's outliers, and processor time."""
    height, width = clips[0].left.shape[-2:]
    head = [
        f"{name}, {width}x{height}, {pluralize(len(clips), 'clip')}",
        *FILM_COLUMNS.values(),
        "CPU s a frame",
    ]
    lines = [f"\n| {' | '.join(head)} |", "|---" * len(head) + "|"]
    references = [prepare(clip.left, clip.right, clip.regions) for clip in clips]
    for method in METHODS:
        rows, seconds = [], []
        for clip, reference in zip(clips, references, strict=True):
            make_right(method, clip)  # compiles, and loads weights
            start = time.process_time()
            made = make_right(method, clip).right
            seconds.append((time.process_time() - start) / len(made))
            rows.append(compute(update(reference, made, overlap=0, learned=None)))
        cells = []
        for column in FILM_COLUMNS:
            values = [row[column] for row in rows]
            value = max(values) if column in WORST else np.mean(values)
            cells.append(f"{value:.{SCORES[column].digits}f}")
        lines.append(f"| {' | '.join([method.name, *cells, f'{np.mean(seconds):.3f}'])} |")
    return "\n".join(lines)


def warped_shot(seed: int, strong: bool) -> Warped:
    """Render and warp a synthetic shot; `strong` stretches its disparity to WIDE_PERCENT."""
    shot = render_shot(seed, FRAMES, HEIGHT, WIDTH)
    disparity = shot.disparity
    if strong:
        low, high = np.quantile(disparity.numpy(), [0.01, 0.99])
        disparity = (disparity - low) * (WIDE_PERCENT / 100 * WIDTH / (high - low))
        disparity = (disparity - WIDE_PERCENT / 200 * WIDTH).float()
    return Warped(shot.left, *warp(shot.left, disparity))


def _on_whole_frames(model: Light, warped: Warped) -> tuple[torch.Tensor, object]:
    """Run the same network on the whole frame instead of crops."""
    halo, light.HALO_PX = light.HALO_PX, 8 * max(warped.frames.shape[-2:])
    try:
        return inpaint_frames(model, warped, None)
    finally:
        light.HALO_PX = halo


def _seconds(call: Callable[[], object]) -> float:
    """Return the fastest of three runs after one that compiles."""
    call()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    run(main)
