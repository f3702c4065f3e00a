"""Scores averaged over films, with every film weighted equally: means, intervals and paired gains."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from secondeye.dataset.schema import AggregateScore, Score
from secondeye.evaluation.bootstrap import bootstrap_interval
from secondeye.evaluation.columns import COLUMNS
from secondeye.params import Evaluate

DIGITS = 4  # of numbers for tools


class ScoreInterval(NamedTuple):
    """Mean over films and its confidence interval; NaN without any score."""

    mean: float
    low: float
    high: float
    films: int  # with at least one score


def group_by_method(rows: Iterable[Score]) -> dict[str, list[Score]]:
    """Group scores by method, in order of first appearance."""
    groups: dict[str, list[Score]] = defaultdict(list)
    for row in rows:
        groups[row.method].append(row)
    return dict(groups)


def group_by_film(rows: Iterable[Score], column: str) -> dict[str, list[float]]:
    """Group the values of one score by film, sorted by film; NaNs are dropped."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        value = getattr(row, column)
        if not math.isnan(value):
            values[row.film].append(value)
    return dict(sorted(values.items()))


def mean_over_films(values: Mapping[str, Sequence[float]]) -> float:
    """Return the mean of the per-film means of film -> clip values; NaN without any film."""
    return float(np.mean([np.mean(clips) for clips in values.values()])) if values else math.nan


def mean_score(rows: Iterable[Score], column: str) -> float:
    """Return the mean of one score over films; NaN if no clip has it."""
    return mean_over_films(group_by_film(rows, column))


def paired_gains(baseline: Iterable[Score], method: Iterable[Score], column: str) -> dict[str, list[float]]:
    """Return film -> improvement of each clip over the baseline, positive if better.

    Clips for which either side has no score are left out.
    """
    before = {row.clip: _oriented(getattr(row, column), column) for row in baseline}
    gains: dict[str, list[float]] = defaultdict(list)
    for row in method:
        gain = _oriented(getattr(row, column), column) - before.get(row.clip, math.nan)
        if not math.isnan(gain):
            gains[row.film].append(gain)
    return dict(sorted(gains.items()))


def score_interval(values: Mapping[str, Sequence[float]], evaluate: Evaluate) -> ScoreInterval:
    """Return the mean of film -> clip values and its bootstrap interval."""
    low, high = bootstrap_interval(
        values, resamples=evaluate.resamples, confidence=evaluate.confidence, seed=evaluate.seed
    )
    return ScoreInterval(mean_over_films(values), low, high, len(values))


def round_interval(interval: ScoreInterval, digits: int) -> dict[str, float]:
    """Return mean, low and high rounded, for files that tools read."""
    numbers = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return {name: round(value, digits) for name, value in numbers.items()}


def _oriented(value: float, column: str) -> float:
    """Map a score so that higher is better."""
    match better := COLUMNS[column].better:
        case "higher":
            return value
        case "lower":
            return -value
        case "one":
            return -abs(value - 1)
    raise ValueError(f"{column} has no better direction: {better!r}")


def aggregate_scores(rows: Sequence[Score], evaluate: Evaluate) -> list[AggregateScore]:
    """Return every score of every method over films, with its interval; none without anything scored."""
    return [
        AggregateScore(f"{method} {score}", method, scores[0].kind, score, films=interval.films, **numbers)
        for method, scores in group_by_method(rows).items()
        for score in COLUMNS
        if (interval := score_interval(group_by_film(scores, score), evaluate)).films
        for numbers in [round_interval(interval, DIGITS)]
    ]
