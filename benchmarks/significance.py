"""Measure how often a table of equal methods has anything in bold, which should be at most 10 %.

    python benchmarks/significance.py

A comparison is of two methods that differ by nothing but chance: normal gains of films, and of three clips of
each around them. A table has as many comparisons as the columns say, independent of each other.
"""

from itertools import product
from pathlib import Path

import numpy as np
from command import make_parser, run
from machine import machine

from secondeye.evaluation.comparison import differs, least_films
from secondeye.params import load_params
from secondeye.system.text import pluralize

FILMS, COMPARISONS = (5, 8, 11, 20), (1, 10, 100)
TABLES, CLIPS = 200, 3
MOST_DRAWS = 2000  # comparisons of a cell of the table


def main() -> None:
    """Print the table."""
    make_parser(__doc__).parse_args()
    evaluate = load_params(Path("params.yaml")).evaluate
    rng = np.random.default_rng(0)
    shares = {}
    for films, comparisons in product(FILMS, COMPARISONS):
        if films < least_films(comparisons, evaluate):
            continue  # nothing is bold
        count = min(TABLES, MOST_DRAWS // comparisons)
        bold = [
            any(differs(_gains(rng, films), comparisons, evaluate) for _ in range(comparisons))
            for _ in range(count)
        ]
        shares[films, comparisons] = f"{100 * np.mean(bold):.0f}"
    print(f"{machine()}; at most {TABLES} tables for each number, {evaluate.resamples} resamples\n")
    print(f"| films | {' | '.join(pluralize(count, 'comparison') for count in COMPARISONS)} |")
    print(f"|---|{'---|' * len(COMPARISONS)}")
    for films in FILMS:
        print(f"| {films} | {' | '.join(shares.get((films, count), '0') for count in COMPARISONS)} |")


def _gains(rng: np.random.Generator, films: int) -> dict[str, list[float]]:
    """Draw film -> gains of clips, with mean 0."""
    means = rng.normal(size=(films, 1)) + rng.normal(size=(films, CLIPS))
    return {str(film): clips.tolist() for film, clips in enumerate(means)}


if __name__ == "__main__":
    run(main)
