"""Compare trained models with methods that need no training, film by film.

    python benchmarks/models.py [data/evaluate/scores/scores.parquet]

Prints scores written by the stage `evaluate` (docs/metrics.md): inpainters with the clip's own disparity
(HaarPSI around disocclusions, PSNR inside them and beyond the left view's border), depth against the matched
disparity, and whole models. To evaluate more films, add them to data/raw with split test in sources.csv.
"""

from pathlib import Path
from statistics import mean

from command import make_parser, run
from machine import machine

from secondeye.dataset.schema import Film, Score
from secondeye.dataset.tables import read_table
from secondeye.evaluation.aggregate import group_by_film, group_by_method


def main() -> None:
    """Print the tables."""
    parser = make_parser(__doc__)
    parser.add_argument("scores", type=Path, nargs="?", default=Path("data/evaluate/scores/scores.parquet"))
    parser.add_argument("--films", type=Path, default=Path("data/split/films.parquet"))
    options = parser.parse_args()
    rows = read_table(options.scores, Score)
    names = {film.id: film.name for film in read_table(options.films, Film)}
    print(f"{machine()}\n")
    inpainters = [
        "nearest",
        "Telea",
        "Navier-Stokes",
        "fill",
        "shipped light",
        "light",
        "diffusion",
        "VAE round trip",
    ]
    depth = ["motion + shipped light", "student + shipped light"]
    models = ["identity", "best shift", "Deep3D", *depth]
    for title, methods, column, digits in (
        ("HaarPSI around disocclusions", inpainters, "haarpsi", 4),
        ("PSNR in disocclusions, dB", inpainters, "psnr_disoccluded_db", 2),
        ("PSNR beyond the left view's border, dB", inpainters, "psnr_border_db", 2),
        ("rank correlation of depth", depth, "rank_correlation", 3),
        ("disparity error, % of the width", depth, "disparity_error_percent", 3),
        ("HaarPSI around disocclusions, whole models", models, "haarpsi", 4),
        ("PSNR, whole models, dB", models, "psnr_db", 2),
    ):
        print_table(title, rows, names, methods, column, digits)


def print_table(
    title: str, rows: list[Score], names: dict[str, str], methods: list[str], column: str, digits: int
) -> None:
    """Print a row per film and a column per method, and the mean over films."""
    groups = group_by_method(rows)
    values = {method: group_by_film(groups[method], column) for method in methods if method in groups}
    means = {method: {film: mean(clips) for film, clips in found.items()} for method, found in values.items()}
    films = sorted({film for found in means.values() for film in found}, key=lambda film: names[film])
    print(f"| {title} | {' | '.join(means)} |\n|{'---|' * (len(means) + 1)}")
    for film in films:
        cells = (f"{found[film]:.{digits}f}" if film in found else "-" for found in means.values())
        print(f"| {names[film]} | {' | '.join(cells)} |")
    averages = (f"{mean(found.values()):.{digits}f}" for found in means.values())
    print(f"| mean of films | {' | '.join(averages)} |\n")


if __name__ == "__main__":
    run(main)
