"""Scores over films, each of which counts once: means, their intervals, and gains clip by clip."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from secondeye.dataset.schema import Score
from secondeye.evaluation.bootstrap import interval
from secondeye.evaluation.columns import COLUMNS
from secondeye.params import Evaluate


class ScoreInterval(NamedTuple):
    """A mean over films, and both ends of its interval; NaN where nothing was scored."""

    mean: float
    low: float
    high: float
    films: int  # that have a score


def by_method(rows: Iterable[Score]) -> dict[str, list[Score]]:
    """Rows of each method, in the order in which methods come."""
    groups: dict[str, list[Score]] = defaultdict(list)
    for row in rows:
        groups[row.method].append(row)
    return dict(groups)


def by_film(rows: Iterable[Score], column: str) -> dict[str, list[float]]:
    """The scores of each film's clips, without those where nothing was to score; by film."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        value = getattr(row, column)
        if not math.isnan(value):
            values[row.film].append(value)
    return dict(sorted(values.items()))


def average(values: Mapping[str, Sequence[float]]) -> float:
    """The mean of film -> its clips' values; every film counts once, NaN without any."""
    return float(np.mean([np.mean(found) for found in values.values()])) if values else math.nan


def film_means(rows: Iterable[Score], column: str) -> dict[str, float]:
    """Mean over each film's clips, without those where nothing was to score; by film."""
    return {film: float(np.mean(found)) for film, found in by_film(rows, column).items()}


def mean_of_films(rows: Iterable[Score], column: str) -> float:
    """Every film counts once; NaN where no clip has a score."""
    return average(by_film(rows, column))


def paired_gains(theirs: Iterable[Score], ours: Iterable[Score], column: str) -> dict[str, list[float]]:
    """How much better each clip is, by film; clips that either side has no score on are left out."""
    before = {row.clip: _goodness(row, column) for row in theirs}
    gains: dict[str, list[float]] = defaultdict(list)
    for row in ours:
        gain = _goodness(row, column) - before.get(row.clip, math.nan)
        if not math.isnan(gain):
            gains[row.film].append(gain)
    return dict(sorted(gains.items()))


def estimate(values: Mapping[str, Sequence[float]], evaluate: Evaluate) -> ScoreInterval:
    """The mean of film -> its clips' values, and its interval."""
    low, high = interval(
        values, resamples=evaluate.resamples, confidence=evaluate.confidence, seed=evaluate.seed
    )
    return ScoreInterval(average(values), low, high, len(values))


def rounded(estimate: ScoreInterval, digits: int) -> dict[str, float]:
    """What tools read of an estimate."""
    numbers = {"mean": estimate.mean, "low": estimate.low, "high": estimate.high}
    return {name: round(value, digits) for name, value in numbers.items()}


def best_of(values: Sequence[float], column: str) -> float:
    """The best of a column's values, as it counts there; NaN where none is one, or none is better."""
    found = [value for value in values if not math.isnan(value)]
    better = COLUMNS[column].better
    return max(found, key=lambda value: _rank(value, better)) if found and better else math.nan


def _goodness(row: Score, column: str) -> float:
    return _rank(getattr(row, column), COLUMNS[column].better)


def _rank(value: float, better: str) -> float:
    """More is better of what this returns."""
    match better:
        case "more":
            return value
        case "less":
            return -value
        case "one":
            return -abs(value - 1)
    raise ValueError(f"no value of it is better than another: {better!r}")
