"""Comparison of a method with a baseline: one verdict and the gain behind it; what differs beyond chance."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from secondeye.dataset.schema import Score
from secondeye.evaluation.aggregate import ScoreInterval, mean_score, paired_gains, score_interval
from secondeye.evaluation.block_scores import BlocksOf
from secondeye.evaluation.columns import COLUMNS, PRIMARY
from secondeye.evaluation.guardrails import find_film_loss, find_image_loss, find_violation
from secondeye.evaluation.significance import corrected_p, least_values
from secondeye.params import Evaluate

INSUFFICIENT = "insufficient evidence"


class Protocol(NamedTuple):
    """A set of methods that are compared with each other."""

    name: str
    heading: str
    kinds: tuple[str, ...]
    baseline: str  # the method over which gains are measured; "": none, nothing is compared
    inpainting: bool  # methods differ only in inpainting: all guardrails apply; else only that of the image


PROTOCOLS = (
    Protocol(
        "inpaint-only",
        "Inpaint-only: every method gets the clip's matched disparity, so that only inpainting differs",
        ("baseline", "inpainter", "ceiling"),
        "fill",
        True,
    ),
    Protocol(
        "end-to-end",
        "End-to-end: each method's own depth, aligned by one positive scale and one shift per clip",
        ("model", "external"),
        "motion + shipped light",
        False,
    ),
    Protocol(
        "aligned",
        "Aligned: films converted elsewhere, each against the true right eye at its own strength and "
        "convergence",
        ("aligned", "flat"),
        "",
        False,
    ),
)
CANDIDATE_KINDS = ("inpainter", "model", "external")  # get a verdict; baselines and ceilings are only shown
IN_EVERY_PROTOCOL = ("identity", "best shift")


class Comparison(NamedTuple):
    """How a method compares with the baseline."""

    verdict: str
    gain: ScoreInterval  # of the primary score; positive if the method is better
    p: float  # of a gain of zero, as of `gain_p`
    beyond_chance: bool  # whether the gain differs from zero, as of `differs`
    wins: ScoreInterval  # share of films on which the method is better by the primary score; a tie is half


def protocol_rows(protocol: Protocol, rows: Sequence[Score]) -> list[Score]:
    """Return the scores that a protocol's tables show; none if no method is of its kinds."""
    if not any(row.kind in protocol.kinds for row in rows):
        return []
    others = IN_EVERY_PROTOCOL if protocol.baseline else ()
    return [row for row in rows if row.kind in protocol.kinds or row.method in others]


def compare(
    protocol: Protocol,
    method: Sequence[Score],
    baseline: Sequence[Score],
    films: Mapping[str, str],  # Film.id -> name
    blocks_of: BlocksOf,
    evaluate: Evaluate,
    *,
    comparisons: int,  # how many methods are compared with the baseline
) -> Comparison:
    """Compare a method with the baseline on the clips that both have: external films need not cover all."""
    shared = {row.clip for row in method} & {row.clip for row in baseline}
    method_rows, baseline_rows = ([row for row in rows if row.clip in shared] for rows in (method, baseline))
    gains = paired_gains(baseline_rows, method_rows, PRIMARY)
    gain = score_interval(gains, evaluate)
    beyond_chance = differs(gains, comparisons, evaluate)
    means = [{name: mean_score(rows, name) for name in COLUMNS} for rows in (method_rows, baseline_rows)]
    violation = find_violation(*means) if protocol.inpainting else find_image_loss(*means)
    violation = violation or find_film_loss(
        method_rows, baseline_rows, films, blocks_of, inpainting=protocol.inpainting
    )
    if gain.films < evaluate.min_films:
        verdict = INSUFFICIENT
    elif violation:
        verdict = f"violates a guardrail: {violation}"
    elif beyond_chance:
        verdict = "better" if gain.mean > 0 else "worse"
    else:
        verdict = INSUFFICIENT if gain.films < least_films(comparisons, evaluate) else "no difference"
    wins = score_interval(_won_films(gains), evaluate)
    return Comparison(verdict, gain, gain_p(gains, comparisons), beyond_chance, wins)


def candidates(methods: Mapping[str, Sequence[Score]], baseline: str) -> list[str]:
    """Return the methods that are compared with the baseline; none without it."""
    others = [name for name, rows in methods.items() if name != baseline and rows[0].kind in CANDIDATE_KINDS]
    return others if baseline in methods else []


def count_comparisons(methods: Mapping[str, Sequence[Score]], baseline: str) -> dict[str, int]:
    """Return column -> the number of comparisons with the baseline that its significance is corrected for.

    The primary score is fixed in advance: for it only the methods count. For any other, the methods and all
    other scores that have a better direction count, since whichever stands out would be noticed.
    """
    count = max(1, len(candidates(methods, baseline)))
    rows = [row for scores in methods.values() for row in scores]
    directed = [column.name for column in COLUMNS.values() if column.better and column.name != PRIMARY]
    scored = [name for name in directed if any(not math.isnan(getattr(row, name)) for row in rows)]
    return {PRIMARY: count} | dict.fromkeys(scored, count * len(scored))


def gain_p(gains: Mapping[str, Sequence[float]], comparisons: int) -> float:  # film -> gain of each clip
    """Return the p-value of a mean gain of zero over films, corrected for the number of comparisons."""
    return corrected_p([math.fsum(clips) / len(clips) for clips in gains.values()], comparisons)


def differs(gains: Mapping[str, Sequence[float]], comparisons: int, evaluate: Evaluate) -> bool:
    """Return whether a gain, or a loss, is beyond chance: at least `min_films` films, and a small p-value."""
    return len(gains) >= evaluate.min_films and gain_p(gains, comparisons) <= 1 - evaluate.confidence


def least_films(comparisons: int, evaluate: Evaluate) -> int:
    """Return with how many films a gain can be beyond chance."""
    return max(evaluate.min_films, least_values(comparisons, evaluate.confidence))


def _won_films(gains: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Return 1 for each film with a positive mean gain, 0.5 for a tie, else 0."""
    means = {film: math.fsum(clips) for film, clips in gains.items()}
    return {film: [0.5 if mean == 0 else float(mean > 0)] for film, mean in means.items()}
