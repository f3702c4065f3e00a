"""Compare each trained part with the current champion's part."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from secondeye.conversion.bundle_parts import PARTS
from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import EvalClip, Score
from secondeye.dataset.tables import write_table
from secondeye.evaluation.block_scores import Blocks, BlocksOf, blocks_in
from secondeye.evaluation.manifest import manifest_hash
from secondeye.evaluation.score_methods import NonFiniteMethods, cached_scores, score_methods
from secondeye.gate.candidate import Candidate, TrainedPart
from secondeye.gate.decision import PartDecision, bonferroni, decide
from secondeye.params import Evaluate, Gate
from secondeye.run_folder import Run, make_run_key, open_run, working_on
from secondeye.system.files import write_atomic
from secondeye.system.process import lock_dir

NON_FINITE = "the output contains NaN or inf"


@dataclass(frozen=True)
class EvalSetup:
    """Evaluation data: the held-out clips, and the cached scores."""

    dataset: Dataset
    clips: Sequence[EvalClip]
    cached_scores: Sequence[Score]
    evaluate: Evaluate


def run_challenges(
    runs: Path,
    challengers: Sequence[TrainedPart],
    champion: Candidate,
    setup: EvalSetup,
    gate: Gate,
    unusable: Mapping[str, str],
) -> tuple[Candidate, list[PartDecision]]:
    """Let every trained part challenge the champion; return the resulting model and all decisions."""
    decisions, fallbacks = [], dict(unusable)
    for trained in challengers:
        part = trained.part
        corrected_gate = bonferroni(gate, sum(other.part == part for other in challengers))
        challenger = champion.with_part(*trained)
        run = open_challenge(runs, part, champion, challenger, setup, corrected_gate)
        with working_on(run):
            decision = challenge(
                run, part, champion, challenger, setup, corrected_gate, fallbacks.get(part, "")
            )
        decisions.append(decision)
        if decision.won:
            champion, fallbacks[part] = challenger, ""
        elif decision.fallback:
            champion, fallbacks[part] = champion.with_fallback(part), decision.fallback
    return champion, decisions


def challenge(
    run: Run,
    part: str,
    champion: Candidate,
    challenger: Candidate,
    setup: EvalSetup,
    gate: Gate,
    fallback: str,  # why the weight-free default replaced the champion's part; "" if it did not
) -> PartDecision:
    """Score both sides, decide, and write the run folder. A side that produces NaN or inf loses."""
    films = {film.id: film.name for film in setup.dataset.films.values()}
    try:
        rows, blocks_of = score_both(run, part, champion, challenger, setup)
        decision = decide(part, champion, challenger, rows, films, blocks_of, setup.evaluate, gate)
    except NonFiniteMethods as error:
        if "challenger" not in error.methods:
            reason = f"{champion.part_id(part)}: {NON_FINITE}"
            return challenge(run, part, champion.with_fallback(part), challenger, setup, gate, reason)
        rows = []
        decision = decide(part, champion, challenger, rows, films, _no_blocks, setup.evaluate, gate)
        decision = replace(decision, reason=NON_FINITE)
    decision = replace(decision, fallback=fallback)
    _finish_challenge(run, decision, rows)
    return decision


def open_challenge(
    runs: Path, part: str, champion: Candidate, challenger: Candidate, setup: EvalSetup, gate: Gate
) -> Run:
    """Open the run folder of a challenge; the same challenge has the same folder."""
    inputs = {
        "part": part,
        "champion": " and ".join(champion.part_id(p) for p in PARTS),
        "challenger": " and ".join(challenger.part_id(p) for p in PARTS),
        "manifest": manifest_hash(setup.clips),
    }
    key = make_run_key("secondeye.gate.challenge", [gate, setup.evaluate], inputs)
    evaluation = setup.dataset.folder("evaluate") / "run"
    judged = {"evaluation": Run(evaluation).key} if (evaluation / "run.json").is_file() else {}
    return open_run(runs, key, "gate", gate, inputs | judged)


def score_both(
    run: Run, part: str, champion: Candidate, challenger: Candidate, setup: EvalSetup
) -> tuple[list[Score], BlocksOf]:
    """Score both sides on the same clips and regions, from cached scores if possible.

    Raises NonFiniteMethods.
    """
    methods = [champion.as_method("champion", part), challenger.as_method("challenger", part)]
    cached = cached_scores(setup.cached_scores, setup.clips, methods, setup.evaluate)
    if cached is not None:
        return cached, blocks_in(setup.dataset.path(Score).parent, setup.cached_scores)
    out = run.folder / "scores"
    with lock_dir(out):
        rows = score_methods(out, setup.dataset, setup.clips, methods, setup.evaluate, label=f"gate, {part}")
    return rows, blocks_in(out, rows)


def _no_blocks(row: Score) -> Blocks:
    return {}


def _finish_challenge(run: Run, decision: PartDecision, rows: Sequence[Score]) -> None:
    """Write the decision and its scores to the run folder."""
    run.rewind(0)
    content = asdict(decision)
    run.log(0, {k: v for k, v in content.items() if isinstance(v, float) and math.isfinite(v)})
    write_table(run.table("scores.parquet"), rows, Score)
    write_atomic(run.table("decision.json"), json.dumps(content, indent=1, sort_keys=True) + "\n")
    run.finish({"verdict": "won" if decision.won else "lost", "why": decision.reason})
