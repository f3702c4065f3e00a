"""The gate promotes what is significantly better on the same held-out films, and nothing else."""

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import a_clip, a_film, a_shift, eval_clip, register, score_row
from sabotage import blotch, garbage_block
from small_dataset import write_rows
from torch import Tensor
from typer.testing import CliRunner

from secondeye.cli import app
from secondeye.conversion.bundle import DEFAULT_BUNDLE, Bundle, write_bundle
from secondeye.conversion.bundle_parts import SHIPPED
from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import (
    AcceptedClip,
    Clip,
    ClipDisparity,
    Correction,
    EvalClip,
    Film,
    Score,
)
from secondeye.dataset.tables import write_table
from secondeye.evaluation import score_methods
from secondeye.evaluation.block_scores import BlocksOf, read_blocks, write_blocks
from secondeye.evaluation.eval_clips import EvalFrames
from secondeye.evaluation.methods import Method, MethodOutput, make_right
from secondeye.evaluation.regions import DISOCCLUDED, regions_from_truth
from secondeye.evaluation.score import PreparedFrames, compute, inpainted_blocks, prepare, update
from secondeye.evaluation.score_methods import NonFiniteMethods, score_key
from secondeye.gate.candidate import Candidate, find_challengers, load_candidate
from secondeye.gate.challenge import NON_FINITE, EvalSetup, challenge, open_challenge
from secondeye.gate.decision import PartDecision, bonferroni, decide
from secondeye.gate.promotion import GateOutcome, run_gate
from secondeye.gate.report import describe_decision, to_markdown
from secondeye.inpaint.light import KIND, save_light
from secondeye.inpaint.light_network import Light
from secondeye.metrics.outliers import BLOCK_PX
from secondeye.params import Evaluate, Gate, load_params
from secondeye.registry import champion as registry
from secondeye.registry.models import fetch_version
from secondeye.registry.register import VersionFacts
from secondeye.run_folder import Run
from secondeye.synthetic import render_shot
from secondeye.system.files import hash_weights

PROJECT = Path(__file__).parent.parent
GATE = Gate(confidence=0.9)
EVALUATE = replace(load_params(PROJECT / "params.yaml").evaluate, min_films=5)
NO_WEIGHTS = Candidate(DEFAULT_BUNDLE, None, None)
FILL = Method("fill", "inpainter", inpainter="fill")


def scores_of(
    method: str, primary: list[float], whole: float = 30.0, error: float = 0.5, **scores: float
) -> list[Score]:
    """Return scores of one clip for each film."""
    guarded = {"psnr_disoccluded_db": 20.0, "gradient_ratio": 1.0, "temporal_error": 2.0} | scores
    return [
        score_row(
            f"c{film}",
            f"f{film}",
            method,
            haarpsi=value,
            psnr_db=whole,
            disparity_error_percent=error,
            **guarded,
        )
        for film, value in enumerate(primary)
    ]


def decision_on(
    part: str, rows: list[Score], gate: Gate = GATE, blocks_of: BlocksOf = lambda row: {}
) -> PartDecision:
    return decide(part, NO_WEIGHTS, NO_WEIGHTS, rows, {"f3": "holiday.mp4"}, blocks_of, EVALUATE, gate)


CHAMPION = scores_of("champion", [0.5, 0.52, 0.54, 0.51, 0.53])
BETTER = [0.55, 0.56, 0.60, 0.56, 0.58]


def test_a_challenger_that_is_better_on_every_film_wins() -> None:
    decision = decision_on("inpainter", CHAMPION + scores_of("challenger", BETTER))
    assert decision.won and decision.films == 5 and decision.score == "haarpsi"
    assert decision.gain == pytest.approx(0.05) and 0.04 < decision.gain_lower_bound < 0.05


def test_one_lucky_film_is_not_significant() -> None:
    decision = decision_on("inpainter", CHAMPION + scores_of("challenger", [0.49, 0.51, 0.53, 0.5, 0.9]))
    assert decision.gain > 0.05 and not decision.won and "not above zero" in decision.reason


def test_four_films_are_insufficient_evidence() -> None:
    decision = decision_on("inpainter", CHAMPION[:4] + scores_of("challenger", BETTER[:4]))
    assert not decision.won and "insufficient evidence" in decision.reason


