"""Accumulated metric sums: states of consecutive windows add up to the state of the whole film."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from secondeye.metrics.masked_sums import Sum


@dataclass
class MetricState:
    """Sums, maxima and histograms of some frames."""

    sums: dict[str, Sum] = field(default_factory=dict)
    maxima: dict[str, float] = field(default_factory=dict)
    disparities: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))  # histogram
    medians: list[float] = field(default_factory=list)  # median disparity of each frame, % of the width

    def __add__(self, other: "MetricState") -> "MetricState":
        """Merge two states."""
        names = self.sums.keys() | other.sums.keys()
        sums = {name: _add(self.sums.get(name), other.sums.get(name)) for name in names}
        maxima = {
            name: max(self.maxima.get(name, -math.inf), other.maxima.get(name, -math.inf))
            for name in self.maxima.keys() | other.maxima.keys()
        }
        return MetricState(sums, maxima, self.disparities + other.disparities, self.medians + other.medians)

    def mean(self, name: str) -> float:
        """Return the mean of a sum; NaN if nothing was counted."""
        total, count = self.sums.get(name, (0.0, 0.0))
        return total / count if count else math.nan

    def ratio(self, numerator: str, denominator: str, epsilon: float = 0.0) -> float:
        """Return the ratio of two means, `epsilon` added to both; NaN without counts or for division by 0."""
        below = self.mean(denominator) + epsilon
        return (self.mean(numerator) + epsilon) / below if below else math.nan


def weighted_sum(
    values: Tensor,  # [N]
    weights: Tensor | None = None,  # [N]; None: all 1
) -> Sum:
    """Return the weighted sum of the values and the sum of their weights; NaN values are skipped."""
    known = ~values.isnan()
    weights = torch.ones_like(values) if weights is None else weights
    products = (values.double() * weights)[known].tolist()
    return math.fsum(products), math.fsum(weights[known].tolist())


def _add(one: Sum | None, other: Sum | None) -> Sum:
    (a, n), (b, m) = one or (0.0, 0.0), other or (0.0, 0.0)
    return a + b, n + m
