"""Sums over frames, which add: a film is scored window by window, and the whole is what its windows make."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from secondeye.metrics.masked_sums import Sum


@dataclass
class MetricState:
    """What was counted in some frames."""

    sums: dict[str, Sum] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)
    disparities: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))  # a histogram
    medians: list[float] = field(default_factory=list)  # of each frame's disparity, % of the width

    def __add__(self, other: "MetricState") -> "MetricState":
        """What was counted in both."""
        names = self.sums.keys() | other.sums.keys()
        sums = {name: _plus(self.sums.get(name), other.sums.get(name)) for name in names}
        largest = {
            name: max(self.largest.get(name, -math.inf), other.largest.get(name, -math.inf))
            for name in self.largest.keys() | other.largest.keys()
        }
        return MetricState(sums, largest, self.disparities + other.disparities, self.medians + other.medians)

    def mean(self, name: str) -> float:
        """NaN where nothing was counted."""
        total, count = self.sums.get(name, (0.0, 0.0))
        return total / count if count else math.nan

    def ratio(self, name: str, other: str, least: float = 0.0) -> float:
        """Of two means, `least` added to both; NaN where one was not counted, and over zero."""
        below = self.mean(other) + least
        return (self.mean(name) + least) / below if below else math.nan


def total(
    values: Tensor,  # [N]
    weights: Tensor | None = None,  # [N]; None counts all alike
) -> Sum:
    """The weighted sum of the values that are numbers, and their weight."""
    known = ~values.isnan()
    shares = torch.ones_like(values) if weights is None else weights
    found = (values.double() * shares)[known].tolist()
    return math.fsum(found), math.fsum(shares[known].tolist())


def _plus(one: Sum | None, other: Sum | None) -> Sum:
    (a, n), (b, m) = one or (0.0, 0.0), other or (0.0, 0.0)
    return a + b, n + m
