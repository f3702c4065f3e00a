"""Measure the inpainter `propagation`, which takes holes from other frames, against those that do not.

    SECONDEYE_FOOTAGE=FOLDER python benchmarks/propagation.py [--films candle kitti toon] [--shots 2]

Clips are long enough for its reach of 12 frames before and after. Films get the disparity of their two views,
as in the stage `evaluate`, synthetic shots the exact one. The share is that of pixels in holes, borders of
the frame included, which come from other frames. Processor time includes the warp.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from command import make_parser, run
from machine import machine
from real_films import FILMS, read_clips

from secondeye.conversion.bundle_parts import SHIPPED
from secondeye.evaluation.columns import COLUMNS as SCORES
from secondeye.evaluation.eval_clips import EvalFrames
from secondeye.evaluation.methods import BASELINES, Method, load_inpainter, make_right
from secondeye.evaluation.regions import regions_from_truth
from secondeye.evaluation.score import compute, prepare, update
from secondeye.inpaint.propagation import PropagationStats
from secondeye.synthetic import render_shot
from secondeye.system.errors import UserError
from secondeye.system.text import pluralize

FRAMES = 24  # of a clip; films have fewer if they end
STARTS = {"candle": (0, 146), "toon": (0,), "kitti": (0,)}  # first frame of each clip
HEIGHT, WIDTH = 256, 448  # of synthetic shots
FIRST_SEED = 70_101  # of the held-out shots; no preset uses it
METHODS = (
    *(method for method in BASELINES if method.name == "nearest"),
    Method("fill", "inpainter", inpainter="fill"),
    Method("propagation", "inpainter", inpainter="propagation"),
    Method("light", "inpainter", inpainter="light", inpaint_weights=SHIPPED / "inpaint"),
)
COLUMNS = {
    "haarpsi": "HaarPSI",
    "psnr_disoccluded_db": "hole PSNR, dB",
    "psnr_border_db": "border PSNR, dB",
    "temporal_error": "temporal error",
    "worst_block": "worst block",
}


def main() -> None:
    """Print a table for each film and one for the synthetic shots."""
    parser = make_parser(__doc__)
    parser.add_argument("--films", nargs="*", default=list(STARTS), choices=STARTS, help="real films")
    parser.add_argument("--shots", type=int, default=2, help="synthetic shots (default: 2)")
    options = parser.parse_args()
    footage = os.environ.get("SECONDEYE_FOOTAGE")
    if options.films and not footage:
        raise UserError("SECONDEYE_FOOTAGE must name the folder of real films")
    print(machine())
    for film in FILMS:
        if film.name in options.films:
            longer = film._replace(starts=STARTS[film.name], frames=FRAMES)
            print(table(film.name, read_clips(Path(str(footage)), longer)), flush=True)
    if options.shots:
        shots = (synthetic_clip(FIRST_SEED + number) for number in range(options.shots))
        print(table("synthetic", shots), flush=True)


def synthetic_clip(seed: int) -> EvalFrames:
    """Render a shot with exact disparity and regions."""
    shot = render_shot(seed, FRAMES, HEIGHT, WIDTH)
    regions = regions_from_truth(shot.right_disparity, shot.right_occlusion)
    return EvalFrames(shot.left, shot.right, shot.disparity, regions)


def table(name: str, clips: Iterator[EvalFrames]) -> str:
    """Return a row for each clip and method, and for each method the means over clips."""
    found: dict[str, list[list[float]]] = {method.name: [] for method in METHODS}
    lines = []
    for number, clip in enumerate(clips, 1):
        reference = prepare(clip.left, clip.right, clip.regions)
        for method in METHODS:
            values = measure(method, clip, reference)
            found[method.name].append(values)
            lines.append(row(f"{name} {number}", method.name, values))
    count = len(found["fill"])
    head = ["clip", "method", *COLUMNS.values(), "share from other frames", "CPU s a frame"]
    means = [
        row(f"mean of {pluralize(count, 'clip')}", method, list(np.mean(values, axis=0)))
        for method, values in found.items()
    ]
    return "\n".join(["", f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines, *means])


def measure(method: Method, clip: EvalFrames, reference: object) -> list[float]:
    """Return a method's scores on a clip, its share from other frames, and processor time."""
    make_right(
        method, clip._replace(**{name: plane[:2] for name, plane in clip._asdict().items()})
    )  # compiles
    stats = PropagationStats()
    if method.inpainter == "propagation":
        inpainter = load_inpainter(method, method.content)
        inpainter.stats = stats  # type: ignore[attr-defined]
    start = time.process_time()
    made = make_right(method, clip).right
    seconds = (time.process_time() - start) / len(made)
    scores = compute(update(reference, made, overlap=0, learned=None))  # type: ignore[arg-type]
    share = stats.share if stats else np.nan
    return [*(scores[column] for column in COLUMNS), share, seconds]


def row(clip: str, method: str, values: list[float]) -> str:
    """Return a line of the table."""
    digits = [SCORES[column].digits for column in COLUMNS]
    cells = [f"{value:.{count}f}" for value, count in zip(values, [*digits, 2, 3], strict=True)]
    return f"| {clip} | {method} | {' | '.join(cells)} |".replace("nan", "-")


if __name__ == "__main__":
    run(main)
