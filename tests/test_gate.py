"""The gate lets pass what wins on the same films, and nothing else."""

import math

import numpy as np
import pytest

from secondeye.conversion.bundle import PLAIN
from secondeye.gate import Model, Outcome, challengers, decide, describe, least_gain, sentence, with_part
from secondeye.params import Gate
from secondeye.rows import Evaluated, Held

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


def test_challengers_are_what_was_trained_and_evaluated(tmp_path) -> None:
    for name in ("depth", "inpaint/light", "inpaint/diffusion"):
        (tmp_path / name / "run").mkdir(parents=True)
    rows = rows_of("light", [22.0] * 5) + rows_of("diffusion", [15.0] * 5) + rows_of("fill", [30.0] * 5)
    found = challengers(tmp_path, rows)
    assert [(part, name) for part, name, _ in found] == [("depth", "student"), ("inpainter", "light")]
    assert challengers(tmp_path / "nothing", rows) == []


def test_replacing_a_part_keeps_the_other(tmp_path) -> None:
    (tmp_path / "model.safetensors").write_text("w")
    model = with_part(NOTHING, "inpainter", "light", tmp_path)
    assert (model.bundle.depth, model.bundle.inpainter) == ("motion", "light")
    assert model.part("depth") == "motion" and model.part("inpainter").startswith("light ")


def test_the_report_says_what_was_compared() -> None:
    rows = rows_of("champion", [20.0] * 5) + rows_of("challenger", [25.0, 25.1, 25.2, 25.3, 25.4])
    verdict = decide("inpainter", NOTHING, NOTHING, rows, GATE)
    held = [Held(f"c{n}", "k", f"f{n}", "truth", 0, 0, 0) for n in range(5)]
    report = describe(Outcome(1, 2, [verdict]), held, {"f0": "holiday.mp4"}, GATE)
    assert "Version 2 is champion; version 1 was." in report
    assert "holiday.mp4" in report and sentence(verdict) in report
    assert "as before" in describe(Outcome(1, 1, []), held, {}, GATE)
