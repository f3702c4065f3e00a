"""The one training loop: accelerate around a step that is a pure function of its number.

A batch is split into micro-batches; every process takes one or more of them in turn. A sample is a function
of its number, see `sample_loader`, and torch is reseeded for every micro-batch. So a step depends on its
number and the previous checkpoint alone: a killed run continues to the same weights, and two processes learn
the same as one with as many micro-batches.
"""

import math
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from torch import Tensor, nn
from tqdm import tqdm

from secondeye.params import Optimizer
from secondeye.run_folder import Run
from secondeye.system.errors import UserError
from secondeye.system.process import best_device
from secondeye.system.text import pluralize
from secondeye.training.checkpoints import load_checkpoint, save_checkpoint
from secondeye.training.deepspeed import configure_sharding, is_sharded
from secondeye.training.mixed_precision import in_mixed_precision
from secondeye.training.sample_loader import Draw, Sample, SampleShare, load_micro_batches
from secondeye.training.step_metrics import empty_means
from secondeye.training.train_state import (
    TrainState,
    apply_ema,
    backward,
    make_optimizer,
    make_train_state,
    optimizer_step,
    restore,
    restore_model,
    state_tensors,
)

WARM_UP_SHARE = 0.05  # of the steps, in which the learning rate rises linearly
FINAL_RATE_SHARE = 0.02  # of the peak learning rate, reached at the end of the cosine
LOG_STEPS = 10

Loss = Callable[[nn.Module, Sample], tuple[Tensor, Mapping[str, Tensor]]]


def training_loop(
    model: nn.Module,
    run: Run,
    *,
    name: str,  # prefix of metrics and checkpoints
    hyperparams: Optimizer,
    draw: Draw,
    # model, samples stacked along a new first axis -> mean loss, metrics to log: the same names in all
    # micro-batches of a step, NaN if one has no value.
    loss: Loss,
    validate: Callable[[nn.Module], Mapping[str, float]] | None = None,  # at the end, in eval mode
    workers: int | None = None,  # processes that draw samples, of each rank; 0: none; default: `worker_count`
) -> nn.Module:
    """Train `model` in place from the run's last checkpoint on; returns it in eval mode, on the CPU.

    The result, which is also what is validated, has the EMA of the weights if there is one. Logs means over
    LOG_STEPS steps, or over those since the last checkpoint. Raises UserError if the processes cannot
    share the batch, too many steps were skipped, or a checkpoint cannot be written.
    """
    accelerator = _make_accelerator(name, hyperparams)
    first, tensors = load_checkpoint(run.checkpoints, name)
    if tensors:
        restore_model(model, tensors)
    prepared, optimizer = accelerator.prepare(model, make_optimizer(model, hyperparams))
    device, sharded = accelerator.device.type, is_sharded(accelerator)
    max_skipped_steps = 0 if sharded else hyperparams.max_skipped_steps  # DeepSpeed cannot skip any
    state = make_train_state(model, optimizer, hyperparams, device, prepared if sharded else None)
    if tensors:
        restore(state, tensors)
    del tensors  # closes the file: a checkpoint that is deleted would keep its space on the disk
    validated = first == hyperparams.steps and _is_validated(run, name, first)
    if accelerator.is_main_process and not validated:
        run.rewind(first, f"{name}/")
    prepared.train()
    network = in_mixed_precision(prepared, "float32" if sharded else hyperparams.precision, device)
    batches = load_micro_batches(draw, hyperparams, _own_share(hyperparams, accelerator), first, workers)
    means = empty_means()
    with _progress(name, first, hyperparams.steps, accelerator) as bar:
        for step in range(first, hyperparams.steps):
            rate = hyperparams.learning_rate * learning_rate_factor(
                step, hyperparams.steps, hyperparams.lr_scheduler
            )
            for group in state.optimizer.param_groups:
                group["lr"] = rate

            def micro_batch_loss(index: int, step: int = step) -> tuple[Tensor, Mapping[str, Tensor]]:
                batch = tuple(part.to(accelerator.device, non_blocking=True) for part in next(batches))
                torch.manual_seed(_seed(hyperparams.seed, step, index))
                return loss(network, batch)

            metrics = _compute_gradient(
                micro_batch_loss, prepared, state, hyperparams.gradient_accumulation_steps, accelerator
            )
            norm = optimizer_step(state, metrics["loss"])
            _limit_skipped_steps(int(state.skipped_steps), max_skipped_steps, name, step)
            logged = {} if norm is None else {**metrics, "gradient_norm": norm}
            means = means.with_step(logged, hyperparams.batch_size)
            bar.update()
            done = step + 1
            saving = done % hyperparams.checkpoint_every == 0 or done == hyperparams.steps
            # Means end at a checkpoint, so that a training that continues from it logs the same lines.
            if saving or done % LOG_STEPS == 0:
                if accelerator.is_main_process:
                    others = {"learning_rate": rate, "skipped_steps": int(state.skipped_steps)}
                    run.log(step, means.compute(name, **others))
                    if saving:
                        save_checkpoint(run.checkpoints, name, done, state_tensors(state))
                means = empty_means()
    apply_ema(state)
    model.cpu().eval()
    if validate is not None and accelerator.is_main_process and not validated:
        scores = validate(model)
        run.log(hyperparams.steps, {f"{name}/{score}": round(value, 6) for score, value in scores.items()})
    return model


