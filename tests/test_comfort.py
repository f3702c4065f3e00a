"""Strength and convergence by themselves: the limits of the budget hold, and each value is the largest."""

from collections.abc import Callable
from dataclasses import astuple, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from secondeye.conversion.bundle import settings_from_bundle
from secondeye.conversion.comfort import (
    BEHIND_PERCENT,
    CONVERGENCE,
    FRONT_PERCENT,
    JUMP_PERCENT,
    STRENGTH_PERCENT,
    SUBJECT_PERCENT,
    DepthProfile,
    ShotStereo,
    StereoRequest,
    choose_stereo,
    measure_profile,
)
from secondeye.conversion.convert import convert
from secondeye.conversion.picture import Picture
from secondeye.conversion.shot_depth import ShotDepth
from secondeye.evaluation.film_score import score_films
from secondeye.film.letterbox import Letterbox
from secondeye.film.still_parts import NOTHING_STILL, StillParts

pytestmark = pytest.mark.usefixtures("one_thread")
AUTOMATIC = StereoRequest(None, None, is_exact=False)
EVEN = DepthProfile(0.0, 1.0, 0.5, 0.5, 0.5)
ROUNDING = 0.001  # % of the width


def profiles() -> list[DepthProfile]:
    draw = np.random.default_rng(0)
    return [DepthProfile(0.0, 1.0, *draw.uniform(0, 1, 3)) for _ in range(200)]


def disparities(profile: DepthProfile, stereo: ShotStereo) -> DepthProfile:
    """Return the disparity of every depth of a profile, in % of the width."""
    depths = (profile.far, profile.near, profile.subject, profile.first, profile.last)
    return DepthProfile(*(stereo.strength_percent * (depth - stereo.convergence) for depth in depths))


def is_comfortable(profile: DepthProfile, stereo: ShotStereo) -> bool:
    found = disparities(profile, stereo)
    ends = max(abs(found.first), abs(found.last))
    return (
        found.near <= FRONT_PERCENT + ROUNDING
        and found.far >= -BEHIND_PERCENT - ROUNDING
        and abs(found.subject) <= SUBJECT_PERCENT + ROUNDING
        and ends <= JUMP_PERCENT / 2 + ROUNDING
    )


@pytest.mark.parametrize("confidence", [0.0, 0.5, 0.7, 1.0])
def test_every_shot_keeps_all_limits_with_the_largest_strength(confidence: float) -> None:
    most = STRENGTH_PERCENT * max(0.35, confidence)
    for profile in profiles():
        chosen = choose_stereo(profile, confidence, AUTOMATIC)
        assert is_comfortable(profile, chosen), profile
        assert 0 < chosen.strength_percent <= most and chosen.strength_percent % 0.25 == 0
        stronger = chosen.strength_percent + 0.25
        choices = (ShotStereo(stronger, convergence) for convergence in np.linspace(0, 1, 101))
        assert stronger > most or not any(is_comfortable(profile, choice) for choice in choices), profile


def test_the_jump_at_any_cut_is_bounded() -> None:
    chosen = [disparities(profile, choose_stereo(profile, 1.0, AUTOMATIC)) for profile in profiles()]
    jumps = [abs(after.first - before.last) for before, after in pairwise(chosen)]
    assert 0.5 < max(jumps) <= JUMP_PERCENT + 2 * ROUNDING


def test_convergence_stays_unless_a_limit_moves_it() -> None:
    assert choose_stereo(EVEN, 0.6, AUTOMATIC) == ShotStereo(1.75, CONVERGENCE)
    for profile in profiles():
        strength, convergence, _ = choose_stereo(profile, 0.6, AUTOMATIC)
        nearer = convergence + 0.01 * np.sign(CONVERGENCE - convergence)
        assert convergence == CONVERGENCE or not is_comfortable(profile, ShotStereo(strength, nearer))


def test_less_confidence_never_means_more_strength() -> None:
    for profile in profiles():
        strengths = [choose_stereo(profile, c, AUTOMATIC).strength_percent for c in np.linspace(0, 1, 11)]
        assert strengths == sorted(strengths)


