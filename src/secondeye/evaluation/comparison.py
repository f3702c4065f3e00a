"""Whether a method is better than what it is compared with, in one word and the numbers behind it."""

from collections.abc import Sequence
from typing import NamedTuple

from secondeye.dataset.schema import Score
from secondeye.evaluation.aggregate import ScoreInterval, estimate, mean_of_films, paired_gains
from secondeye.evaluation.columns import COLUMNS, PRIMARY
from secondeye.evaluation.guardrails import find_loss, find_violation
from secondeye.params import Evaluate

MIN_FILMS = 5  # with fewer there is no verdict
INSUFFICIENT = "insufficient evidence"


class Protocol(NamedTuple):
    """One way of comparing methods."""

    name: str
    heading: str
    kinds: tuple[str, ...]
    baseline: str  # the method that gains are over
    painting: bool  # whether painting is what differs, and all floors hold; else only the whole picture's


PROTOCOLS = (
    Protocol(
        "inpaint-only",
        "Inpaint-only: the clip's own disparity, so that only the painting is judged",
        ("floor", "inpainter", "ceiling"),
        "fill",
        True,
    ),
    Protocol(
        "end-to-end",
        "End-to-end: the method's own depth, one positive scale and shift per clip",
        ("model", "external"),
        "motion + fill",
        False,
    ),
)
RIVALS = ("inpainter", "model", "external")  # kinds that compete; floors and ceilings only mark the range
_EVERYWHERE = ("identity", "best shift")  # floors of every protocol


class Comparison(NamedTuple):
    """How a method stands against the baseline."""

    word: str
    gain: ScoreInterval  # in the score that decides; positive where the method is better


def rows_of(protocol: Protocol, rows: Sequence[Score]) -> list[Score]:
    """What stands in its tables; nothing where no method is of its kinds."""
    if not any(row.kind in protocol.kinds for row in rows):
        return []
    return [row for row in rows if row.kind in protocol.kinds or row.method in _EVERYWHERE]


def compare(
    protocol: Protocol, ours: Sequence[Score], theirs: Sequence[Score], evaluate: Evaluate
) -> Comparison:
    """Clip by clip, on the clips that both have: films elsewhere may cover only some."""
    shared = {row.clip for row in ours} & {row.clip for row in theirs}
    pair = [[row for row in side if row.clip in shared] for side in (ours, theirs)]
    gain = estimate(paired_gains(pair[1], pair[0], PRIMARY), evaluate)
    means = [{name: mean_of_films(side, name) for name in COLUMNS} for side in pair]
    fault = find_violation(*means) if protocol.painting else find_loss(*means)
    return Comparison(_word(gain, fault), gain)


def _word(gain: ScoreInterval, fault: str) -> str:
    if gain.films < MIN_FILMS:
        return INSUFFICIENT
    if fault:
        return f"fails its floor: {fault}"
    if gain.low > 0:
        return "better"
    return "worse" if gain.high < 0 else "no difference"