def _make_accelerator(name: str, hyperparams: Optimizer) -> Accelerator:
    """Set up the processes. Raises UserError if they cannot share the batch."""
    # Mixed precision is our own, see mixed_precision.py.
    accelerator = Accelerator(cpu=best_device() == "cpu", mixed_precision="no")
    require_divisible_batch(name, hyperparams)
    if is_sharded(accelerator):
        configure_sharding(name, hyperparams, accelerator)
    return accelerator


def require_divisible_batch(name: str, hyperparams: Optimizer) -> None:
    """Raise UserError if the processes cannot share the batch equally."""
    processes = PartialState(cpu=best_device() == "cpu").num_processes
    micro_batches = processes * hyperparams.gradient_accumulation_steps
    if hyperparams.batch_size % micro_batches:
        raise UserError(
            f"{name}: {pluralize(processes, 'process', 'processes')} with "
            f"{hyperparams.gradient_accumulation_steps} gradient_accumulation_steps each cannot share a "
            f"batch_size of {hyperparams.batch_size}; make it a multiple of {micro_batches} in params.yaml"
        )


def _is_validated(run: Run, name: str, steps: int) -> bool:
    """Return whether the metrics have the line that validation logs."""
    lines = [line for line in run.metrics() if line["step"] == steps]
    return any(metric.startswith(f"{name}/") for line in lines for metric in line)


def _progress(name: str, first: int, steps: int, accelerator: Accelerator) -> tqdm:
    """Make a progress bar with an ETA: one update a second in a terminal, one in ten seconds in a log."""
    interval_s = 1.0 if sys.stderr.isatty() else 10.0
    quiet = not accelerator.is_main_process
    return tqdm(total=steps, initial=first, desc=name, unit="step", mininterval=interval_s, disable=quiet)


def learning_rate_factor(
    step: int,
    steps: int,
    lr_scheduler: str,  # constant or cosine
) -> float:
    """Return the learning rate of a step as a share of its peak: linear warm-up, then the scheduler."""
    warm_up = max(1, round(WARM_UP_SHARE * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    if lr_scheduler == "constant":
        return 1.0
    progress = (step - warm_up) / max(1, steps - warm_up)
    return FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * 0.5 * (1 + math.cos(math.pi * progress))


def _own_share(hyperparams: Optimizer, accelerator: Accelerator) -> SampleShare:
    ranks = accelerator.num_processes
    micro_batches = ranks * hyperparams.gradient_accumulation_steps
    return SampleShare(hyperparams.batch_size, micro_batches, accelerator.process_index, ranks)


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _compute_gradient(
    micro_batch_loss: Callable[[int], tuple[Tensor, Mapping[str, Tensor]]],
    prepared: nn.Module,
    state: TrainState,
    count: int,  # micro-batches of each process
    accelerator: Accelerator,
) -> dict[str, float]:
    """Accumulate the gradient of the whole batch; returns its mean metrics, equal on all processes."""
    state.optimizer.zero_grad()
    logged = []
    for turn in range(count):
        last = turn + 1 == count
        with nullcontext() if last or state.engine is not None else accelerator.no_sync(prepared):
            value, metrics = micro_batch_loss(accelerator.process_index + turn * accelerator.num_processes)
            backward(state, value, count)
        logged.append({"loss": value, **metrics})
    rows = torch.stack([torch.stack([v.detach().float() for v in metrics.values()]) for metrics in logged])
    rows = accelerator.gather(rows)
    means = rows.nanmean(dim=0)
    means[0] = rows[:, 0].mean()  # a loss of NaN must not be left out
    return dict(zip(logged[0], means.tolist(), strict=True))


def _limit_skipped_steps(skipped: int, allowed: int, name: str, step: int) -> None:
    if skipped > allowed:
        raise UserError(
            f"{name}: the loss or its gradient is not finite at step {step}; {skipped} steps were skipped, "
            f"{allowed} are allowed (max_skipped_steps); lower its learning_rate in params.yaml"
        )
