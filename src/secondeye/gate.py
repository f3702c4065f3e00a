"""The gate: a challenger becomes champion where it wins on the same held-out films, and only there.

Each part of the model is challenged by itself: first the depth, then the inpainter on top of what is champion
by then. Both are scored by `evaluation.judge`, on the clips and regions that the stage `evaluate` has frozen.
The mean gain over films must be above zero in nearly every resample of films and clips, and an inpainter may
not fall below the floors (evaluation.floors).
Where several inpainters challenge, each gets its share of the doubt (Bonferroni): the more tries, the more
likely a lucky one. A part of the champion that the present code can not use is stood in for by WEIGHT_FREE's.
"""

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from secondeye.conversion.bundle import (
    SHIPPED,
    WEIGHT_FREE,
    Bundle,
    read_bundle,
    weights_folder,
    write_bundle,
)
from secondeye.dataset.schema import EvalClip, Film, Score
from secondeye.dataset.tables import read_table, write_table
from secondeye.evaluation import guardrails
from secondeye.evaluation.aggregate import average, mean_of_films, paired_gains
from secondeye.evaluation.bootstrap import least_gain
from secondeye.evaluation.columns import COLUMNS, PRIMARY
from secondeye.evaluation.eval_clips import Folders, manifest_hash
from secondeye.evaluation.methods import Method, load_estimator, load_inpainter
from secondeye.evaluation.score_methods import Broken, cached_scores, score_methods
from secondeye.params import Evaluate, Gate
from secondeye.registry import models as registry
from secondeye.run_folder import Run, make_run_key, open_run
from secondeye.system.errors import UserError
from secondeye.system.files import hash_weights, write_atomic
from secondeye.system.process import lock_dir

# What decides: depth against what stereo says, painting where it is needed.
DECIDES = {"depth": "disparity_error_percent", "inpainter": PRIMARY}
# What challenges, in this order: part, name, folder in models/.
LEARNED = (
    ("depth", "student", "depth"),
    ("inpainter", "light", "inpaint/light"),
    ("inpainter", "diffusion", "inpaint/diffusion"),
)
SUREST = 0.9999  # confidence that can be asked for
BROKEN = "it makes pixels that are not numbers"


@dataclass(frozen=True)
class Model:
    """A bundle in pieces: its names, and where its weights lie."""

    bundle: Bundle
    depth_weights: Path | None
    inpaint_weights: Path | None

    def part(self, part: str) -> str:
        """Name and weights of its depth or inpainter, by content."""
        name = self.bundle.depth if part == "depth" else self.bundle.inpainter
        folder = self.depth_weights if part == "depth" else self.inpaint_weights
        return f"{name} {hash_weights(folder)[:12]}" if folder else name

    def as_method(self, name: str, part: str) -> Method:
        """How it is judged: an inpainter on the clip's own disparity, depth as a whole model."""
        return Method(
            name,
            "model" if part == "depth" else "inpainter",
            self.bundle.depth if part == "depth" else "",
            self.depth_weights if part == "depth" else None,
            self.bundle.inpainter,
            self.inpaint_weights,
        )


@dataclass(frozen=True)
class EvalSetup:
    """What both sides are put to: the clips that the stage `evaluate` has frozen, and what it found there."""

    folders: Folders
    held: Sequence[EvalClip]
    known: Sequence[Score]
    evaluate: Evaluate


@dataclass(frozen=True)
class PartDecision:
    """How one challenge ended."""

    part: str  # depth or inpainter
    champion: str  # what held the place: name and hash of its weights
    challenger: str
    score: str  # the column that decides
    champion_score: float  # mean over films
    challenger_score: float
    films: int
    gain: float  # mean over films; positive where the challenger is better
    least_gain: float  # lower end of the one-sided interval over films and clips
    lost_db: float  # PSNR over the whole picture; positive where the challenger is worse
    won: bool
    why: str
    stands_in: str  # why WEIGHT_FREE's part held the place; "" where the champion's own did


@dataclass(frozen=True)
class Outcome:
    """What the gate did."""

    before: int  # version that was champion
    champion: int  # version that is champion now
    verdicts: list[PartDecision]
    unusable: Mapping[str, str]  # parts of the champion for which WEIGHT_FREE's stand in, and why


