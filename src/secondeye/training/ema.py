"""Exponential moving average (EMA) of a network's weights: it inpaints better than the last weights.

Not diffusers' `EMAModel`: that one starts with a decay of 0 instead of 0.1, counts updates instead of steps,
copies buffers, and importing it takes seconds that the depth student does not need.
"""

import torch
from torch import Tensor, nn

Ema = dict[str, Tensor]  # float32, by name; empty without EMA


def start_ema(model: nn.Module, decay: float) -> Ema:
    """Copy the weights; returns an empty dict for a decay of 0."""
    return {name: weights.float().clone() for name, weights in _trained(model).items()} if decay else {}


def update_ema(ema: Ema, model: nn.Module, decay: float, step: int) -> None:
    """Update the average after a step, in place; in the first steps the decay rises to `decay`."""
    weight = 1 - min(decay, (1 + step) / (10 + step))
    for name, weights in _trained(model).items() if ema else ():
        ema[name].lerp_(weights.float(), weight)


def apply_ema(ema: Ema, model: nn.Module) -> None:
    """Replace the model's weights by their average, if there is one."""
    for name, weights in _trained(model).items() if ema else ():
        weights.copy_(ema[name])


def _trained(model: nn.Module) -> dict[str, Tensor]:
    """Return views of what training changes: parameters that are not frozen, and float buffers."""
    trained = {name: weights for name, weights in model.named_parameters() if weights.requires_grad}
    tensors = trained | dict(model.named_buffers())
    return {name: tensor.detach() for name, tensor in tensors.items() if torch.is_floating_point(tensor)}
