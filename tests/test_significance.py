"""The sign-flip test against all combinations of signs, and how often equal methods differ."""

import math
from itertools import product

import numpy as np
import pytest

from secondeye.evaluation import significance
from secondeye.evaluation.significance import MAX_FLIPPED, corrected_p, least_values, sign_flip_p


@pytest.mark.parametrize(
    ("values", "p"),
    [
        ([1.0] * 5, 1 / 16),
        ([-0.1] * 6, 1 / 32),
        ([1.0, 2.0, 3.0, -1.0], 6 / 16),  # sums of at least 5: 7 once, 5 twice
        ([4.0, 0.0, 0.0], 1.0),  # zeros say nothing
        ([0.1, 0.2, -0.3], 1.0),
        ([7.0], 1.0),
        ([], 1.0),
        ([math.inf, 1.0, 1.0], 1.0),
        ([math.nan] * 9, 1.0),
    ],
)
def test_known_values(values: list[float], p: float) -> None:
    assert sign_flip_p(values) == p
    assert sign_flip_p([-value for value in values[::-1]]) == p
    assert sign_flip_p([1e-3 * value for value in values]) == p


SIZES = np.random.default_rng(0).standard_cauchy(8)
SIGNS = np.array(list(product([-1, 1], repeat=8)))


def test_the_p_value_is_the_share_of_all_signs_with_a_sum_as_large() -> None:
    sums = np.abs(SIGNS @ SIZES)
    expected = [np.mean(sums >= found - 1e-9) for found in sums]
    assert [sign_flip_p(SIZES * signs) for signs in SIGNS] == expected


@pytest.mark.parametrize("flipped", [4, 8])
def test_no_level_is_exceeded_also_where_values_are_merged(
    flipped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(significance, "MAX_FLIPPED", flipped)
    found = np.array([sign_flip_p(SIZES * signs) for signs in SIGNS])
    assert all(0 < np.mean(found <= level) <= level for level in (2.0 ** (1 - flipped), 0.15, 0.3, 0.5))


def test_many_values_take_little_time() -> None:
    assert sign_flip_p([1.0] * 999) == sign_flip_p([1.0] * MAX_FLIPPED) == 2.0 ** (1 - MAX_FLIPPED)


def test_the_correction_and_the_least_number_of_values_agree() -> None:
    for comparisons, confidence in ((1, 0.5), (1, 0.9), (1, 0.9375), (10, 0.95), (300, 0.9), (300, 0.9999)):
        least = least_values(comparisons, confidence)
        assert corrected_p([1.0] * least, comparisons) <= 1 - confidence
        assert corrected_p([1.0] * (least - 1), comparisons) > 1 - confidence
    assert corrected_p([1.0] * 5, 100) == 1
