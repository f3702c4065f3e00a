"""The state of a training: what a step changes, and what a checkpoint holds."""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from secondeye.params import Optimizer
from secondeye.system.errors import UserError
from secondeye.system.process import is_main_process
from secondeye.training.checkpoints import StoredTensors

if TYPE_CHECKING:
    from diffusers.training_utils import EMAModel

WEIGHT_DECAY = 0.01
MAX_GRADIENT_NORM = 1.0  # larger gradients are clipped


class TrainState(NamedTuple):
    """A network with everything its training keeps."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    # scales the loss so that float16 gradients do not underflow; disabled for other precisions
    scaler: torch.amp.GradScaler
    # exponential moving average of the weights, in the main process and its host's memory; elsewhere None
    ema: "EMAModel | None"
    skipped_steps: Tensor  # [] int64
    engine: Any = None  # DeepSpeed's engine, which runs the optimizer itself; None without DeepSpeed


def make_optimizer(model: nn.Module, hyperparams: Optimizer) -> torch.optim.Optimizer:
    """Build AdamW over all parameters that are not frozen."""
    return torch.optim.AdamW(trained_weights(model), lr=hyperparams.learning_rate, weight_decay=WEIGHT_DECAY)


def trained_weights(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are not frozen: what the optimizer changes and the EMA averages."""
    return [weights for weights in model.parameters() if weights.requires_grad]


def make_train_state(
    model: nn.Module,  # already on its device
    optimizer: torch.optim.Optimizer,
    hyperparams: Optimizer,
    device: str,
    engine: Any = None,
) -> TrainState:
    """Build the state before the first step."""
    averaged = hyperparams.ema_decay > 0 and is_main_process()
    return TrainState(
        model,
        optimizer,
        torch.amp.GradScaler(device, enabled=hyperparams.precision == "float16"),
        _make_ema(model, hyperparams.ema_decay) if averaged else None,
        torch.zeros((), dtype=torch.int64),
        engine,
    )


def _make_ema(model: nn.Module, decay: float) -> "EMAModel":
    """Copy the weights. In the first updates the decay rises from 0 to `decay`."""
    from diffusers.training_utils import EMAModel  # takes seconds to import

    return EMAModel(_on_host(model), decay)


def _on_host(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights that are trained in the host's memory, copied if they are on a GPU."""
    return [
        weights if weights.device.type == "cpu" else nn.Parameter(weights.detach().cpu())
        for weights in trained_weights(model)
    ]


def backward(
    state: TrainState,
    loss: Tensor,  # scalar: the mean over a micro-batch
    micro_batches: int,  # of this process in a step
) -> None:
    """Accumulate the gradient of one micro-batch, divided by their number."""
    if state.engine is None:
        state.scaler.scale(loss / micro_batches).backward()
    else:
        state.engine.backward(loss)  # divides by the number of micro-batches itself
        state.engine.step()  # takes effect after the last micro-batch


def optimizer_step(state: TrainState, loss: float) -> float | None:
    """Update the weights by their gradients; returns the gradient norm, or None for a skipped step.

    A step is skipped if the loss or the gradient is not finite. It is counted unless only the scale of the
    loss was too high, which the scaler then lowers.
    """
    if state.engine is not None:
        norm = float(state.engine.get_global_grad_norm())
        _update_ema(state)
        state.skipped_steps.add_(not (math.isfinite(loss) and math.isfinite(norm)))
        return norm
    optimizer, scaler = state.optimizer, state.scaler
    may_overflow = scaler.is_enabled() and scaler.get_scale() > 1
    scaler.unscale_(optimizer)
    norm = float(nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], MAX_GRADIENT_NORM))
    finite = math.isfinite(loss) and math.isfinite(norm)
    if finite:
        scaler.step(optimizer)
        _update_ema(state)
    elif not (may_overflow and math.isfinite(loss)):
        state.skipped_steps.add_(1)
    scaler.update()
    return norm if finite else None


def _update_ema(state: TrainState) -> None:
    if state.ema is not None:
        state.ema.step(_on_host(state.model))


def apply_ema(state: TrainState) -> None:
    """Replace the model's weights by their average, if there is one, in all processes."""
    weights = trained_weights(state.model)
    if state.ema is not None:
        state.ema.copy_to(weights)
    if torch.distributed.is_initialized():
        for each in weights:
            torch.distributed.broadcast(each.data, src=0)


def state_tensors(state: TrainState) -> dict[str, Tensor]:
    """Return everything a checkpoint needs, by the names that `restore` reads; no frozen weights."""
    tensors = {f"model.{name}": value.contiguous() for name, value in _changing(state.model).items()}
    moments = state.optimizer.state_dict()["state"] if state.engine is None else {}
    for index, entries in moments.items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in entries.items()}
    if state.ema is not None:
        tensors |= {f"ema.{index}": value for index, value in enumerate(state.ema.shadow_params)}
        tensors["ema_updates.count"] = torch.tensor(state.ema.optimization_step)
    if state.scaler.is_enabled():
        scaler = state.scaler.state_dict()
        tensors["scaler.scale"] = torch.tensor(scaler["scale"], dtype=torch.float64)
        tensors["scaler.growth"] = torch.tensor(scaler["_growth_tracker"])
    return tensors | {"skipped_steps.count": state.skipped_steps}


def _changing(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's tensors that a step may change: buffers, and weights that are not frozen."""
    frozen = {name for name, weights in model.named_parameters() if not weights.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def restore_model(model: nn.Module, tensors: StoredTensors) -> None:
    """Load a checkpoint's weights into the model, before DeepSpeed copies them.

    Raises UserError unless it has exactly the weights that are trained.
    """
    current = {f"model.{name}": value for name, value in _changing(model).items()}
    stored = {name for name in tensors if name.startswith("model.")}
    if stored != current.keys() or any(tensors[name].shape != current[name].shape for name in stored):
        raise UserError(
            f"{tensors.path}: has other weights than those that are trained, as checkpoints of earlier "
            f"versions have; delete {tensors.path.parent} and start again"
        )
    for name, value in current.items():
        value.copy_(tensors[name])


def restore(state: TrainState, tensors: StoredTensors) -> None:
    """Load everything but the model's weights from a checkpoint, in place."""
    if state.engine is None:
        _restore_moments(state.optimizer, tensors)
    if state.ema is not None:
        for place, average in enumerate(state.ema.shadow_params):
            average.copy_(tensors[f"ema.{place}"])
        state.ema.load_state_dict({"optimization_step": int(tensors["ema_updates.count"])})
    if state.scaler.is_enabled():
        scale, growth = float(tensors["scaler.scale"]), int(tensors["scaler.growth"])
        state.scaler.load_state_dict(state.scaler.state_dict() | {"scale": scale, "_growth_tracker": growth})
    state.skipped_steps.copy_(tensors["skipped_steps.count"])


def _restore_moments(optimizer: torch.optim.Optimizer, tensors: StoredTensors) -> None:
    """Load AdamW's moments one by one to where the weights are, without a copy of all of them elsewhere."""
    weights = [each for group in optimizer.param_groups for each in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for name in tensors:
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            index, _, entry = rest.partition(".")
            value = tensors[name]
            device = weights[int(index)].device if value.ndim else value.device  # the step count has no axis
            moments.setdefault(int(index), {})[entry] = value.to(device, copy=True)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
