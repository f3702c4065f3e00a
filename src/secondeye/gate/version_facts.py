"""Tags, description and source run of a version: what put each of its parts there, and nothing else.

Tags of a part, PART being depth or inpainter:
  PART                name of the method
  PART_run            key of the training run
  PART_licences       of its training data; of the weights, if they are not ours
  PART_verdict        won: it replaced PART_against; missing for parts that did not challenge
  PART_gain           on how many films, in which score
  PART_against        name and weights hash of the part that it replaced
  PART_manifest       hash of the held-out clips
  PART_SCORE          its own mean score on them
  PART_decision       the decision as a sentence
A part that is carried over from the earlier champion keeps its tags.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from secondeye.conversion.bundle_parts import PARTS, SHIPPED
from secondeye.conversion.provenance import SHIPPED_LICENCE
from secondeye.dataset.schema import EvalClip
from secondeye.depth.estimators import find_weights, locate
from secondeye.evaluation.aggregate import mean_score
from secondeye.evaluation.manifest import manifest_hash
from secondeye.evaluation.score_methods import cached_scores
from secondeye.gate.candidate import Candidate, load_candidate
from secondeye.gate.challenge import EvalSetup
from secondeye.gate.decision import DECIDING_SCORE, PartDecision
from secondeye.gate.report import describe_decision
from secondeye.registry.publish import publish
from secondeye.registry.register import VersionFacts, publish_source
from secondeye.run_folder import Run
from secondeye.system.text import pluralize

# Of parts carried over, in the tags of the earlier champion.
_INHERITED = (
    "run",
    "licences",
    "verdict",
    "gain",
    "against",
    "manifest",
    "decision",
    *DECIDING_SCORE.values(),
)


def facts_of_winner(
    model: Candidate,
    decisions: Sequence[PartDecision],
    clips: Sequence[EvalClip],
    champion_tags: Mapping[str, str],  # of the champion before
) -> VersionFacts:
    """Return the facts of a version with at least one part that won. Its training run is published."""
    tags: dict[str, str] = {}
    scores: dict[str, float] = {}
    source = None
    for part in PARTS:
        tags |= _name_tags(model, part)
        decision = _decision_for(model, part, decisions)
        if decision is None:
            names = [f"{part}_{name}" for name in _INHERITED]
            carried_over = _folder(model, part) is not None
            tags |= {name: champion_tags[name] for name in names if carried_over and name in champion_tags}
            continue
        tags |= _decision_tags(decision, clips)
        scores[decision.score] = decision.challenger_score
        folder = _folder(model, part)
        if folder is not None:
            tags |= _origin_tags(part, folder)
            published = publish(folder / "run")
            source = None if published.deleted else published.run_id
    return VersionFacts(tags, _description(tags), source, scores)


def facts_of_shipped(setup: EvalSetup | None) -> VersionFacts:
    """Return the facts of the first version, without scores if nothing is evaluated.

    Its run in MLflow shows the model card.
    """
    model = load_candidate(SHIPPED)
    card = SHIPPED / "MODEL_CARD.md"
    tags: dict[str, str] = {}
    scores: dict[str, float] = {}
    for part in PARTS:
        tags |= _name_tags(model, part)
        if _folder(model, part) is not None:
            tags[f"{part}_licences"] = SHIPPED_LICENCE
            tags[f"{part}_decision"] = f"{part}: `{model.part_id(part)}`, shipped with the program."
        if setup is None:
            continue
        rows = cached_scores(
            setup.cached_scores, setup.clips, [model.as_method("shipped", part)], setup.evaluate
        )
        score = DECIDING_SCORE[part]
        mean = round(mean_score(rows, score), 4) if rows else math.nan
        if math.isfinite(mean):
            scores[score] = mean
            tags |= {f"{part}_{score}": f"{mean:g}", f"{part}_manifest": manifest_hash(setup.clips)}
    return VersionFacts(tags, _description(tags), publish_source(card, SHIPPED), scores)


def _decision_for(model: Candidate, part: str, decisions: Sequence[PartDecision]) -> PartDecision | None:
    """Return the decision that put this part into the model; None if it was there before."""
    won = [
        decision
        for decision in decisions
        if decision.won and decision.part == part and decision.challenger == model.part_id(part)
    ]
    return won[-1] if won else None


def _decision_tags(decision: PartDecision, clips: Sequence[EvalClip]) -> dict[str, str]:
    facts = {
        "verdict": "won",
        "gain": f"{decision.gain:+.4f} {decision.score} on {pluralize(decision.films, 'film')}",
        "against": decision.champion,
        "manifest": manifest_hash(clips),
        "decision": describe_decision(decision),
        decision.score: f"{decision.challenger_score:g}",
    }
    return {f"{decision.part}_{name}": value for name, value in facts.items()}


def _origin_tags(part: str, weights: Path) -> dict[str, str]:
    run = Run(weights / "run")
    return {f"{part}_run": run.key, f"{part}_licences": run.read()["tags"].get("licences", "")}


def _description(tags: Mapping[str, str]) -> str:
    lines = [tags.get(f"{part}_decision", f"{part}: `{tags[part]}`, which has no weights.") for part in PARTS]
    return "\n\n".join(lines)


def _name_tags(model: Candidate, part: str) -> dict[str, str]:
    """Return the part's name, and the licence of weights that are not in the bundle."""
    name = model.bundle.depth if part == "depth" else model.bundle.inpainter
    weights = find_weights(locate(name, model.depth_weights)) if part == "depth" else None
    return {part: name} | ({f"{part}_licences": weights.licence} if weights else {})


def _folder(model: Candidate, part: str) -> Path | None:
    return model.depth_weights if part == "depth" else model.inpaint_weights
