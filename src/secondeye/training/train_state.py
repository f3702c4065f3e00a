"""What a step of training changes, how, and what of it is in a checkpoint."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from secondeye.params import Optimizer
from secondeye.training.ema import Ema, start_ema, update_ema

WEIGHT_DECAY = 0.01
LARGEST_GRADIENT = 1.0  # norm, clipped


class TrainState(NamedTuple):
    """A network with all that its training keeps."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    """Enlarges losses so that gradients in float16 do not vanish; without effect for the others."""
    average: Ema
    bad_steps: Tensor  # [] int64
    engine: Any = None
    """DeepSpeed's, which has its own steps; None without it."""


def make_optimizer(model: nn.Module, hyperparams: Optimizer) -> torch.optim.Optimizer:
    trained = [weights for weights in model.parameters() if weights.requires_grad]
    return torch.optim.AdamW(trained, lr=hyperparams.learning_rate, weight_decay=WEIGHT_DECAY)


def make_train_state(
    model: nn.Module,  # on its device already
    optimizer: torch.optim.Optimizer,
    hyperparams: Optimizer,
    device: str,
    engine: Any = None,
) -> TrainState:
    """The start of a training."""
    return TrainState(
        model,
        optimizer,
        torch.amp.GradScaler(device, enabled=hyperparams.precision == "float16"),
        start_ema(model, hyperparams.ema_decay),
        torch.zeros((), dtype=torch.int64),
        engine,
    )


def backward(learner: TrainState, loss: Tensor, parts: int) -> None:
    """Add the gradient of one of so many parts of a batch."""
    if learner.engine is None:
        learner.scaler.scale(loss / parts).backward()
    else:
        learner.engine.backward(loss)  # divides by itself
        learner.engine.step()  # after the last part


def learn(learner: TrainState, loss: float, hyperparams: Optimizer, step: int) -> float | None:
    """Change the weights by their gradients; returns the norm of these, or None for a step that is left out.

    It is where the loss or the gradient is not finite, and counted; not where only the scaler was too high,
    which then falls.
    """
    if learner.engine is not None:
        norm = float(learner.engine.get_global_grad_norm())
        update_ema(learner.average, learner.model, hyperparams.ema_decay, step)
        learner.bad_steps.add_(not (math.isfinite(loss) and math.isfinite(norm)))
        return norm
    optimizer, scaler = learner.optimizer, learner.scaler
    too_high = scaler.is_enabled() and scaler.get_scale() > 1
    scaler.unscale_(optimizer)
    norm = float(nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], LARGEST_GRADIENT))
    learns = math.isfinite(loss) and math.isfinite(norm)
    if learns:
        scaler.step(optimizer)
        update_ema(learner.average, learner.model, hyperparams.ema_decay, step)
    elif not (too_high and math.isfinite(loss)):
        learner.bad_steps.add_(1)
    scaler.update()
    return norm if learns else None


def tensors_of(learner: TrainState) -> dict[str, Tensor]:
    """All there is to go on from, by names that `restore` knows."""
    tensors = {f"model.{name}": value.contiguous() for name, value in learner.model.state_dict().items()}
    states = learner.optimizer.state_dict()["state"] if learner.engine is None else {}
    for place, state in states.items():
        tensors |= {f"optimizer.{place}.{name}": value for name, value in state.items()}
    tensors |= {f"average.{name}": value for name, value in learner.average.items()}
    if learner.scaler.is_enabled():
        scaler = learner.scaler.state_dict()
        tensors["scaler.scale"] = torch.tensor(scaler["scale"], dtype=torch.float64)
        tensors["scaler.growth"] = torch.tensor(scaler["_growth_tracker"])
    return tensors | {"bad_steps.all": learner.bad_steps}


def restore_model(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put a checkpoint's weights into the model: before DeepSpeed makes its copies of them."""
    model.load_state_dict(_of("model", tensors))


def restore(learner: TrainState, tensors: Mapping[str, Tensor]) -> None:
    """Go on from all else that a checkpoint holds."""
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in _of("optimizer", tensors).items():
        place, what = name.split(".", 1)
        states.setdefault(int(place), {})[what] = value
    if learner.engine is None:
        groups = learner.optimizer.state_dict()["param_groups"]
        learner.optimizer.load_state_dict({"state": states, "param_groups": groups})
    for name, value in _of("average", tensors).items():
        learner.average[name].copy_(value)
    if learner.scaler.is_enabled():
        scale, growth = float(tensors["scaler.scale"]), int(tensors["scaler.growth"])
        state = learner.scaler.state_dict() | {"scale": scale, "_growth_tracker": growth}
        learner.scaler.load_state_dict(state)
    learner.bad_steps.copy_(tensors["bad_steps.all"])


def _of(kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = f"{kind}."
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