def test_films_that_only_one_side_was_scored_on_do_not_count() -> None:
    challenger = scores_of("challenger", [*BETTER[:4], math.nan])
    assert decision_on("inpainter", CHAMPION + challenger).films == 4


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        ({"whole": 29.0}, "the whole image loses 1.00 dB"),
        ({"psnr_disoccluded_db": 19.0}, "holes lose 1.00 dB"),
        ({"gradient_ratio": 0.55}, "gradient ratio in holes, 0.55"),
        ({"gradient_ratio": 1.45}, "gradient ratio in holes, 1.45"),
        ({"temporal_error": 2.3}, "2.30 levels against 2.00"),
    ],
)
def test_an_inpainter_that_violates_a_guardrail_loses(scores: dict[str, float], reason: str) -> None:
    decision = decision_on("inpainter", CHAMPION + scores_of("challenger", BETTER, **scores))
    assert not decision.won and reason in decision.reason


@pytest.mark.parametrize(
    ("part", "column", "lost_db", "reason"),
    [
        (
            "inpainter",
            "psnr_db",
            0.4,
            "the whole image of film holiday.mp4 loses 0.40 dB, 0.3 allowed on any film",
        ),
        (
            "inpainter",
            "psnr_border_db",
            1.3,
            "the border of film holiday.mp4 loses 1.30 dB, 1 allowed on any film",
        ),
        ("inpainter", "psnr_db", 0.2, ""),
        ("inpainter", "psnr_border_db", 0.9, ""),
        ("depth", "psnr_db", 0.4, "the whole image of film holiday.mp4 loses 0.40 dB"),
        ("depth", "psnr_border_db", 1.3, ""),  # with another depth, another border enters
    ],
)
def test_a_loss_on_one_film_counts_although_the_mean_gains(
    part: str, column: str, lost_db: float, reason: str
) -> None:
    champion = [replace(row, psnr_border_db=20.0) for row in CHAMPION]
    rows = scores_of("challenger", BETTER, whole=30.5, error=0.4, psnr_border_db=21.0)
    before = getattr(champion[3], column)
    rows[3] = replace(rows[3], **{column: before - lost_db})
    decision = decision_on(part, champion + rows)
    assert decision.psnr_gain_db > 0 and decision.won == (not reason)
    assert reason in decision.reason


@pytest.mark.parametrize(
    ("part", "column", "worse", "reason"),
    [
        (
            "inpainter",
            "worst_block",
            0.7,
            "the error in a block of film holiday.mp4 is 0.70 of the contrast worse (clip again c3, "
            "frame 0, x 64, y 0), 0.6 allowed in any block",
        ),
        ("inpainter", "chroma_excess", 0.7, ""),
        (
            "inpainter",
            "chroma_excess",
            9.0,
            "chroma excess in a block of film holiday.mp4 is 9.00 levels",
        ),
        ("inpainter", "worst_block", 0.5, ""),
        ("depth", "worst_block", 0.7, ""),  # with another depth, other regions are inpainted
    ],
)
def test_one_worse_block_counts_beside_a_block_that_is_worse_for_both(
    tmp_path: Path, part: str, column: str, worse: float, reason: str
) -> None:
    champion = [replace(row, key=row.id, worst_block=12.0) for row in CHAMPION]
    champion += [replace(row, key=f"again {row.id}", clip=f"again {row.clip}") for row in champion]
    changes = {"method": "challenger", "disparity_error_percent": 0.4, "worst_block": 11.0}
    rows = [replace(row, key=f"my {row.key}", haarpsi=row.haarpsi + 0.05, **changes) for row in champion]
    files = {row.key: tmp_path / f"{row.key}.npz" for row in champion + rows}
    for key, path in files.items():
        values = torch.tensor([[[11.0 if key.startswith("my") else 12.0, 1.0, math.nan]]])
        write_blocks(path, {"worst_block": values, "chroma_excess": values})
    spoilt = torch.tensor([[[11.0, 1.0 + worse, math.nan]]])
    write_blocks(files[rows[8].key], {"worst_block": values, "chroma_excess": values, column: spoilt})
    decision = decision_on(part, champion + rows, blocks_of=lambda row: read_blocks(files[row.key]))
    assert decision.won == (not reason) and reason in decision.reason