def pass_gate(data: Path, models: Path, reports: Path, runs: Path, gate: Gate, evaluate: Evaluate) -> Outcome:
    """Let what was trained challenge the champion; register and promote it where it wins.

    Without any registered version, what comes with the program becomes the first, and champion. Writes
    reports/gate.md. Raises Refusal when nothing was evaluated, ServerUnreachable.
    """
    scores, regions = data / "evaluate" / "scores", data / "evaluate" / "regions"
    if not (scores / "scores.parquet").exists():
        raise UserError(f"{scores}: nothing was evaluated; run dvc repro evaluate")
    folders = Folders(data / "split", data / "shift", data / "match", regions)
    held = read_table(regions / "manifest.parquet", EvalClip)
    exam = EvalSetup(folders, held, read_table(scores / "scores.parquet", Score), evaluate)
    ensure_champion()
    fetched = registry.resolve("models:/secondeye@champion")
    model, unusable = usable(fetched.bundle)
    model, verdicts = hold_challenges(runs, models, model, exam, gate, unusable)
    won = any(verdict.won for verdict in verdicts)
    version = promote(model, verdicts, held, fetched.tags) if won else fetched.version
    outcome = Outcome(fetched.version, version, verdicts, unusable)
    films = {film.id: film.name for film in read_table(data / "split" / "films.parquet", Film)}
    reports.mkdir(parents=True, exist_ok=True)
    write_atomic(reports / "gate.md", describe(outcome, held, films, gate))
    return outcome


def hold_challenges(
    runs: Path, models: Path, champion: Model, exam: EvalSetup, gate: Gate, unusable: Mapping[str, str]
) -> tuple[Model, list[PartDecision]]:
    """All that was trained, in turn, each against what holds its place by then; and what holds them all."""
    verdicts, stands_in = [], dict(unusable)
    waiting = challengers(models, champion)
    for part, name, weights in waiting:
        strict = bonferroni(gate, sum(other == part for other, _, _ in waiting))
        challenger = with_part(champion, part, name, weights)
        run = open_challenge(runs, part, champion, challenger, exam, strict)
        verdict = challenge(run, part, champion, challenger, exam, strict, stands_in.get(part, ""))
        verdicts.append(verdict)
        if verdict.won:
            champion, stands_in[part] = challenger, ""
        elif verdict.stands_in:
            champion, stands_in[part] = without(champion, part), verdict.stands_in
    return champion, verdicts


def ensure_champion() -> None:
    """Without a champion, crown the lowest version, or the model that comes with the program as the first."""
    if registry.champion() is None:
        shipped = model_of(SHIPPED)
        with tempfile.TemporaryDirectory() as temporary:
            copy = Path(temporary) / "bundle"
            weights = shipped.depth_weights, shipped.inpaint_weights
            registry.first_version(write_bundle(copy, shipped.bundle, *weights))


def model_of(folder: Path) -> Model:
    """The bundle in this folder."""
    return Model(read_bundle(folder), weights_folder(folder, "depth"), weights_folder(folder, "inpaint"))


def usable(folder: Path) -> tuple[Model, dict[str, str]]:
    """The champion, WEIGHT_FREE's parts in place of those the present code can not load; and why.

    Without this, a champion of older code would keep its place for ever.
    """
    try:
        model = model_of(folder)
    except UserError as refusal:
        return Model(WEIGHT_FREE, None, None), dict.fromkeys(DECIDES, str(refusal))
    unusable = {}
    for part in DECIDES:
        method = model.as_method("champion", part)
        try:
            (load_estimator if part == "depth" else load_inpainter)(method, method.made_of)
        except UserError as refusal:
            unusable[part] = str(refusal)
            model = without(model, part)
    return model, unusable


def challengers(models: Path, champion: Model) -> list[tuple[str, str, Path]]:
    """Part, name and weights of all that was trained and is not champion, in the order of their turns."""
    found = [(p, name, models / place) for p, name, place in LEARNED if (models / place / "run").is_dir()]
    return [new for new in found if with_part(champion, *new).part(new[0]) != champion.part(new[0])]


def bonferroni(gate: Gate, tries: int) -> Gate:
    """The gate for each of so many tries at one place: chance may get all together as far as one alone."""
    return replace(gate, confidence=min(1 - (1 - gate.confidence) / tries, SUREST))


def without(model: Model, part: str) -> Model:
    """The model with WEIGHT_FREE's part, which needs no weights."""
    return with_part(model, part, WEIGHT_FREE.depth if part == "depth" else WEIGHT_FREE.inpainter, None)


