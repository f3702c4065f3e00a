"""The bootstrap against known distributions."""

import math

import numpy as np
import pytest

from secondeye.evaluation import bootstrap
from secondeye.evaluation.bootstrap import bootstrap_interval, bootstrap_means, gain_lower_bound

FEW = {"resamples": 500, "confidence": 0.9, "seed": 0}
UNEVEN = {"a": [0.3, 0.1, 0.4], "b": [0.9], "c": [0.2, 0.6], "d": [0.7, 0.1]}


def frequencies(values: dict[str, list[float]]) -> dict[float, float]:
    """Return mean -> how often it occurs."""
    means, counts = np.unique(bootstrap_means(values, 20_000, 3), return_counts=True)
    return dict(zip(means.tolist(), (counts / 20_000).tolist(), strict=True))


def test_equal_scores_have_an_interval_of_width_zero() -> None:
    values = {"a": [0.1] * 3, "b": [0.1], "c": [0.1] * 7}
    assert bootstrap_interval(values, **FEW) == (0.1, 0.1)
    assert gain_lower_bound(values, **FEW) == 0.1
    assert gain_lower_bound({"a": [0.0] * 3, "b": [0.0]}, **FEW) == 0


@pytest.mark.parametrize("values", [{"a": [0.0], "b": [1.0]}, {"only": [0.0, 1.0]}])
def test_two_films_and_two_clips_of_one_film_are_binomial(values: dict[str, list[float]]) -> None:
    assert frequencies(values) == pytest.approx({0.0: 0.25, 0.5: 0.5, 1.0: 0.25}, abs=0.015)  # 5 sigma
    many = {"resamples": 20_000, "seed": 0}
    assert bootstrap_interval(values, confidence=0.9, **many) == (0, 1)
    assert bootstrap_interval(values, confidence=0.4, **many) == (0.5, 0.5)


def test_clips_of_a_film_that_is_drawn_twice_are_resampled_twice() -> None:
    shares = frequencies({"a": [0.0, 1.0], "b": [10.0]})
    # Film a is drawn twice with probability 1/4; each of its means is 0, 1/2 or 1 with 1/4, 1/2, 1/4.
    assert shares[0.25] == pytest.approx(1 / 4 * 2 * 1 / 4 * 1 / 2, abs=0.01)
    assert shares[10.0] == pytest.approx(1 / 4, abs=0.015)


def test_a_film_with_many_clips_has_the_weight_of_one() -> None:
    assert frequencies({"long": [1.0] * 99, "short": [0.0]}) == pytest.approx(
        {0.0: 0.25, 0.5: 0.5, 1.0: 0.25}, abs=0.015
    )


def test_the_gain_bound_is_one_sided() -> None:
    coins = {"a": [0.0], "b": [1.0]}
    assert gain_lower_bound(coins, resamples=20_000, confidence=0.8, seed=0) == 0
    assert gain_lower_bound(coins, resamples=20_000, confidence=0.7, seed=0) == 0.5
    low, _ = bootstrap_interval(UNEVEN, resamples=500, confidence=0.8, seed=1)
    assert gain_lower_bound(UNEVEN, resamples=500, confidence=0.9, seed=1) == pytest.approx(low)


def test_fewer_than_two_films_have_no_gain_bound() -> None:
    for gains in ({}, {"a": [1.0, 2.0]}, {"a": [1.0], "b": [math.nan]}):
        assert gain_lower_bound(gains, **FEW) == -math.inf


def test_nan_scores_are_left_out() -> None:
    gaps = {"a": [1.0, math.nan, 4.0], "b": [math.nan], "c": [3.0], "d": []}
    assert bootstrap_interval(gaps, **FEW) == bootstrap_interval({"a": [1.0, 4.0], "c": [3.0]}, **FEW)
    assert all(map(math.isnan, bootstrap_interval({"b": [math.nan]}, **FEW)))
    assert all(map(math.isnan, bootstrap_interval({}, **FEW)))


def test_a_seed_is_reproducible() -> None:
    assert bootstrap_interval(UNEVEN, **FEW) == bootstrap_interval(UNEVEN, **FEW)
    first, second = (bootstrap_means(UNEVEN, 500, seed) for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_order_and_names_do_not_matter() -> None:
    turned = {name: list(reversed(clips)) for name, clips in reversed(UNEVEN.items())}
    renamed = {f"z{-ord(name)}": clips for name, clips in UNEVEN.items()}
    expected = bootstrap_means(UNEVEN, 500, 0)
    assert np.array_equal(bootstrap_means(turned, 500, 0), expected)
    assert np.array_equal(bootstrap_means(renamed, 500, 0), expected)


def test_the_block_size_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = bootstrap_means(UNEVEN, 500, 0)
    monkeypatch.setattr(bootstrap, "_BLOCK", 40)
    assert np.array_equal(bootstrap_means(UNEVEN, 500, 0), expected)


def test_intervals_cover_the_true_mean_about_as_often_as_nominal() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for trial in range(400):
        films = {str(film): rng.normal(rng.normal(7, 1), 0.7, 3).tolist() for film in range(10)}
        low, high = bootstrap_interval(films, resamples=300, confidence=0.9, seed=trial)
        covered += low <= 7 <= high
    assert 0.78 < covered / 400 < 0.94


def test_more_confidence_gives_a_wider_interval() -> None:
    ends = [bootstrap_interval(UNEVEN, resamples=500, confidence=c, seed=0) for c in (0.5, 0.8, 0.95)]
    assert ends[2][0] < ends[1][0] < ends[0][0] < ends[0][1] < ends[1][1] < ends[2][1]
