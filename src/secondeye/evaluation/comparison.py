"""Comparison of a method with a baseline: one verdict and the gain behind it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from secondeye.dataset.schema import Score
from secondeye.evaluation.aggregate import ScoreInterval, mean_score, paired_gains, score_interval
from secondeye.evaluation.columns import COLUMNS, PRIMARY
from secondeye.evaluation.guardrails import find_film_loss, find_image_loss, find_violation
from secondeye.params import Evaluate

INSUFFICIENT = "insufficient evidence"


class Protocol(NamedTuple):
    """A set of methods that are compared with each other."""

    name: str
    heading: str
    kinds: tuple[str, ...]
    baseline: str  # the method over which gains are measured
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
)
CANDIDATE_KINDS = ("inpainter", "model", "external")  # get a verdict; baselines and ceilings are only shown
_IN_EVERY_PROTOCOL = ("identity", "best shift")


class Comparison(NamedTuple):
    """How a method compares with the baseline."""

    verdict: str
    gain: ScoreInterval  # of the primary score; positive if the method is better


def protocol_rows(protocol: Protocol, rows: Sequence[Score]) -> list[Score]:
    """Return the scores that a protocol's tables show; none if no method is of its kinds."""
    if not any(row.kind in protocol.kinds for row in rows):
        return []
    return [row for row in rows if row.kind in protocol.kinds or row.method in _IN_EVERY_PROTOCOL]


def compare(
    protocol: Protocol,
    method: Sequence[Score],
    baseline: Sequence[Score],
    films: Mapping[str, str],  # Film.id -> name
    evaluate: Evaluate,
) -> Comparison:
    """Compare a method with the baseline on the clips that both have: external films need not cover all."""
    shared = {row.clip for row in method} & {row.clip for row in baseline}
    method_rows, baseline_rows = ([row for row in rows if row.clip in shared] for rows in (method, baseline))
    gain = score_interval(paired_gains(baseline_rows, method_rows, PRIMARY), evaluate)
    means = [{name: mean_score(rows, name) for name in COLUMNS} for rows in (method_rows, baseline_rows)]
    violation = find_violation(*means) if protocol.inpainting else find_image_loss(*means)
    violation = violation or find_film_loss(method_rows, baseline_rows, films, inpainting=protocol.inpainting)
    return Comparison(_verdict(gain, violation, evaluate.min_films), gain)


def _verdict(gain: ScoreInterval, violation: str, min_films: int) -> str:
    if gain.films < min_films:
        return INSUFFICIENT
    if violation:
        return f"violates a guardrail: {violation}"
    if gain.low > 0:
        return "better"
    return "worse" if gain.high < 0 else "no difference"
