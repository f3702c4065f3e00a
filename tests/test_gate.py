"""The gate lets pass what wins on the same films, and nothing else."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from secondeye.conversion.bundle import PLAIN, Bundle, write_bundle
from secondeye.evaluation.clip import Folders, HeldClip
from secondeye.evaluation.judge import Broken, score_key
from secondeye.evaluation.methods import Method
from secondeye.evaluation.regions import regions_from_truth
from secondeye.gate import (
    BROKEN,
    Exam,
    Model,
    Outcome,
    challenge,
    challengers,
    decide,
    describe,
    least_gain,
    open_challenge,
    pass_gate,
    sentence,
    share_doubt,
    with_part,
)
from secondeye.inpaint.light import Light, save_light
from secondeye.params import Evaluate, Gate, load_params
from secondeye.registry import models as registry
from secondeye.rows import Evaluated, Film, Held
from secondeye.runs import Run
from secondeye.tables import write_table
from secondeye.world import render_shot

PROJECT = Path(__file__).parent.parent
GATE = Gate(min_films=5, confidence=0.9)
NOTHING = Model(PLAIN, None, None)


def rows_of(method: str, holes: list[float], whole: float = 30.0, error: float = 0.5) -> list[Evaluated]:
    """One clip a film."""
    return [
        Evaluated(
            id=f"{method}{film}",
            key="k",
            clip=f"c{film}",
            film=f"f{film}",
            method=method,
            kind="inpainter",
            psnr_db=whole,
            psnr_visible_db=whole,
            psnr_disoccluded_db=value,
            psnr_border_db=whole,
            ssim=0.9,
            ssim_visible=0.9,
            ssim_disoccluded=0.9,
            ssim_border=0.9,
            rank_correlation=0.5,
            disparity_error_percent=error,
        )
        for film, value in enumerate(holes)
    ]


def test_a_challenger_that_is_better_on_every_film_wins() -> None:
    champion = rows_of("champion", [20, 22, 24, 21, 23])
    challenger = rows_of("challenger", [20.5, 22.4, 24.6, 21.5, 23.5])
    verdict = decide("inpainter", NOTHING, NOTHING, champion + challenger, GATE)
    assert verdict.won and verdict.films == 5
    assert verdict.gain == pytest.approx(0.5) and 0.4 < verdict.least_gain < 0.5


def test_one_lucky_film_is_chance() -> None:
    champion = rows_of("champion", [20, 22, 24, 21, 23])
    challenger = rows_of("challenger", [19.9, 21.9, 23.9, 20.9, 29.0])
    verdict = decide("inpainter", NOTHING, NOTHING, champion + challenger, GATE)
    assert verdict.gain > 1 and not verdict.won and "not above zero" in verdict.why


def test_four_films_are_too_few() -> None:
    champion, challenger = rows_of("champion", [20.0] * 4), rows_of("challenger", [25.0, 25.1, 25.2, 25.3])
    verdict = decide("inpainter", NOTHING, NOTHING, champion + challenger, GATE)
    assert not verdict.won and "4 held-out films" in verdict.why


def test_films_that_only_one_was_scored_on_do_not_count() -> None:
    champion = rows_of("champion", [20, 20, 20, 20, float("nan")])
    challenger = rows_of("challenger", [25.0, 25.1, 25.2, 25.3, 90.0])
    assert decide("inpainter", NOTHING, NOTHING, champion + challenger, GATE).films == 4


def test_holes_may_not_be_bought_with_the_rest_of_the_picture() -> None:
    champion = rows_of("champion", [20.0] * 5)
    challenger = rows_of("challenger", [25.0, 25.1, 25.2, 25.3, 25.4], whole=29.0)
    verdict = decide("inpainter", NOTHING, NOTHING, champion + challenger, GATE)
    assert not verdict.won and "loses 1.00 dB" in verdict.why


def test_depth_is_decided_by_its_error_and_less_is_better() -> None:
    champion = rows_of("champion", [20.0] * 5, error=0.5)
    better, worse = (rows_of("challenger", [20.0] * 5, error=error) for error in (0.4, 0.6))
    assert decide("depth", NOTHING, NOTHING, champion + better, GATE).won
    verdict = decide("depth", NOTHING, NOTHING, champion + worse, GATE)
    assert not verdict.won and verdict.gain == pytest.approx(-0.1)


def test_a_tie_keeps_the_champion() -> None:
    both = rows_of("champion", [20.0] * 5) + rows_of("challenger", [20.0] * 5)
    assert not decide("inpainter", NOTHING, NOTHING, both, GATE).won


def test_the_least_gain_is_students() -> None:
    gains = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    # mean 3, standard error sqrt(2.5 / 5), t(0.9, 4) = 1.533 (tables)
    assert least_gain(gains, 0.9) == pytest.approx(3 - 1.533206 * math.sqrt(0.5), abs=1e-5)
    assert least_gain(gains[:1], 0.9) == -math.inf


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
    assert share_doubt(GATE, 1) == GATE
    assert share_doubt(GATE, 2).confidence == pytest.approx(0.95)
    champion = rows_of("champion", [20.0] * 5)
    challenger = rows_of("challenger", [20.0, 20.1, 20.2, 20.5, 20.4])
    least = least_gain(np.array([0.0, 0.1, 0.2, 0.5, 0.4]), 0.9)
    assert 0 < least < 0.15
    narrow = replace(GATE, confidence=0.9)
    assert decide("inpainter", NOTHING, NOTHING, champion + challenger, narrow).won
    assert not decide("inpainter", NOTHING, NOTHING, champion + challenger, share_doubt(narrow, 8)).won


def test_replacing_a_part_keeps_the_other(tmp_path) -> None:
    (tmp_path / "model.safetensors").write_text("w")
    model = with_part(NOTHING, "inpainter", "light", tmp_path)
    assert (model.bundle.depth, model.bundle.inpainter) == ("motion", "light")
    assert model.part("depth") == "motion" and model.part("inpainter").startswith("light ")


def test_the_report_says_what_was_compared() -> None:
    rows = rows_of("champion", [20.0] * 5) + rows_of("challenger", [25.0, 25.1, 25.2, 25.3, 25.4])
    verdict = decide("inpainter", NOTHING, NOTHING, rows, GATE)
    held = [Held(f"c{n}", "k", f"f{n}", "truth", 0, 0, 0) for n in range(5)]
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
        (weights / "config.json").write_text(f'{{"kind": "light", "channels": {channels}}}')
        registry.set_champion(
            registry.register(write_bundle(self.folder / "b", bundle, None, weights), {}, "")
        )

    def know(self, method: Method, holes: list[float]) -> list[Evaluated]:
        """What the stage `evaluate` has found."""
        rows = rows_of(method.name, holes)
        held = held_clips()
        return [
            replace(row, key=score_key(clip, method, self.evaluate.max_frames))
            for row, clip in zip(rows, held, strict=True)
        ]

    def write_scores(self, rows: list[Evaluated]) -> None:
        write_table(self.folder / "data" / "evaluate" / "scores" / "scores.parquet", rows, Evaluated)

    def pass_gate(self) -> tuple[Outcome, str]:
        folders = [self.folder / name for name in ("data", "models", "reports", "runs")]
        outcome = pass_gate(*folders, GATE, self.evaluate)
        return outcome, (self.folder / "reports" / "gate.md").read_text()


def held_clips() -> list[Held]:
    return [Held(f"c{n}", f"k{n}", f"f{n}", "truth", 0, 0, 0) for n in range(5)]


@pytest.fixture
def place(tmp_path: Path, with_registry: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    evaluate = load_params(PROJECT / "params.yaml").evaluate
    monkeypatch.setenv("SECONDEYE_WORKERS", "1")
    shot = render_shot(5, 2, 96, 160)
    regions = regions_from_truth(shot.right_disparity, shot.right_occlusion)
    clip = HeldClip(shot.left, shot.right, shot.disparity, regions)
    monkeypatch.setattr("secondeye.evaluation.judge.load_clip", lambda *_: clip)
    for name in ("split", "evaluate/scores", "evaluate/regions"):
        (tmp_path / "data" / name).mkdir(parents=True)
    films = [Film(f"f{n}", f"{n}.mp4", "sbs", "test", "CC0-1.0", 24.0, 9, 1, 1, "") for n in range(5)]
    write_table(tmp_path / "data" / "split" / "films.parquet", films, Film)
    write_table(tmp_path / "data" / "evaluate" / "regions" / "manifest.parquet", held_clips(), Held)
    return Place(tmp_path, evaluate)


FILL = Method("fill", "inpainter", inpainter="fill")
BETTER = [25.0, 25.1, 25.2, 25.3, 25.4]


def test_what_evaluation_found_better_is_registered_and_champion(place: Place) -> None:
    place.train(Light((4, 6, 8)))
    light = Method("light", "inpainter", inpainter="light", inpaint_weights=place.light)
    place.write_scores(place.know(FILL, [20.0] * 5) + place.know(light, BETTER))
    outcome, report = place.pass_gate()
    assert (outcome.before, outcome.champion) == (1, 2) and registry.champion() == 2
    assert "Version 2 is champion; version 1 was" in report and "Student's t" in report
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
    assert f"does not replace `fill`: {BROKEN}." in report and "nan" not in report.replace(BROKEN, "")
    (run,) = (Run(path) for path in (place.folder / "runs").iterdir())
    assert run.read()["tags"]["verdict"] == "lost"


def test_a_champion_of_nan_loses_to_who_beats_what_stands_in(
    monkeypatch: pytest.MonkeyPatch, place: Place
) -> None:
    held = held_clips()
    exam = Exam(Folders(*[place.folder] * 4), held, [], place.evaluate)
    place.train(Light((4, 6, 8)))
    champion, challenger = (
        with_part(NOTHING, "inpainter", name, place.light) for name in ("diffusion", "light")
    )

    def judge_both(run: Run, part: str, champion: Model, challenger: Model, exam: Exam) -> list[Evaluated]:
        if champion.bundle.inpainter == "diffusion":
            raise Broken(["champion"])
        return rows_of("champion", [20.0] * 5) + rows_of("challenger", BETTER)

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
    place.write_scores(place.know(FILL, [20.0] * 5) + place.know(light, BETTER))
    outcome, report = place.pass_gate()
    assert (outcome.before, outcome.champion) == (1, 2)
    (verdict,) = outcome.verdicts
    assert verdict.champion == "fill" and "no light inpainter of this version" in verdict.stands_in
    assert "`fill` stood in for the champion's own (" in report