@pytest.fixture(scope="module")
def filled() -> list[tuple[EvalFrames, PreparedFrames, Tensor]]:
    """Return five short films and their right views, filled."""
    films = []
    for seed in (0, 2, 4, 1, 5):
        shot = render_shot(seed, 2, 96, 160)
        regions = regions_from_truth(shot.right_disparity, shot.right_occlusion)
        clip = EvalFrames(shot.left, shot.right, shot.disparity, regions)
        prepared = prepare(shot.left, shot.right, regions)
        films.append((clip, prepared, make_right(FILL, clip).right))
    return films


@pytest.mark.parametrize(
    ("sabotage", "reason"),
    [
        (None, ""),
        (garbage_block, "the error in a block of film holiday.mp4 is"),
        (blotch, "the chroma excess in a block of film holiday.mp4 is"),
    ],
)
def test_garbage_in_one_place_of_one_film_is_caught(
    tmp_path: Path,
    filled: list[tuple[EvalFrames, PreparedFrames, Tensor]],
    sabotage: Callable[[EvalFrames, Tensor], Tensor] | None,
    reason: str,
) -> None:
    """A challenger that is closer to the truth on all films wins, unless one block is garbage."""
    rows, files = [], {}
    for number, (clip, prepared, made) in enumerate(filled):
        better = made.lerp(clip.right, 0.7)
        if sabotage is not None and number == 3:
            better = sabotage(clip, better)
        for method, right in (("champion", made), ("challenger", better)):
            scores = compute(update(prepared, right, overlap=0, learned=None))
            row = score_row(f"c{number}", f"f{number}", method, **scores)
            rows.append(replace(row, key=row.id))
            files[row.id] = tmp_path / f"{row.id}.npz"
            write_blocks(files[row.id], inpainted_blocks(prepared, right))
    decision = decision_on("inpainter", rows, blocks_of=lambda row: read_blocks(files[row.key]))
    assert decision.won == (not reason) and reason in decision.reason


def test_a_blurred_champion_is_replaced_by_a_less_blurred_one() -> None:
    champion = scores_of("champion", [0.5, 0.52, 0.54, 0.51, 0.53], gradient_ratio=0.4)
    assert decision_on("inpainter", champion + scores_of("challenger", BETTER, gradient_ratio=0.4)).won
    assert decision_on("inpainter", champion + scores_of("challenger", BETTER, gradient_ratio=2.0)).won
    decision = decision_on("inpainter", champion + scores_of("challenger", BETTER, gradient_ratio=0.3))
    assert not decision.won and "0.30, is outside" in decision.reason


def test_depth_is_decided_by_its_error() -> None:
    champion = scores_of("champion", [0.5] * 5, error=0.5)
    better, worse = (scores_of("challenger", [0.5] * 5, error=error) for error in (0.4, 0.6))
    assert decision_on("depth", champion + better).won
    decision = decision_on("depth", champion + worse)
    assert not decision.won and decision.gain == pytest.approx(-0.1)


def test_a_tie_keeps_the_champion() -> None:
    equal = [replace(row, method="challenger") for row in CHAMPION]
    decision = decision_on("inpainter", CHAMPION + equal)
    assert not decision.won and decision.films == 5 and decision.gain == 0


def test_challengers_are_the_trained_parts_that_differ_from_the_champion(tmp_path: Path) -> None:
    for name in ("depth", "inpaint/light", "inpaint/diffusion"):
        (tmp_path / name / "run").mkdir(parents=True)
        (tmp_path / name / "model.safetensors").write_text(name)

    def names(champion: Candidate, *vetoed: str) -> list[list[str]]:
        found = find_challengers(tmp_path, champion, vetoed)
        return [[trained.name for trained in trained_parts] for trained_parts in found]

    assert names(NO_WEIGHTS) == [["student", "light", "diffusion"], []]
    champion = NO_WEIGHTS.with_part("inpainter", "light", tmp_path / "inpaint" / "light")
    assert names(champion) == [["student", "diffusion"], []]
    student = hash_weights(tmp_path / "depth")
    assert names(champion, student, hash_weights(tmp_path / "inpaint" / "light")) == [
        ["diffusion"],
        ["student"],
    ]
    assert find_challengers(tmp_path / "nothing", NO_WEIGHTS, []) == ([], [])


def test_more_challengers_need_more_confidence() -> None:
    assert bonferroni(GATE, 1) == GATE
    assert bonferroni(GATE, 2).confidence == pytest.approx(0.95)
    champion = scores_of("champion", [0.5] * 5)
    rows = champion + scores_of("challenger", [0.47, 0.51, 0.52, 0.55, 0.54])
    assert decision_on("inpainter", rows).won
    assert not decision_on("inpainter", rows, bonferroni(GATE, 8)).won