def with_part(model: Model, part: str, name: str, weights: Path | None) -> Model:
    """The model with one part replaced."""
    if part == "depth":
        return replace(model, bundle=replace(model.bundle, depth=name), depth_weights=weights)
    return replace(model, bundle=replace(model.bundle, inpainter=name), inpaint_weights=weights)


def challenge(
    run: Run,
    part: str,
    champion: Model,
    challenger: Model,
    exam: EvalSetup,
    gate: Gate,
    stands_in: str,  # why WEIGHT_FREE's part holds the champion's place; "" where it does not
) -> PartDecision:
    """One comparison, kept in the run's folder. Who makes pixels that are not numbers loses."""
    try:
        rows = judge_both(run, part, champion, challenger, exam)
        verdict = decide(part, champion, challenger, rows, exam.evaluate, gate)
    except Broken as broken:
        if "challenger" not in broken.methods:
            reason = f"{champion.part(part)}: {BROKEN}"
            return challenge(run, part, without(champion, part), challenger, exam, gate, reason)
        rows, verdict = [], replace(decide(part, champion, challenger, [], exam.evaluate, gate), why=BROKEN)
    verdict = replace(verdict, stands_in=stands_in)
    close_challenge(run, verdict, rows)
    return verdict


def open_challenge(
    runs: Path, part: str, champion: Model, challenger: Model, exam: EvalSetup, gate: Gate
) -> Run:
    """The run folder of this comparison; the same comparison has the same one."""
    inputs = {
        "part": part,
        "champion": " and ".join(champion.part(p) for p in DECIDES),
        "challenger": " and ".join(challenger.part(p) for p in DECIDES),
        "manifest": manifest_hash(exam.held),
    }
    key = make_run_key("secondeye.gate", [gate, exam.evaluate], inputs)
    return open_run(runs, key, "gate", gate, inputs)


def judge_both(run: Run, part: str, champion: Model, challenger: Model, exam: EvalSetup) -> list[Score]:
    """Both on the same clips, in the same regions. Raises Broken."""
    methods = [champion.as_method("champion", part), challenger.as_method("challenger", part)]
    recalled = cached_scores(exam.known, exam.held, methods, exam.evaluate)
    if recalled is not None:
        return recalled
    out = run.folder / "scores"
    with lock_dir(out):
        return score_methods(out, exam.folders, exam.held, methods, exam.evaluate, label=f"gate, {part}")


def decide(
    part: str,
    champion: Model,
    challenger: Model,
    rows: Sequence[Score],
    evaluate: Evaluate,
    gate: Gate,
) -> PartDecision:
    """Compare clip by clip: the mean gain, less its one-sided interval (bootstrap), must be above zero."""
    column = DECIDES[part]
    theirs, ours = ([row for row in rows if row.method == side] for side in ("champion", "challenger"))
    gains = paired_gains(theirs, ours, column)
    least = least_gain(gains, resamples=evaluate.resamples, confidence=gate.confidence, seed=evaluate.seed)
    means = [{name: mean_of_films(side, name) for name in COLUMNS} for side in (theirs, ours)]
    fault = find_fault(part, len(gains), least, means[1], means[0], gate)
    return PartDecision(
        part=part,
        champion=champion.part(part),
        challenger=challenger.part(part),
        score=column,
        champion_score=round(means[0][column], 4),
        challenger_score=round(means[1][column], 4),
        films=len(gains),
        gain=round(average(gains), 4),
        least_gain=round(least, 4),
        lost_db=round(means[0]["psnr_db"] - means[1]["psnr_db"], 4),
        won=not fault,
        why=fault or "better on the films together, beyond chance",
        stands_in="",
    )


def find_fault(
    part: str,
    films: int,
    least: float,
    ours: Mapping[str, float],
    theirs: Mapping[str, float],
    gate: Gate,
) -> str:
    """Why a challenger does not pass; "" where it does."""
    if films < gate.min_films:
        return f"insufficient evidence: scored on {films} held-out films, gate.min_films is {gate.min_films}"
    if not least > 0:  # NaN fails, too
        return f"its gain is not above zero at confidence {gate.confidence:g}"
    return (
        guardrails.find_violation(ours, theirs) if part == "inpainter" else guardrails.find_loss(ours, theirs)
    )


