"""Alignment forgives strength and convergence, and nothing else."""

import math

import numpy as np
import pytest
import torch
from aligned_sabotage import FORGIVEN, OTHER, SABOTAGES, UNCHANGED, Study, missed, score
from sabotage import copied, inverted_depth, raised, swapped
from torch import Tensor

from secondeye.evaluation.aligned_reference import (
    Alignment,
    fit_alignment,
    prepare_aligned,
    render_reference,
    sample_disparities,
)
from secondeye.evaluation.baselines import shift_left
from secondeye.evaluation.regions import BORDER, UNKNOWN, PairMatch

HEIGHT, WIDTH = 96, 160
# Of degradations inside holes, which are smaller in a weaker conversion: these scores fall by less.
IN_HOLES = {"holes filled with gray", "holes too bright", "fill flickers", "one block of garbage"}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def study() -> Study:
    return Study(1, 2, HEIGHT, WIDTH)


def exact_alignment(scale: float, shift_px: float) -> Alignment:
    return Alignment(scale, shift_px, 0.0, "")


@pytest.mark.parametrize(("scale", "shift_px"), [(0.5, 3.0), (1.0, 0.0), (1.9, -2.0)])
def test_scale_and_shift_are_found_among_wrong_matches(scale: float, shift_px: float) -> None:
    generator = np.random.default_rng(0)
    true = generator.uniform(-10, 20, 2000)
    made = scale * true + shift_px
    made[:500] = generator.uniform(-30, 30, 500)
    found = fit_alignment(np.stack([true, made], 1), 1000)
    assert (found.scale, found.shift_px) == pytest.approx((scale, shift_px), abs=0.02) and not found.obstacle


@pytest.mark.parametrize(
    ("true", "made", "obstacle"),
    [
        (np.arange(200.0), 7 - np.arange(200.0), "inverted"),
        (np.arange(200.0), np.full(200, 7.0), "flat"),
        (np.arange(200.0), 2.5 * np.arange(200.0), "more than 2 times"),
        (np.full(200, 3.0), np.arange(200.0), "the true right eye has no depth"),
        (np.arange(40.0), np.arange(40.0), "hardly any pixel"),
    ],
)
def test_what_cannot_be_aligned_is_named(true: np.ndarray, made: np.ndarray, obstacle: str) -> None:
    assert obstacle in fit_alignment(np.stack([true, made], 1), 1000).obstacle


def test_flat_areas_are_not_sampled() -> None:
    left = torch.full((1, 3, HEIGHT, WIDTH), 0.5)
    left[..., WIDTH // 2 :] = torch.rand(3, HEIGHT, WIDTH // 2, generator=torch.Generator().manual_seed(0))
    samples = sample_disparities(left, left, shift_left(left, 2))
    assert 100 < len(samples) <= 24 * 13, "one for each cell of the textured half, and those at its border"


def test_the_true_right_view_is_its_own_reference(study: Study) -> None:
    clip = study.clip
    found = study.fit(clip.right)
    assert (found.scale, found.shift_px) == (1, 0)
    reference = render_reference(clip.left, clip.right, clip.regions, study.match, found)
    assert torch.equal(reference.frames, clip.right)
    assert torch.equal(reference.regions[reference.known], clip.regions[reference.known])
    assert reference.known.double().mean() > 0.9


def ramp(height: int = 8, width: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    """Return a left view, the right view of a plane at disparity 4, and the regions of the latter."""
    left = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    right = shift_left(left, 4)
    regions = torch.ones(1, 1, height, width, dtype=torch.uint8)
    regions[..., -4:] = BORDER
    return left, right, regions


@pytest.mark.parametrize(
    ("scale", "shift_px"), [(1.0, 3.0), (1.0, -2.0), (0.5, 0.0), (0.25, -3.0), (1.5, 2.0)]
)
def test_a_plane_moves_by_exactly_scale_and_shift(scale: float, shift_px: float) -> None:
    left, right, regions = ramp()
    plane = torch.full((1, 1, 8, 64), 4.0)
    made = render_reference(
        left, right, regions, PairMatch(plane, plane, regions), exact_alignment(scale, shift_px)
    )
    moved = round(4 * scale + shift_px)
    inside = slice(max(0, -moved), 60 - abs(moved))
    torch.testing.assert_close(made.frames[..., inside], shift_left(left, moved)[..., inside])
    assert made.known[..., inside].all() and (made.regions[~made.known] == UNKNOWN).all()


def test_an_honest_conversion_scores_alike_at_any_strength_and_convergence(study: Study) -> None:
    clip = study.clip
    base = score(study.raw, study.conversion(1.0, 0.0)[1])
    for strength, shift_px in ((0.5, 2.0), (1.0, -3.0)):
        made = study.conversion(strength, shift_px)[1]
        exact = exact_alignment(strength, shift_px)
        inputs = prepare_aligned(clip.left, clip.right, clip.regions, study.match, exact)
        aligned, raw = score(inputs, made), score(study.raw, made)
        assert raw["psnr_visible_db"] < base["psnr_visible_db"] - 6
        assert aligned["psnr_visible_db"] == pytest.approx(base["psnr_visible_db"], abs=3)
        assert aligned["haarpsi"] == pytest.approx(base["haarpsi"], abs=0.05)
        found = study.fit(made)
        assert (found.scale, found.shift_px) == pytest.approx((strength, shift_px), abs=0.2)


@pytest.mark.parametrize("sabotage", [swapped, copied, inverted_depth, raised])
def test_inverted_flat_and_raised_films_are_not_aligned(study: Study, sabotage: object) -> None:
    made = sabotage(*study.conversion(*OTHER))  # type: ignore[operator]
    found = study.fit(made)
    assert found.obstacle and (math.isnan(found.scale) or found.scale < 0.05)


@pytest.mark.slow(seconds=6)
def test_no_degradation_is_hidden() -> None:
    study = Study(1, 8, HEIGHT, WIDTH)
    for name in SABOTAGES:
        if name in UNCHANGED:
            continue
        degraded = study.degraded(name)
        lost = missed(name, study.honest, degraded)
        if name == FORGIVEN:
            assert "psnr_visible_db" in lost, "a shift is another convergence"
        elif name in IN_HOLES:
            errors = ("worst_block", "temporal_error")
            assert degraded.scores["psnr_disoccluded_db"] < study.honest.scores[
                "psnr_disoccluded_db"
            ] - 0.3 or any(degraded.scores[e] > 1.1 * study.honest.scores[e] for e in errors), name
        else:
            assert not lost, (name, lost)