def test_replacing_a_part_keeps_the_other(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("w")
    model = NO_WEIGHTS.with_part("inpainter", "light", tmp_path)
    assert (model.bundle.depth, model.bundle.inpainter) == ("motion", "light")
    assert model.part_id("depth") == "motion" and model.part_id("inpainter").startswith("light ")


def test_the_report_names_films_versions_and_decisions() -> None:
    decision = decision_on("inpainter", CHAMPION + scores_of("challenger", BETTER))
    facts = {"clips": eval_clips(), "films": {"f0": "holiday.mp4"}, "gate": GATE, "min_films": 5}
    report = to_markdown([decision], {}, [], versions=(1, 2), **facts)
    assert "Version 2 replaces version 1 as the champion." in report
    assert "holiday.mp4" in report and describe_decision(decision) in report
    assert "Version 1 remains the champion." in to_markdown([], {}, [], versions=(1, 1), **facts)


# The whole gate, with a registry


@dataclass(frozen=True)
class Project:
    """A project with trained and evaluated models, on clips without files."""

    folder: Path
    evaluate: Evaluate

    @property
    def light(self) -> Path:
        return self.folder / "models" / "inpaint" / "light"

    def train(self, model: Light) -> None:
        save_light(model, self.light)
        (self.light / "run").mkdir(exist_ok=True)
        tags = {"licences": "CC0-1.0"}
        record = {"key": "k" * 32, "stage": "train_light", "params": {}, "tags": tags, "finished": True}
        (self.light / "run" / "run.json").write_text(json.dumps(record))

    def register_champion(self, channels: str) -> None:
        """Make a version champion whose light inpainter has these channels in its config."""
        bundle = Bundle("motion", "light", 3.0, 0.5)
        weights = self.folder / "made"
        save_light(Light((4, 6, 8)), weights)
        (weights / "config.json").write_text(f'{{"kind": "{KIND}", "channels": {channels}}}')
        number = register(write_bundle(self.folder / "b", bundle, None, weights), VersionFacts({}, ""))
        registry.promote(number, expected=None, why="test")

    def known_scores(self, method: Method, primary: list[float]) -> list[Score]:
        """Return scores as the stage `evaluate` would have written them."""
        rows = scores_of(method.name, primary)
        return [
            replace(row, key=score_key(clip, method, self.evaluate))
            for row, clip in zip(rows, eval_clips(), strict=True)
        ]

    def write_scores(self, rows: list[Score]) -> None:
        write_table(Dataset(self.folder / "data").path(Score), rows, Score)

    def run_gate(self) -> tuple[GateOutcome, str]:
        folders = [self.folder / name for name in ("data", "models", "reports", "runs")]
        outcome = run_gate(*folders, gate=GATE, evaluate=self.evaluate)
        return outcome, (self.folder / "reports" / "gate.md").read_text()


def eval_clips() -> list[EvalClip]:
    return [eval_clip(f"c{n}", f"f{n}", f"k{n}") for n in range(5)]


@pytest.fixture
def project(tmp_path: Path, with_registry: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("SECONDEYE_WORKERS", "1")
    shot = render_shot(5, 2, 96, 160)
    regions = regions_from_truth(shot.right_disparity, shot.right_occlusion)
    frames = EvalFrames(shot.left, shot.right, shot.disparity, regions)
    monkeypatch.setattr("secondeye.evaluation.score_methods.load_clip", lambda *_: frames)
    ids = range(5)
    tables = {
        Film: [a_film(f"f{n}", name=f"{n}.mp4", split="test") for n in ids],
        Clip: [a_clip(f"c{n}", f"f{n}") for n in ids],
        Correction: [a_shift(f"c{n}") for n in ids],
        ClipDisparity: [ClipDisparity(f"c{n}", "k", 0.0, 1.0) for n in ids],
        AcceptedClip: [AcceptedClip(f"c{n}", f"f{n}", "test") for n in ids],
        EvalClip: eval_clips(),
        Score: [],
    }
    write_rows(tmp_path / "data", tables)
    return Project(tmp_path, EVALUATE)


FIRST = Method("first", "inpainter", inpainter="light", inpaint_weights=SHIPPED / "inpaint")


def test_a_better_model_is_registered_and_becomes_champion(project: Project) -> None:
    project.train(Light((4, 6, 8)))
    light = Method("light", "inpainter", inpainter="light", inpaint_weights=project.light)
    project.write_scores(project.known_scores(FIRST, [0.5] * 5) + project.known_scores(light, BETTER))
    outcome, report = project.run_gate()
    assert (outcome.previous, outcome.champion) == (1, 2) and registry.champion() == 2
    assert "Version 2 replaces version 1 as the champion" in report and "bootstrap" in report
    fetched = fetch_version("models:/secondeye@champion")
    assert (fetched.bundle / "inpaint" / "model.safetensors").is_file()
    assert fetched.tags["inpainter_run"] == "k" * 32 and fetched.tags["inpainter_licences"] == "CC0-1.0"
    (run,) = (Run(path) for path in (project.folder / "runs").iterdir())
    assert run.finished and run.read()["tags"]["verdict"] == "won"
    again, report = project.run_gate()
    assert (again.decisions, again.champion) == ([], 2) and "nothing new to compare" in report


def test_weights_that_were_rolled_back_do_not_become_champion_again(project: Project) -> None:
    project.train(Light((4, 6, 8)))
    light = Method("light", "inpainter", inpainter="light", inpaint_weights=project.light)
    project.write_scores(project.known_scores(FIRST, [0.5] * 5) + project.known_scores(light, BETTER))
    assert project.run_gate()[0].champion == 2
    registry.rollback(expected=2, why="it flickers")
    outcome, report = project.run_gate()
    assert (outcome.champion, outcome.decisions) == (1, []) and registry.champion() == 1
    assert "does not challenge: version 2 was rolled back by" in report and "it flickers" in report

    torch.manual_seed(7)
    project.train(Light((4, 6, 8)))  # other weights
    other = Method("light", "inpainter", inpainter="light", inpaint_weights=project.light)
    project.write_scores(project.known_scores(FIRST, [0.5] * 5) + project.known_scores(other, BETTER))
    outcome, report = project.run_gate()
    assert outcome.champion == registry.champion() == 3 and "does not challenge" not in report
    events = [(event.event, event.version) for event in registry.history()]
    assert events == [("promoted", 1), ("promoted", 2), ("rolled back", 1), ("promoted", 3)]


def test_tags_of_a_version_speak_of_its_own_parts(project: Project) -> None:
    project.train(Light((4, 6, 8)))
    light = Method("light", "inpainter", inpainter="light", inpaint_weights=project.light)
    project.write_scores(project.known_scores(FIRST, [0.5] * 5) + project.known_scores(light, BETTER))
    project.run_gate()
    won = fetch_version("models:/secondeye@champion").tags
    assert won["inpainter_verdict"] == "won" and won["inpainter_gain"].endswith("haarpsi on 5 films")
    assert won["inpainter_against"] == load_candidate(SHIPPED).part_id("inpainter")
    shipped = fetch_version("models:/secondeye/1").tags
    assert shipped["inpainter_licences"] == "Apache-2.0" and "inpainter_verdict" not in shipped
    assert shipped["inpainter_haarpsi"] == "0.5"

    torch.manual_seed(8)
    project.train(Light((4, 6, 8)))
    lossy = Method("light", "inpainter", inpainter="light", inpaint_weights=project.light)
    champion = replace(light, inpaint_weights=fetch_version("models:/secondeye@champion").bundle / "inpaint")
    rows = project.known_scores(champion, BETTER)
    rows += project.known_scores(lossy, [value + 0.05 for value in BETTER])
    rows = [replace(row, psnr_border_db=20.0) for row in rows]
    rows[8] = replace(rows[8], psnr_border_db=18.5)  # the challenger's on film f3
    project.write_scores(rows)
    outcome, report = project.run_gate()
    assert outcome.champion == 2 and "does not replace" in report
    assert "the border of film 3.mp4 loses 1.50 dB" in report
    assert fetch_version("models:/secondeye@champion").tags == won


def test_the_command_refuses_garbage_beside_a_block_that_both_get_wrong(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wrong block has the larger error; without the garbage, the challenger wins."""
    clips = {clip.id: EvalFrames(*score_methods.load_clip()) for clip in eval_clips()}
    monkeypatch.setattr(score_methods, "load_clip", lambda dataset, clip, max_frames: clips[clip.id])

    def blacken(clip: EvalFrames, right: Tensor, block: int) -> Tensor:
        """Make the holes in a block of the first row black."""
        columns = torch.arange(right.shape[-1]) // BLOCK_PX == block
        rows = torch.arange(right.shape[-2])[:, None] < BLOCK_PX
        return torch.where((clip.regions == DISOCCLUDED) & rows & columns, 0.0, right)

    def only_better(method: Method, clip: EvalFrames) -> Tensor:
        right = blacken(clip, make_right(FILL, clip).right, 0)
        return right.lerp(clip.right, 0.6) if method.name == "challenger" else right

    def garbage(method: Method, clip: EvalFrames) -> Tensor:
        right = only_better(method, clip)
        return blacken(clip, right, 1) if clip is clips["c3"] and method.name == "challenger" else right

    shutil.copy(PROJECT / "params.yaml", project.folder)
    reason = (
        r"error in a block of film 3\.mp4 is \d\.\d+ of the contrast worse \(clip c3, frame \d, x 64, y 0\)"
    )
    for number, made, said in ((1, garbage, reason), (2, only_better, "significant")):
        output = partial(lambda make, *given: MethodOutput(make(*given), None), made)
        monkeypatch.setattr(score_methods, "make_right", output)
        torch.manual_seed(number)
        project.train(Light((4, 6, 8)))
        done = CliRunner().invoke(app, ["model", "gate"])
        assert done.exit_code == 0 and f"champion: version {number}" in done.output, done.output
        assert re.search(said, done.output), done.output


def test_a_challenger_that_produces_nan_loses(project: Project) -> None:
    model = Light((4, 6, 8))
    with torch.no_grad():
        for weights in model.parameters():
            weights.fill_(math.nan)
    project.train(model)
    outcome, report = project.run_gate()
    assert outcome.champion == registry.champion() == 1
    assert [(decision.won, decision.reason) for decision in outcome.decisions] == [(False, NON_FINITE)]
    shipped = load_candidate(SHIPPED).part_id("inpainter")
    assert f"does not replace `{shipped}`: {NON_FINITE}." in report and "nan" not in report
    (run,) = (Run(path) for path in (project.folder / "runs").iterdir())
    assert run.read()["tags"]["verdict"] == "lost"


def test_a_champion_that_produces_nan_loses_to_what_beats_the_fallback(
    monkeypatch: pytest.MonkeyPatch, project: Project
) -> None:
    setup = EvalSetup(Dataset(project.folder / "data"), eval_clips(), [], project.evaluate)
    project.train(Light((4, 6, 8)))
    champion, challenger = (
        NO_WEIGHTS.with_part("inpainter", name, project.light) for name in ("diffusion", "light")
    )

    def score_both(
        run: Run, part: str, champion: Candidate, challenger: Candidate, setup: EvalSetup
    ) -> tuple[list[Score], BlocksOf]:
        if champion.bundle.inpainter == "diffusion":
            raise NonFiniteMethods(["champion"])
        return scores_of("champion", [0.5] * 5) + scores_of("challenger", BETTER), lambda row: {}

    monkeypatch.setattr("secondeye.gate.challenge.score_both", score_both)
    run = open_challenge(project.folder / "runs", "inpainter", champion, challenger, setup, GATE)
    decision = challenge(run, "inpainter", champion, challenger, setup, GATE, "")
    assert decision.won and decision.champion == "fill"
    assert decision.fallback.startswith("diffusion ") and NON_FINITE in decision.fallback


def test_a_champion_that_cannot_be_loaded_stays_until_something_beats_the_fallback(project: Project) -> None:
    project.register_champion("[1, 2]")
    outcome, report = project.run_gate()
    assert outcome.champion == registry.champion() == 1
    assert "inpainter: this version of the code cannot load the champion's own part" in report
    project.train(Light((4, 6, 8)))
    light = Method("light", "inpainter", inpainter="light", inpaint_weights=project.light)
    project.write_scores(project.known_scores(FILL, [0.5] * 5) + project.known_scores(light, BETTER))
    outcome, report = project.run_gate()
    assert (outcome.previous, outcome.champion) == (1, 2)
    (decision,) = outcome.decisions
    assert decision.champion == "fill" and "light inpainter of this version" in decision.fallback
    assert "`fill` took the place of the champion's own part (" in report
