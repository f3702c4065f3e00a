"""Measure how often equal methods are bold, and how often a difference is.

    python benchmarks/significance.py

Reports: normal gains of films, and of three clips of each around them, with equal variances. The comparisons
of a table are independent of each other. Preferences: every participant has a taste of their own for each
pair of methods, drawn from Beta(2, 2), and answers 12 trials of each pair.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from command import make_parser, run
from machine import machine

from secondeye.evaluation import preferences
from secondeye.evaluation.comparison import differs
from secondeye.evaluation.preferences import Answer, find_preferences
from secondeye.params import Evaluate, load_params
from secondeye.system.text import pluralize

FILMS, COMPARISONS = (5, 8, 11, 13, 20), (1, 10, 100, 300)
TABLES, CLIPS = 1000, 3
MOST_DRAWS = 50_000  # comparisons of a number
GAIN = 1.0  # of a method that is better, in standard deviations of a film's mean gain
PARTICIPANTS, METHODS, STUDIES = (5, 6, 8, 15), (2, 3, 5), 500
TRIALS, CONFIDENCE = 12, 0.95


def main() -> None:
    """Print the tables."""
    make_parser(__doc__).parse_args()
    evaluate = load_params(Path("params.yaml")).evaluate
    rng = np.random.default_rng(0)
    print(f"{machine()}. Confidence {evaluate.confidence:g} in reports, {CONFIDENCE:g} for preferences.\n")
    comparisons = [pluralize(count, "comparison") for count in COMPARISONS]
    print("Tables of equal methods with anything in bold, %:\n")
    _print_table(
        ["films", *comparisons], FILMS, lambda f, n: _share_of_tables(rng, f, n, evaluate), COMPARISONS
    )
    print("A better method in bold, %:\n")
    _print_table(["films", *comparisons], FILMS, lambda f, n: _share_found(rng, f, n, evaluate), COMPARISONS)
    print("Studies of equal methods with any preference in bold, %:\n")
    preferences._RESAMPLES = 1  # the intervals are not used
    methods = [f"{count} methods" for count in METHODS]
    _print_table(["participants", *methods], PARTICIPANTS, lambda p, n: _share_of_studies(rng, p, n), METHODS)


def _print_table(
    head: Sequence[str], lines: Sequence[int], share: Callable[[int, int], float], columns: Sequence[int]
) -> None:
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for line in lines:
        print(f"| {line} | {' | '.join(f'{100 * share(line, column):.1f}' for column in columns)} |")
    print(flush=True)


def _share_of_tables(rng: np.random.Generator, films: int, comparisons: int, evaluate: Evaluate) -> float:
    """Return the share of tables of equal methods with anything in bold."""
    tables = min(TABLES, MOST_DRAWS // comparisons)
    bold = [
        any(differs(_gains(rng, films, 0), comparisons, evaluate) for _ in range(comparisons))
        for _ in range(tables)
    ]
    return float(np.mean(bold))


def _share_found(rng: np.random.Generator, films: int, comparisons: int, evaluate: Evaluate) -> float:
    """Return how often a method that is better is bold."""
    return float(np.mean([differs(_gains(rng, films, GAIN), comparisons, evaluate) for _ in range(TABLES)]))


def _gains(rng: np.random.Generator, films: int, gain: float) -> dict[str, list[float]]:
    """Draw film -> gains of clips; the mean gain is in standard deviations of a film's mean."""
    means = rng.normal(size=(films, 1)) + rng.normal(size=(films, CLIPS))
    means += gain * np.sqrt(1 + 1 / CLIPS)
    return {str(film): clips.tolist() for film, clips in enumerate(means)}


def _share_of_studies(rng: np.random.Generator, people: int, methods: int) -> float:
    """Return the share of studies of equal methods with any preference in bold."""
    bold = 0
    for _ in range(STUDIES):
        answers = [
            Answer("study", str(person), "film", trial, *pair, pair[int(trial >= wins)])
            for pair in combinations("abcde"[:methods], 2)
            for person, wins in enumerate(rng.binomial(TRIALS, rng.beta(2, 2, people)))
            for trial in range(TRIALS)
        ]
        found = find_preferences(answers, confidence=CONFIDENCE, seed=0)
        bold += any(preference.p <= 1 - CONFIDENCE for preference in found)
    return bold / STUDIES


if __name__ == "__main__":
    run(main)
