"""The decision whether a challenger replaces the champion's part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from secondeye.dataset.schema import Score
from secondeye.evaluation.aggregate import mean_over_films, mean_score, paired_gains
from secondeye.evaluation.block_scores import BlocksOf
from secondeye.evaluation.bootstrap import gain_lower_bound
from secondeye.evaluation.columns import COLUMNS, PRIMARY
from secondeye.evaluation.guardrails import find_film_loss, find_image_loss, find_violation
from secondeye.gate.candidate import Candidate
from secondeye.params import Evaluate, Gate

# Column that decides each part: depth by its error, inpainting by its quality around holes.
DECIDING_SCORE = {"depth": "disparity_error_percent", "inpainter": PRIMARY}
_MAX_CONFIDENCE = 0.9999  # the largest that params.yaml accepts


@dataclass(frozen=True)
class PartDecision:
    """The outcome of one challenge."""

    part: str  # depth or inpainter
    champion: str  # name and weights hash of the part that was challenged
    challenger: str
    score: str  # the column that decides
    champion_score: float  # mean over films
    challenger_score: float
    films: int
    gain: float  # mean over films; positive if the challenger is better
    gain_lower_bound: float  # one-sided, at the required confidence
    psnr_gain_db: float  # of the whole image; positive if the challenger is better
    won: bool
    reason: str
    fallback: str  # why the weight-free default replaced the champion's part; "" if it did not


def decide(
    part: str,
    champion: Candidate,
    challenger: Candidate,
    rows: Sequence[Score],  # of the methods "champion" and "challenger"
    films: Mapping[str, str],  # Film.id -> name
    blocks_of: BlocksOf,
    evaluate: Evaluate,
    gate: Gate,
) -> PartDecision:
    """Compare both clip by clip; the lower bound of the mean gain must be above zero."""
    column = DECIDING_SCORE[part]
    champion_rows, challenger_rows = (
        [row for row in rows if row.method == side] for side in ("champion", "challenger")
    )
    gains = paired_gains(champion_rows, challenger_rows, column)
    bound = gain_lower_bound(
        gains, resamples=evaluate.resamples, confidence=gate.confidence, seed=evaluate.seed
    )
    champion_means, challenger_means = (
        {name: mean_score(side, name) for name in COLUMNS} for side in (champion_rows, challenger_rows)
    )
    failure = rejection_reason(
        part, len(gains), bound, challenger_means, champion_means, evaluate.min_films, gate
    ) or find_film_loss(challenger_rows, champion_rows, films, blocks_of, inpainting=part == "inpainter")
    return PartDecision(
        part=part,
        champion=champion.part_id(part),
        challenger=challenger.part_id(part),
        score=column,
        champion_score=round(champion_means[column], 4),
        challenger_score=round(challenger_means[column], 4),
        films=len(gains),
        gain=round(mean_over_films(gains), 4),
        gain_lower_bound=round(bound, 4),
        psnr_gain_db=round(challenger_means["psnr_db"] - champion_means["psnr_db"], 4),
        won=not failure,
        reason=failure or "the mean gain over films is significant",
        fallback="",
    )


def rejection_reason(
    part: str,
    films: int,
    bound: float,
    challenger_means: Mapping[str, float],  # column -> mean over films
    champion_means: Mapping[str, float],
    min_films: int,
    gate: Gate,
) -> str:
    """Return why a challenger fails; "" if it passes."""
    if films < min_films:
        return f"insufficient evidence: scored on {films} held-out films, evaluate.min_films is {min_films}"
    if not bound > 0:  # also NaN
        return f"the mean gain over films is not above zero at confidence {gate.confidence:g}"
    find = find_violation if part == "inpainter" else find_image_loss
    return find(challenger_means, champion_means)


def bonferroni(gate: Gate, challengers: int) -> Gate:
    """Divide the error probability by the number of challengers of one part."""
    confidence = 1 - (1 - gate.confidence) / challengers
    return replace(gate, confidence=min(confidence, _MAX_CONFIDENCE))
