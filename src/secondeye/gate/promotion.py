"""Run the gate, and register and promote the model that results."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from secondeye.conversion.bundle import SHIPPED, write_bundle
from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import EvalClip, Score
from secondeye.evaluation.manifest import manifest_hash
from secondeye.gate import report
from secondeye.gate.candidate import Candidate, load_champion
from secondeye.gate.challenge import EvalSetup, run_challenges
from secondeye.gate.decision import PartDecision
from secondeye.params import Evaluate, Gate
from secondeye.registry import models as registry
from secondeye.run_folder import Run
from secondeye.system.errors import UserError
from secondeye.system.files import write_atomic
from secondeye.system.text import pluralize


@dataclass(frozen=True)
class GateOutcome:
    """What the gate did."""

    previous: int  # champion's version before
    champion: int  # champion's version now
    decisions: list[PartDecision]
    unusable: Mapping[str, str]  # parts of the champion that fell back to DEFAULT_BUNDLE's, and why


def run_gate(
    data: Path, models: Path, reports: Path, runs: Path, *, gate: Gate, evaluate: Evaluate
) -> GateOutcome:
    """Let the trained models challenge the champion; register and promote the winner.

    If no version is registered, the shipped model becomes the first version and champion. Writes
    reports/gate.md. Raises UserError if nothing was evaluated, ServerUnreachable.
    """
    dataset = Dataset(data)
    if not dataset.path(Score).exists():
        raise UserError(f"{dataset.path(Score)}: nothing was evaluated; run dvc repro evaluate")
    clips = dataset.rows(EvalClip)
    setup = EvalSetup(dataset, clips, dataset.rows(Score), evaluate)
    registry.ensure_champion(SHIPPED)
    fetched = registry.fetch_version("models:/secondeye@champion")
    champion, unusable = load_champion(fetched.bundle)
    champion, decisions = run_challenges(runs, models, champion, setup, gate, unusable)
    won = any(decision.won for decision in decisions)
    version = promote(champion, decisions, clips, fetched.tags) if won else fetched.version
    outcome = GateOutcome(fetched.version, version, decisions, unusable)
    films = {film.id: film.name for film in dataset.films.values()}
    reports.mkdir(parents=True, exist_ok=True)
    write_atomic(
        reports / "gate.md",
        report.to_markdown(
            decisions,
            unusable,
            versions=(outcome.previous, outcome.champion),
            clips=clips,
            films=films,
            gate=gate,
            min_films=evaluate.min_films,
        ),
    )
    return outcome


def promote(
    model: Candidate,
    decisions: Sequence[PartDecision],
    clips: Sequence[EvalClip],
    champion_tags: Mapping[str, str],
) -> int:
    """Register the model as the next version, make it champion and return its number."""
    tags = {"manifest": manifest_hash(clips)}
    tags |= origin_tags("depth", model.depth_weights, champion_tags)
    tags |= origin_tags("inpainter", model.inpaint_weights, champion_tags)
    for decision in decisions:
        tags[f"{decision.part}_verdict"] = "won" if decision.won else "lost"
        films = pluralize(decision.films, "film")
        tags[f"{decision.part}_gain"] = f"{decision.gain:+.4f} {decision.score} on {films}"
        tags[f"{decision.part}_against"] = decision.champion
    description = "\n\n".join(report.describe_decision(decision) for decision in decisions)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "bundle"
        write_bundle(folder, model.bundle, model.depth_weights, model.inpaint_weights)
        version = registry.register(folder, tags, description)
    registry.set_champion(version)
    return version


def origin_tags(part: str, weights: Path | None, champion_tags: Mapping[str, str]) -> dict[str, str]:
    """Return a version's tags for the run that trained a part and the licences of its training data."""
    if weights is None:
        return {}
    names = (f"{part}_run", f"{part}_licences")
    if not (weights / "run" / "run.json").is_file():  # from the champion's bundle, which has no run record
        return {name: champion_tags[name] for name in names if name in champion_tags}
    run = Run(weights / "run")
    return dict(zip(names, (run.key, run.read()["tags"].get("licences", "")), strict=True))