def test_requested_values_win() -> None:
    profile = DepthProfile(0.0, 1.0, 0.1, 0.1, 0.1)
    given = StereoRequest(4.0, 0.9, is_exact=False)
    assert choose_stereo(profile, 0.5, given) == ShotStereo(2.0, 0.9)
    assert choose_stereo(profile, 0.0, given).strength_percent == pytest.approx(4 * 0.35)
    assert choose_stereo(profile, 0.5, given._replace(is_exact=True)) == ShotStereo(4.0, 0.9)
    assert choose_stereo(profile, 1.0, StereoRequest(0.0, None, False)) == ShotStereo(0.0, CONVERGENCE)
    # With one of them, the other one keeps the limits if it can.
    chosen = choose_stereo(EVEN, 1.0, StereoRequest(None, 0.0, False))
    assert chosen == ShotStereo(1.0, 0.0)
    chosen = choose_stereo(EVEN, 1.0, StereoRequest(3.0, None, False))
    assert chosen.convergence == pytest.approx(2 / 3, abs=1e-3) and is_comfortable(EVEN, chosen)
    excess = disparities(EVEN, choose_stereo(EVEN, 1.0, StereoRequest(9.0, None, False)))
    assert excess.near - FRONT_PERCENT == pytest.approx(-BEHIND_PERCENT - excess.far, abs=ROUNDING)


def test_a_requested_strength_keeps_the_budget_before_our_own_limits() -> None:
    uneven = DepthProfile(0.0, 1.0, 0.5, 0.2, 0.5)
    chosen = choose_stereo(uneven, 1.0, StereoRequest(3.0, None, False))
    assert chosen.convergence == pytest.approx(2 / 3, abs=1e-3)
    for profile in profiles():
        kept = disparities(profile, choose_stereo(profile, 1.0, StereoRequest(2.5, None, False)))
        assert kept.near <= FRONT_PERCENT + ROUNDING and kept.far >= -BEHIND_PERCENT - ROUNDING, profile


def test_profile_of_a_shot(tmp_path: Path) -> None:
    """The middle is at raw depth 6 of 2 to 10, what is around it moves from 2 to 10."""
    raw = np.full((100, 30, 40), 2, np.float32)
    raw[50:] = 10
    raw[:, 7:23, 8:32] = 6
    raw.tofile(tmp_path / "depth.f32")
    depth = ShotDepth(tmp_path / "depth.f32", 100, 30, 40, 2.0, 10.0, 1.0)
    assert astuple(measure_profile(depth)) == pytest.approx((0, 1, 0.5, 0, 1), abs=1e-3)
    assert astuple(measure_profile(replace(depth, frames=1))) == pytest.approx((0, 0.5, 0.5, 0, 0), abs=1e-3)


def test_flat_depth_lies_on_the_screen(tmp_path: Path) -> None:
    np.full((3, 4, 5), 7, np.float32).tofile(tmp_path / "depth.f32")
    profile = measure_profile(ShotDepth(tmp_path / "depth.f32", 3, 4, 5, 7.0, 7.0, 1.0))
    assert disparities(profile, choose_stereo(profile, 1.0, AUTOMATIC)).near == pytest.approx(0, abs=0.002)


@pytest.mark.parametrize("scale", [1, 4])
def test_nothing_in_front_of_the_screen_is_cut_off_by_a_border(scale: int) -> None:
    picture = Picture(NOTHING_STILL, 8 * scale, 201 * scale)
    disparity = torch.tensor([-9.0, 0.0, 12.0]).mul(scale).view(3, 1, 1, 1).expand(3, 1, 8, 201)
    held = picture.hold_back(disparity, at_borders=True)
    assert torch.equal(held[:2], disparity[:2]), "behind and on the screen nothing changes"
    column = torch.arange(201.0)
    inward = torch.minimum(column, 200 - column) - 2.01
    expected = (0.15 * scale * inward).clamp(0, 12.0 * scale)
    torch.testing.assert_close(held[2, 0], expected.expand(8, 201))
    boxed = Picture(StillParts(Letterbox(0, 0, 50, 50), b""), 8, 301)
    assert torch.equal(
        boxed.hold_back(disparity / scale, at_borders=True)[2],
        picture.hold_back(disparity, at_borders=True)[2] / scale,
    )


def test_default_conversion_is_within_the_budget(make_film: Callable[..., Path]) -> None:
    film, said = make_film(shots=(10, 9), height=96, width=128, sound=False), list[str]()
    settings = settings_from_bundle(None, depth="motion", inpainter="fill", preset="ultrafast")
    assert (settings.strength_percent, settings.convergence) == (None, None)
    made = convert(film, None, settings, log=said.append)
    assert any("automatic, at most 1 % of the width in front of the screen and 2 % behind" in s for s in said)
    result = score_films(made.output, made.output, None, log=said.append)
    assert -BEHIND_PERCENT <= result.scores["far_percent"] < result.scores["near_percent"] <= FRONT_PERCENT
    assert result.disparity_jump_percent <= JUMP_PERCENT
