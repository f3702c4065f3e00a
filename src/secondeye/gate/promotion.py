"""Run the gate, and register and promote the model that results."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from secondeye.conversion.bundle import write_bundle
from secondeye.conversion.bundle_parts import SHIPPED
from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import EvalClip, Score
from secondeye.gate import report
from secondeye.gate.candidate import Candidate, find_challengers, load_champion
from secondeye.gate.challenge import EvalSetup, run_challenges
from secondeye.gate.decision import PartDecision
from secondeye.gate.version_facts import facts_of_shipped, facts_of_winner
from secondeye.params import Evaluate, Gate
from secondeye.registry import champion as registry
from secondeye.registry.history import who
from secondeye.registry.models import fetch_version
from secondeye.system.errors import UserError
from secondeye.system.files import write_atomic


@dataclass(frozen=True)
class GateOutcome:
    """What the gate did."""

    previous: int  # champion's version before
    champion: int  # champion's version now
    decisions: list[PartDecision]
    unusable: Mapping[str, str]  # parts of the champion that fell back to DEFAULT_BUNDLE's, and why
    vetoed: list[str]  # one sentence for each trained part that may not challenge


def run_gate(
    data: Path, models: Path, reports: Path, runs: Path, *, gate: Gate, evaluate: Evaluate
) -> GateOutcome:
    """Let the trained models challenge the champion; register and promote the winner.

    If no version is registered, the shipped model becomes the first version and champion. Writes
    reports/gate.md. Raises UserError if nothing was evaluated, ChampionChanged if another process changed
    the champion meanwhile, ServerUnreachable.
    """
    dataset = Dataset(data)
    if not dataset.path(Score).exists():
        raise UserError(f"{dataset.path(Score)}: nothing was evaluated; run dvc repro evaluate")
    clips = dataset.rows(EvalClip)
    setup = EvalSetup(dataset, clips, dataset.rows(Score), evaluate)
    previous = ensure_champion(setup)
    fetched = fetch_version(f"models:/secondeye/{previous}")
    champion, unusable = load_champion(fetched.bundle)
    vetoes = registry.vetoed_weights()
    challengers, barred = find_challengers(models, champion, vetoes)
    model, decisions = run_challenges(runs, challengers, champion, setup, gate, unusable)
    version = previous
    if any(decision.won for decision in decisions):
        version = promote(model, decisions, setup, previous, fetched.tags)
    vetoed = [report.describe_veto(trained, vetoes[trained.weights_hash]) for trained in barred]
    outcome = GateOutcome(previous, version, decisions, unusable, vetoed)
    films = {film.id: film.name for film in dataset.films.values()}
    reports.mkdir(parents=True, exist_ok=True)
    write_atomic(
        reports / "gate.md",
        report.to_markdown(
            decisions,
            unusable,
            vetoed,
            versions=(outcome.previous, outcome.champion),
            clips=clips,
            films=films,
            gate=gate,
            min_films=evaluate.min_films,
        ),
    )
    return outcome


def ensure_champion(setup: EvalSetup | None) -> int:
    """Return the champion's version; if nothing is registered, the shipped model becomes it.

    `setup` is the evaluation whose scores of the shipped model MLflow shows. Raises ServerUnreachable.
    """
    current = registry.champion()
    return registry.ensure_champion(SHIPPED, facts_of_shipped(setup)) if current is None else current


def promote(
    model: Candidate,
    decisions: list[PartDecision],
    setup: EvalSetup,
    previous: int,  # the champion that was challenged
    champion_tags: Mapping[str, str],
) -> int:
    """Register the model as the next version, make it champion and return its number."""
    facts = facts_of_winner(model, decisions, setup.clips, champion_tags)
    winners = ", ".join(f"{decision.part} {decision.challenger}" for decision in decisions if decision.won)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "bundle"
        write_bundle(folder, model.bundle, model.depth_weights, model.inpaint_weights)
        return registry.register_and_promote(
            folder, facts, expected=previous, why=f"won: {winners}", by=f"gate, {who()}"
        )
