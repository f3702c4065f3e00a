"""Text of the gate: reports/gate.md, and one paragraph for each decision."""

from collections.abc import Mapping, Sequence

from secondeye.dataset.schema import EvalClip
from secondeye.evaluation import guardrails
from secondeye.evaluation.columns import COLUMNS, PRIMARY
from secondeye.evaluation.manifest import manifest_hash
from secondeye.gate.candidate import TrainedPart
from secondeye.gate.decision import PartDecision
from secondeye.params import Gate
from secondeye.registry.history import Event
from secondeye.system.text import pluralize


def describe_decision(decision: PartDecision) -> str:
    """Return a decision and its numbers as one paragraph of Markdown."""
    verb = "replaces" if decision.won else "does not replace"
    text = f"{decision.part}: `{decision.challenger}` {verb} `{decision.champion}`: {decision.reason}."
    if decision.fallback:
        text += f" `{decision.champion}` took the place of the champion's own part ({decision.fallback})."
    if not decision.films:
        return text
    return (
        f"{text} {decision.score}: {decision.champion_score:g} to {decision.challenger_score:g}, gain "
        f"{decision.gain:+z.4f} (lower bound {decision.gain_lower_bound:+.4f}) on "
        f"{pluralize(decision.films, 'film')}; "
        f"PSNR of the whole image {decision.psnr_gain_db:+z.3f} dB."
    )


def describe_veto(trained: TrainedPart, veto: Event) -> str:
    """Return a sentence about a trained part that may not challenge."""
    part = f"{trained.part}: `{trained.name} {trained.weights_hash[:12]}`"
    return f"{part} does not challenge: version {veto.previous or veto.version} was {veto}"


def to_markdown(
    decisions: Sequence[PartDecision],
    unusable: Mapping[str, str],  # part -> why this code cannot load the champion's
    vetoed: Sequence[str],  # sentences about trained parts that may not challenge
    *,
    versions: tuple[int, int],  # champion before and after
    clips: Sequence[EvalClip],
    films: Mapping[str, str],  # Film.id -> name
    gate: Gate,
    min_films: int,
) -> str:
    """Return the gate's report."""
    before, after = versions
    if after != before:
        champion = f"Version {after} replaces version {before} as the champion."
    else:
        champion = f"Version {after} remains the champion."
    lines = [f"- {describe_decision(decision)}" for decision in decisions] or ["- nothing new to compare"]
    lines += [f"- {sentence}" for sentence in vetoed]
    lines += [
        f"- {part}: this version of the code cannot load the champion's own part ({reason})"
        for part, reason in unusable.items()
        if part not in {decision.part for decision in decisions}
    ]
    names = ", ".join(sorted({films.get(clip.film, clip.film) for clip in clips}))
    scope = f"Compared on {pluralize(len(clips), 'clip')} of {names}; manifest `{manifest_hash(clips)}`."
    rules = (
        f"A challenger must be scored on at least {min_films} films. Its mean gain must be above zero at "
        f"confidence {gate.confidence:g} (bootstrap over films, then clips), and the whole image may lose at "
        f"most {guardrails.MAX_LOSS_DB:g} dB, {guardrails.MAX_FILM_LOSS_DB:g} on any film. "
        f"Inpainters are decided by {COLUMNS[PRIMARY].heading} on crops around disocclusions. They may lose "
        f"at most {guardrails.MAX_HOLE_LOSS_DB:g} dB inside disocclusions and "
        f"{guardrails.MAX_FILM_BORDER_LOSS_DB:g} dB at the border on any film; "
        f"{guardrails.describe_block_losses()}; the gradient ratio must be in "
        f"[{guardrails.MIN_GRADIENT_RATIO:g}, {guardrails.MAX_GRADIENT_RATIO:g}], and the temporal error at "
        f"most {guardrails.MAX_TEMPORAL_ERROR_RATIO:g} times the champion's. If several inpainters "
        "challenge, the confidence is corrected for multiple comparisons (Bonferroni)."
    )
    return "\n\n".join(["# Gate", champion, "\n".join(lines), f"{scope} {rules}"]) + "\n"
