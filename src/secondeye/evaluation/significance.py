"""Sign-flip test: whether paired differences of a few films, or participants, are beyond chance.

Fisher's randomisation test (1935). If two methods are equal, their names may be exchanged on any film: each
difference is as likely with the opposite sign. So the probability of a mean as far from zero is the share of
all combinations of signs that give one. That is exact for any number of films and any distribution that is
symmetric about zero, unlike bootstrap intervals, which are too narrow for few films.
"""

import math
from collections.abc import Sequence

import numpy as np

MAX_FLIPPED = 28  # values whose signs change independently of each other


def sign_flip_p(values: Sequence[float]) -> float:
    """Return the two-sided p-value of a mean of zero, in (0, 1]; 1 if a value is not finite.

    More than `MAX_FLIPPED` values are first added up to as many sums, whatever their signs. The sums have
    symmetric distributions, too, so the test stays exact.
    """
    total = math.fsum(values)
    if not math.isfinite(total):
        return 1.0
    by_size = sorted(values, key=abs)
    sums = [math.fsum(by_size[start::MAX_FLIPPED]) for start in range(min(len(by_size), MAX_FLIPPED))]
    least = abs(total) - 1e-9 * math.fsum(map(abs, values))  # so that rounding does not separate equal sums
    if least <= 0:
        return 1.0
    first, second = np.sort(_flipped_sums(sums[::2])), np.sort(_flipped_sums(sums[1::2]))
    as_large = (len(second) - np.searchsorted(second, least - first)).sum()
    return 2 * int(as_large) / (len(first) * len(second))  # as many are as small


def corrected_p(values: Sequence[float], comparisons: int) -> float:
    """Return the p-value multiplied by the number of comparisons (Bonferroni), at most 1."""
    return min(1.0, comparisons * sign_flip_p(values))


def least_values(comparisons: int, confidence: float) -> int:
    """Return how many values can differ from zero beyond chance: the p-value of n equal ones is 2^(1-n)."""
    return math.ceil(1 + math.log2(comparisons / (1 - confidence)))


def _flipped_sums(values: Sequence[float]) -> np.ndarray:  # [2 ** len(values)]
    """Return the sums of all combinations of signs."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums - value, sums + value])
    return sums
