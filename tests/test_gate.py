"""The gate lets pass what wins on the same films, and nothing else."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from conftest import a_film, evaluated, held_clip

from secondeye.conversion.bundle import SHIPPED, WEIGHT_FREE, Bundle, write_bundle
from secondeye.dataset.schema import EvalClip, Film, Score
from secondeye.dataset.tables import write_table
from secondeye.evaluation.eval_clips import EvalFrames, Folders
from secondeye.evaluation.methods import Method
from secondeye.evaluation.regions import regions_from_truth
from secondeye.evaluation.score_methods import Broken, score_key
from secondeye.gate import (
    BROKEN,
    EvalSetup,
    Model,
    Outcome,
    PartDecision,
    bonferroni,
    challenge,
    challengers,
    decide,
    describe,
    model_of,
    open_challenge,
    pass_gate,
    sentence,
    with_part,
)
from secondeye.inpaint.light import KIND, save_light
from secondeye.inpaint.light_network import Light
from secondeye.params import Evaluate, Gate, load_params
from secondeye.registry import models as registry
from secondeye.run_folder import Run
from secondeye.synthetic import render_shot

PROJECT = Path(__file__).parent.parent
GATE = Gate(min_films=5, confidence=0.9)
EVALUATE = load_params(PROJECT / "params.yaml").evaluate
NOTHING = Model(WEIGHT_FREE, None, None)


def rows_of(
    method: str, primary: list[float], whole: float = 30.0, error: float = 0.5, **scores: float
) -> list[Score]:
    """One clip a film."""
    steady = {"psnr_disoccluded_db": 20.0, "gradient_ratio": 1.0, "temporal_error": 2.0} | scores
    return [
        evaluated(
            f"c{film}",
            f"f{film}",
            method,
            haarpsi=value,
            psnr_db=whole,
            disparity_error_percent=error,
            **steady,
        )
        for film, value in enumerate(primary)
    ]


def decided(part: str, rows: list[Score], gate: Gate = GATE) -> PartDecision:
    return decide(part, NOTHING, NOTHING, rows, EVALUATE, gate)


CHAMPION = rows_of("champion", [0.5, 0.52, 0.54, 0.51, 0.53])
BETTER = [0.55, 0.56, 0.60, 0.56, 0.58]


def test_a_challenger_that_is_better_on_every_film_wins() -> None:
    verdict = decided("inpainter", CHAMPION + rows_of("challenger", BETTER))
    assert verdict.won and verdict.films == 5 and verdict.score == "haarpsi"
    assert verdict.gain == pytest.approx(0.05) and 0.04 < verdict.least_gain < 0.05


def test_one_lucky_film_is_chance() -> None:
    verdict = decided("inpainter", CHAMPION + rows_of("challenger", [0.49, 0.51, 0.53, 0.5, 0.9]))
    assert verdict.gain > 0.05 and not verdict.won and "not above zero" in verdict.why


def test_four_films_are_insufficient_evidence() -> None:
    verdict = decided("inpainter", CHAMPION[:4] + rows_of("challenger", BETTER[:4]))
    assert not verdict.won and "insufficient evidence" in verdict.why and "4 held-out films" in verdict.why


def test_films_that_only_one_was_scored_on_do_not_count() -> None:
    challenger = rows_of("challenger", [*BETTER[:4], math.nan])
    assert decided("inpainter", CHAMPION + challenger).films == 4


@pytest.mark.parametrize(
    ("scores", "why"),
    [
        ({"whole": 29.0}, "the whole picture loses 1.00 dB"),
        ({"psnr_disoccluded_db": 19.0}, "holes lose 1.00 dB"),
        ({"gradient_ratio": 0.55}, "gradient ratio in holes, 0.55"),
        ({"gradient_ratio": 1.45}, "gradient ratio in holes, 1.45"),
        ({"temporal_error": 2.3}, "2.30 levels against 2.00"),
    ],
)
def test_a_painter_may_not_fall_below_the_floors(scores: dict[str, float], why: str) -> None:
    verdict = decided("inpainter", CHAMPION + rows_of("challenger", BETTER, **scores))
    assert not verdict.won and why in verdict.why


def test_who_is_blurred_may_be_replaced_by_who_is_less_so() -> None:
    champion = rows_of("champion", [0.5, 0.52, 0.54, 0.51, 0.53], gradient_ratio=0.4)
    assert decided("inpainter", champion + rows_of("challenger", BETTER, gradient_ratio=0.4)).won
    assert decided("inpainter", champion + rows_of("challenger", BETTER, gradient_ratio=2.0)).won
    verdict = decided("inpainter", champion + rows_of("challenger", BETTER, gradient_ratio=0.3))
    assert not verdict.won and "0.30, is outside" in verdict.why


def test_depth_is_decided_by_its_error_and_less_is_better() -> None:
    champion = rows_of("champion", [0.5] * 5, error=0.5)
    better, worse = (rows_of("challenger", [0.5] * 5, error=error) for error in (0.4, 0.6))
    assert decided("depth", champion + better).won
    verdict = decided("depth", champion + worse)
    assert not verdict.won and verdict.gain == pytest.approx(-0.1)


def test_a_tie_keeps_the_champion() -> None:
    again = [replace(row, method="challenger") for row in CHAMPION]
    verdict = decided("inpainter", CHAMPION + again)
    assert not verdict.won and verdict.films == 5 and verdict.gain == 0


def test_challengers_are_what_was_trained_and_is_not_champion(tmp_path: Path) -> None:
    for name in ("depth", "inpaint/light", "inpaint/diffusion"):
        (tmp_path / name / "run").mkdir(parents=True)
        (tmp_path / name / "model.safetensors").write_text(name)
    found = challengers(tmp_path, NOTHING)
    assert [name for _, name, _ in found] == ["student", "light", "diffusion"]
    champion = with_part(NOTHING, "inpainter", "light", tmp_path / "inpaint" / "light")
    assert [name for _, name, _ in challengers(tmp_path, champion)] == ["student", "diffusion"]
    assert challengers(tmp_path / "nothing", NOTHING) == []


def test_the_more_try_the_surer_each_must_be() -> None:
    assert bonferroni(GATE, 1) == GATE
    assert bonferroni(GATE, 2).confidence == pytest.approx(0.95)
    champion = rows_of("champion", [0.5] * 5)
    rows = champion + rows_of("challenger", [0.47, 0.51, 0.52, 0.55, 0.54])
    assert decided("inpainter", rows, replace(GATE, confidence=0.9)).won
    assert not decided("inpainter", rows, bonferroni(GATE, 8)).won


def test_replacing_a_part_keeps_the_other(tmp_path) -> None:
    (tmp_path / "model.safetensors").write_text("w")
    model = with_part(NOTHING, "inpainter", "light", tmp_path)
    assert (model.bundle.depth, model.bundle.inpainter) == ("motion", "light")
    assert model.part("depth") == "motion" and model.part("inpainter").startswith("light ")


def test_the_report_says_what_was_compared() -> None:
    verdict = decided("inpainter", CHAMPION + rows_of("challenger", BETTER))
    held = held_clips()
    report = describe(Outcome(1, 2, [verdict], {}), held, {"f0": "holiday.mp4"}, GATE)
    assert "Version 2 is champion; version 1 was." in report
    assert "holiday.mp4" in report and sentence(verdict) in report
    assert "as before" in describe(Outcome(1, 1, [], {}), held, {}, GATE)


# The whole gate, with a registry


@dataclass(frozen=True)
class Place:
    """A project in which everything was trained and evaluated, on clips that need no files."""

    folder: Path
    evaluate: Evaluate

    @property
    def light(self) -> Path:
        return self.folder / "models" / "inpaint" / "light"

    def train(self, model: Light) -> None:
        save_light(model, self.light)
        (self.light / "run").mkdir(exist_ok=True)
        record = {"key": "k" * 32, "tags": {"licences": "CC0-1.0"}, "finished": True}
        (self.light / "run" / "run.json").write_text(json.dumps(record))

    def crown(self, channels: str) -> None:
        """Make a version champion whose light inpainter has these channels in its config."""
        bundle = Bundle("motion", "light", 3.0, 0.5)
        weights = self.folder / "made"
        save_light(Light((4, 6, 8)), weights)
        (weights / "config.json").write_text(f'{{"kind": "{KIND}", "channels": {channels}}}')
        registry.set_champion(
            registry.register(write_bundle(self.folder / "b", bundle, None, weights), {}, "")
        )

    def know(self, method: Method, primary: list[float]) -> list[Score]:
        """What the stage `evaluate` has found."""
        rows = rows_of(method.name, primary)
        held = held_clips()
        return [
            replace(row, key=score_key(clip, method, self.evaluate))
            for row, clip in zip(rows, held, strict=True)
        ]

    def write_scores(self, rows: list[Score]) -> None:
        write_table(self.folder / "data" / "evaluate" / "scores" / "scores.parquet", rows, Score)

    def pass_gate(self) -> tuple[Outcome, str]:
        folders = [self.folder / name for name in ("data", "models", "reports", "runs")]
        outcome = pass_gate(*folders, GATE, self.evaluate)
        return outcome, (self.folder / "reports" / "gate.md").read_text()


def held_clips() -> list[EvalClip]:
    return [held_clip(f"c{n}", f"f{n}", f"k{n}") for n in range(5)]


@pytest.fixture
def place(tmp_path: Path, with_registry: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("SECONDEYE_WORKERS", "1")
    shot = render_shot(5, 2, 96, 160)
    regions = regions_from_truth(shot.right_disparity, shot.right_occlusion)
    clip = EvalFrames(shot.left, shot.right, shot.disparity, regions)
    monkeypatch.setattr("secondeye.evaluation.score_methods.load_clip", lambda *_: clip)
    for name in ("split", "evaluate/scores", "evaluate/regions"):
        (tmp_path / "data" / name).mkdir(parents=True)
    films = [a_film(f"f{n}", name=f"{n}.mp4", split="test") for n in range(5)]
    write_table(tmp_path / "data" / "split" / "films.parquet", films, Film)
    write_table(tmp_path / "data" / "evaluate" / "regions" / "manifest.parquet", held_clips(), EvalClip)
    return Place(tmp_path, EVALUATE)


FILL = Method("fill", "inpainter", inpainter="fill")
FIRST = Method("first", "inpainter", inpainter="light", inpaint_weights=SHIPPED / "inpaint")


def test_what_evaluation_found_better_is_registered_and_champion(place: Place) -> None:
    place.train(Light((4, 6, 8)))
    light = Method("light", "inpainter", inpainter="light", inpaint_weights=place.light)
    place.write_scores(place.know(FIRST, [0.5] * 5) + place.know(light, BETTER))
    outcome, report = place.pass_gate()
    assert (outcome.before, outcome.champion) == (1, 2) and registry.champion() == 2
    assert "Version 2 is champion; version 1 was" in report and "bootstrap" in report
    fetched = registry.resolve("models:/secondeye@champion")
    assert (fetched.bundle / "inpaint" / "model.safetensors").is_file()
    assert fetched.tags["inpainter_run"] == "k" * 32 and fetched.tags["inpainter_licences"] == "CC0-1.0"
    (run,) = (Run(path) for path in (place.folder / "runs").iterdir())
    assert run.finished and run.read()["tags"]["verdict"] == "won"
    again, report = place.pass_gate()
    assert (again.verdicts, again.champion) == ([], 2) and "nothing new to compare" in report


def test_a_challenger_of_nan_is_refused_and_the_champion_stays(place: Place) -> None:
    model = Light((4, 6, 8))
    with torch.no_grad():
        for weights in model.parameters():
            weights.fill_(math.nan)
    place.train(model)
    place.write_scores([])
    outcome, report = place.pass_gate()
    assert outcome.champion == registry.champion() == 1
    assert [(verdict.won, verdict.why) for verdict in outcome.verdicts] == [(False, BROKEN)]
    shipped = model_of(SHIPPED).part("inpainter")
    assert f"does not replace `{shipped}`: {BROKEN}." in report and "nan" not in report.replace(BROKEN, "")
    (run,) = (Run(path) for path in (place.folder / "runs").iterdir())
    assert run.read()["tags"]["verdict"] == "lost"


def test_a_champion_of_nan_loses_to_who_beats_what_stands_in(
    monkeypatch: pytest.MonkeyPatch, place: Place
) -> None:
    held = held_clips()
    exam = EvalSetup(Folders(*[place.folder] * 4), held, [], place.evaluate)
    place.train(Light((4, 6, 8)))
    champion, challenger = (
        with_part(NOTHING, "inpainter", name, place.light) for name in ("diffusion", "light")
    )

    def judge_both(run: Run, part: str, champion: Model, challenger: Model, exam: EvalSetup) -> list[Score]:
        if champion.bundle.inpainter == "diffusion":
            raise Broken(["champion"])
        return rows_of("champion", [0.5] * 5) + rows_of("challenger", BETTER)

    monkeypatch.setattr("secondeye.gate.judge_both", judge_both)
    run = open_challenge(place.folder / "runs", "inpainter", champion, challenger, exam, GATE)
    verdict = challenge(run, "inpainter", champion, challenger, exam, GATE, "")
    assert verdict.won and verdict.champion == "fill"
    assert verdict.stands_in.startswith("diffusion ") and BROKEN in verdict.stands_in


def test_a_champion_that_can_not_be_loaded_stays_until_something_beats_what_stands_in(place: Place) -> None:
    place.crown("[1, 2]")
    place.write_scores([])
    outcome, report = place.pass_gate()
    assert outcome.champion == registry.champion() == 1
    assert "inpainter: the champion's own can not be loaded by this version of the code" in report
    place.train(Light((4, 6, 8)))
    light = Method("light", "inpainter", inpainter="light", inpaint_weights=place.light)
    place.write_scores(place.know(FILL, [0.5] * 5) + place.know(light, BETTER))
    outcome, report = place.pass_gate()
    assert (outcome.before, outcome.champion) == (1, 2)
    (verdict,) = outcome.verdicts
    assert verdict.champion == "fill" and "no light inpainter of this version" in verdict.stands_in
    assert "`fill` stood in for the champion's own (" in report
