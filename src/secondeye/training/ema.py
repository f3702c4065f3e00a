"""The exponential moving average of a network's weights: it paints better than the last weights do."""

import torch
from torch import Tensor, nn

Ema = dict[str, Tensor]  # float32, by name; empty where there is none


def start_ema(model: nn.Module, decay: float) -> Ema:
    """The weights as they are; nothing for a decay of 0."""
    return {name: weights.float().clone() for name, weights in _learnt(model).items()} if decay else {}


def update_ema(average: Ema, model: nn.Module, decay: float, step: int) -> None:
    """Take in the weights of one more step, in place; the decay rises to its value at first."""
    share = 1 - min(decay, (1 + step) / (10 + step))
    for name, weights in _learnt(model).items() if average else ():
        average[name].lerp_(weights.float(), share)


def use_ema(average: Ema, model: nn.Module) -> None:
    """Put the average in the place of the weights, where there is one."""
    for name, weights in _learnt(model).items() if average else ():
        weights.copy_(average[name])


def _learnt(model: nn.Module) -> dict[str, Tensor]:
    """What changes in training: weights that are not frozen, and buffers of floats. They share the memory."""
    trained = {name: weights for name, weights in model.named_parameters() if weights.requires_grad}
    tensors = trained | dict(model.named_buffers())
    return {name: tensor.detach() for name, tensor in tensors.items() if torch.is_floating_point(tensor)}
