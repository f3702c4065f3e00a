"""Exponential moving average of weights, as diffusers' EMAModel computes it.

Importing EMAModel takes 3 s of CPU time, since it imports diffusers and transformers: as much as all else
that a training of the student or of `light` imports.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_RAMP_UPDATES = 10  # the decay of update n is at most n / (n + 9), so that the first weights are forgotten


class WeightAverage:
    """An average of weights; it begins with a copy of them."""

    def __init__(self, weights: Sequence[Tensor], decay: float) -> None:
        self.averages = [each.detach().clone() for each in weights]
        self.updates = 0
        self._decay = decay

    @torch.no_grad()
    def update(self, weights: Sequence[Tensor]) -> None:
        """Include the weights after a step, with 1 - decay; the first ones replace the copy."""
        later = self.updates
        self.updates += 1
        decay = min((1 + later) / (_RAMP_UPDATES + later), self._decay) if later else 0.0
        for average, current in zip(self.averages, weights, strict=True):
            average.sub_((1 - decay) * (average - current))

    @torch.no_grad()
    def copy_to(self, weights: Sequence[Tensor]) -> None:
        """Replace weights by their averages."""
        for average, current in zip(self.averages, weights, strict=True):
            current.copy_(average)