def close_challenge(run: Run, verdict: PartDecision, rows: Sequence[Score]) -> None:
    """Leave the scores and the verdict in the run's folder."""
    run.rewind(0)
    numbers = {k: v for k, v in asdict(verdict).items() if isinstance(v, float) and math.isfinite(v)}
    run.log(0, numbers)
    write_table(run.table("scores.parquet"), rows, Score)
    write_atomic(run.table("verdict.json"), json.dumps(asdict(verdict), indent=1, sort_keys=True) + "\n")
    run.finish({"verdict": "won" if verdict.won else "lost", "why": verdict.why})


def promote(
    model: Model,
    verdicts: Sequence[PartDecision],
    held: Sequence[EvalClip],
    before: Mapping[str, str],  # tags of the champion
) -> int:
    """Register the model as the next version and make it champion."""
    tags = {"manifest": manifest_hash(held)}
    tags |= origin("depth", model.depth_weights, before) | origin("inpainter", model.inpaint_weights, before)
    for verdict in verdicts:
        tags[f"{verdict.part}_verdict"] = "won" if verdict.won else "lost"
        tags[f"{verdict.part}_gain"] = f"{verdict.gain:+.4f} {verdict.score} on {verdict.films} films"
        tags[f"{verdict.part}_against"] = verdict.champion
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "bundle"
        write_bundle(folder, model.bundle, model.depth_weights, model.inpaint_weights)
        version = registry.register(folder, tags, "\n\n".join(map(sentence, verdicts)))
    registry.set_champion(version)
    return version


def origin(part: str, weights: Path | None, before: Mapping[str, str]) -> dict[str, str]:
    """The run that made a part's weights, and the licences of what it learnt from, as tags of a version."""
    if weights is None:
        return {}
    names = (f"{part}_run", f"{part}_licences")
    if not (weights / "run" / "run.json").is_file():  # the champion's own: a bundle leaves the record out
        return {name: before[name] for name in names if name in before}
    run = Run(weights / "run")
    return dict(zip(names, (run.key, run.read()["tags"].get("licences", "")), strict=True))


def sentence(verdict: PartDecision) -> str:
    """A verdict in words."""
    said = (
        f"{verdict.part}: `{verdict.challenger}` {'replaces' if verdict.won else 'does not replace'} "
        f"`{verdict.champion}`: {verdict.why}."
    )
    if verdict.stands_in:
        said += f" `{verdict.champion}` stood in for the champion's own ({verdict.stands_in})."
    if not verdict.films:
        return said
    return (
        f"{said} {verdict.score} {verdict.champion_score:g} to "
        f"{verdict.challenger_score:g}, gain {verdict.gain:+.4f} (at least {verdict.least_gain:+.4f}) on "
        f"{verdict.films} films; PSNR of the whole picture {-verdict.lost_db:+.3f} dB."
    )


def describe(outcome: Outcome, held: Sequence[EvalClip], films: dict[str, str], gate: Gate) -> str:
    """The report in Markdown."""
    names = ", ".join(sorted({films.get(row.film, row.film) for row in held}))
    verdicts = [f"- {sentence(verdict)}" for verdict in outcome.verdicts] or ["- nothing new to compare"]
    judged = {verdict.part for verdict in outcome.verdicts}
    verdicts += [
        f"- {part}: the champion's own can not be loaded by this version of the code ({why})"
        for part, why in outcome.unusable.items()
        if part not in judged
    ]
    changed = outcome.champion != outcome.before
    parts = [
        "# Gate",
        f"Version {outcome.champion} is champion"
        + (f"; version {outcome.before} was." if changed else ", as before."),
        "\n".join(verdicts),
        f"Compared on {len(held)} clips of {names}; manifest `{manifest_hash(held)}`. A challenger needs "
        f"{gate.min_films} films and a mean gain above zero at confidence {gate.confidence:g} (bootstrap "
        f"over films, then clips), and may not cost more than {guardrails.LOST_DB} dB of the whole picture. "
        f"An inpainter is decided by {COLUMNS[PRIMARY].heading} on crops around disocclusions, and may not "
        f"lose more than {guardrails.LOST_HOLE_DB} dB inside them, be blurred or noisy there (gradient "
        f"ratio in [{guardrails.LEAST_GRADIENT_RATIO}, {guardrails.MOST_GRADIENT_RATIO}]) or flicker "
        f"more than {guardrails.MORE_TEMPORAL_ERROR} times as much. Where several inpainters challenge, they "
        "share the doubt, one minus the confidence, evenly.",
    ]
    return "\n\n".join(parts) + "\n"
