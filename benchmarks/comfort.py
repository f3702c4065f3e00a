"""Convert films with automatic and with constant strength and convergence, and score their comfort.

    python benchmarks/comfort.py [--mono FILM ...] [--stereo FILM ...] [--depth motion] [--first 0]
        [--frames 720] [--every 4]

Films are reduced to 480 px, and only some of their frames are converted, with `fill`. Of stereo films the
left view is converted. The first table has what `secondeye score` says of the results.
Constant are a strength of 3 % and a convergence of 0.5, as without the automatic choice. The second table
compares with the true right view. Convergence is the viewer's choice, so the truth is shifted by the constant
that fits each result best, and then scored as `secondeye score --truth` does.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from itertools import islice
from math import isnan
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from command import existing, make_parser, run
from machine import machine

from secondeye.conversion.bundle import settings_from_bundle
from secondeye.conversion.comfort import BEHIND_PERCENT, FRONT_PERCENT, JUMP_PERCENT
from secondeye.conversion.convert import convert
from secondeye.conversion.plan_file import read_plan_file
from secondeye.evaluation.film_score import FilmScore, score_films
from secondeye.evaluation.view_streams import LEFT, RIGHT, open_view
from secondeye.video.read import decode_film
from secondeye.video.write import write_film

WIDTH = 480
CONSTANT = (3.0, 0.5)  # strength in % of the width, convergence
MAX_SHIFT_PERCENT = 10  # of the width, of the truth
ROUNDING = 0.005  # % of the width


class Row(NamedTuple):
    """A converted film."""

    output: Path
    score: FilmScore
    values: str  # strength and convergence of its shots


def main() -> None:
    """Print both tables."""
    parser = make_parser(__doc__)
    parser.add_argument("--mono", type=existing, nargs="*", default=[])
    parser.add_argument("--stereo", type=existing, nargs="*", default=[])
    parser.add_argument("--depth", default="motion", help="as of secondeye convert")
    parser.add_argument("--first", type=int, default=0, help="frame of each film")
    parser.add_argument("--frames", type=int, default=720, help="of each film, at most")
    parser.add_argument("--every", type=int, default=4, help="score 8 frames out of every 8 N")
    options = parser.parse_args()
    print(machine())
    print(
        "\n| film | | strength, % | convergence | far, % | near, % | jump at cuts, % | window violation, % "
        "| within the budget |\n" + "|---" * 9 + "|"
    )
    compared = []
    for film in [*options.mono, *options.stereo]:
        with tempfile.TemporaryDirectory() as folder:
            compared += measure(film, film in options.stereo, Path(folder), options)
    if compared:
        print("\n| film | | PSNR, dB | HaarPSI | SIoU | shift of the truth, px |\n" + "|---" * 6 + "|")
        print("\n".join(compared))


def measure(film: Path, is_stereo: bool, folder: Path, options: argparse.Namespace) -> list[str]:
    """Print the rows of a film in the first table; return those in the second."""
    left = folder / "left.mp4"
    write_view(film, LEFT, left, options)
    compared = []
    for name, values in {"automatic": (None, None), "constant": CONSTANT}.items():
        row = convert_and_score(left, values, folder / f"{name}.mp4", options)
        print(
            f"| {film.parent.name}/{film.name} | {name} | {row.values} | {comfort(row.score)} |", flush=True
        )
        if is_stereo:
            compared.append(f"| {film.parent.name} | {name} | {compare(film, left, row.output, options)} |")
    return compared


def write_view(film: Path, side: int, path: Path, options: argparse.Namespace) -> None:
    """Write some frames of a view, reduced, with hardly any loss."""
    view = open_view(film, side)
    size = WIDTH, 2 * round(WIDTH * view.size[0] / view.size[1] / 2)

    def images() -> Iterator[np.ndarray]:
        for frame in islice(decode_film(film), options.first, options.first + options.frames):
            yield cv2.resize(view.extract(frame.rgb), size, interpolation=cv2.INTER_AREA)

    write_film(path, images(), view.info.fps, crf=4)


def convert_and_score(
    left: Path,
    values: tuple[float | None, float | None],
    output: Path,
    options: argparse.Namespace,
) -> Row:
    """Convert a film and score the result."""
    plan = output.with_suffix(".yaml")
    settings = settings_from_bundle(None, *values, depth=options.depth, inpainter="fill", crf=8)
    with redirect_stdout(sys.stderr):  # progress
        convert(left, output, settings, plan_file=plan)
    shots = read_plan_file(plan).shots
    strengths, convergences = [s.strength_percent for s in shots], [s.convergence for s in shots]
    described = f"{describe(strengths)} | {describe(convergences)}"
    score = score_films(output, output, None, every=options.every, log=lambda line: None)
    return Row(output, score, described)


def describe(values: list[float | None]) -> str:
    """Return the range of values."""
    known = [value for value in values if value is not None]
    low, high = f"{min(known):.2f}", f"{max(known):.2f}"
    return low if low == high else f"{low} to {high}"


def comfort(score: FilmScore) -> str:
    """Return the columns of comfort, and whether they are within the budget."""
    far, near = score.scores["far_percent"], score.scores["near_percent"]
    jump = score.disparity_jump_percent
    inside = (
        far >= -BEHIND_PERCENT - ROUNDING
        and near <= FRONT_PERCENT + ROUNDING
        and (isnan(jump) or jump <= JUMP_PERCENT)
    )
    jumps = "" if isnan(jump) else f"{jump:.2f}"
    violation = score.scores["window_violation_percent"]
    return f"{far:.2f} | {near:.2f} | {jumps} | {violation:.1f} | {'yes' if inside else 'no'}"


def compare(film: Path, left: Path, output: Path, options: argparse.Namespace) -> str:
    """Return the columns of a result against the true right view, shifted as fits best."""
    truth, made = output.with_name("truth.mp4"), output.with_name("made.mp4")
    write_view(film, RIGHT, truth, options)
    shift = best_shift(list(views(output, RIGHT)), list(views(truth, None)))
    most = WIDTH * MAX_SHIFT_PERCENT // 100
    crops: dict[Path, Callable[[], Iterable[np.ndarray]]] = {
        output.with_name("left_crop.mp4"): lambda: views(left, None),
        made: lambda: views(output, RIGHT),
        truth: lambda: shifted,
    }
    shifted = [np.roll(image, shift, axis=1) for image in views(truth, None)]
    fps = open_view(left, LEFT).info.fps
    for path, images in crops.items():
        write_film(path, (image[:, most:-most] for image in images()), fps, crf=1)
    score = score_films(next(iter(crops)), made, truth, every=options.every, log=lambda line: None).scores
    return f"{score['psnr_db']:.2f} | {score['haarpsi']:.4f} | {score['siou']:.3f} | {shift}"


def views(film: Path, side: int | None) -> Iterator[np.ndarray]:
    """Yield a view of a side-by-side film, or a film as it is."""
    for frame in decode_film(film):
        yield frame.rgb if side is None else frame.rgb[:, WIDTH * side : WIDTH * (side + 1)]


def best_shift(made: list[np.ndarray], truth: list[np.ndarray]) -> int:
    """Return by how many px to the right the truth has the least squared error, borders left out."""
    most = WIDTH * MAX_SHIFT_PERCENT // 100
    chosen = range(0, len(made), max(1, len(made) // 12))
    pairs = [(made[k][:, most:-most].astype(np.int32), truth[k].astype(np.int32)) for k in chosen]

    def error(shift: int) -> float:
        return sum(
            float(np.square(image - np.roll(true, shift, axis=1)[:, most:-most]).mean())
            for image, true in pairs
        )

    return min(range(-most, most + 1), key=error)


if __name__ == "__main__":
    run(main)
