"""The one training loop: accelerate around a step that is a pure function of its number.

A batch is gone through in parts: a process takes one or more of them, one after the other. Samples are drawn
with a generator made of (seed, step, place in the batch), and torch is seeded anew for every part. So a step
depends on nothing but its number and the checkpoint before it: a run that was killed continues to the same
weights, and two processes learn what one learns from as many parts.
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
from secondeye.training.checkpoints import load_checkpoint, save_checkpoint
from secondeye.training.deepspeed import configure_sharding, is_sharded
from secondeye.training.ema import use_ema
from secondeye.training.mixed_precision import in_mixed_precision
from secondeye.training.step_metrics import no_means
from secondeye.training.train_state import (
    TrainState,
    backward,
    learn,
    make_optimizer,
    make_train_state,
    restore,
    restore_model,
    tensors_of,
)

WARM_UP_SHARE = 0.05  # of the steps, in which the learning rate rises to its value
LEAST_RATE_SHARE = 0.02  # of the learning rate, at the end of a cosine
LOG_STEPS = 10

Sample = tuple[Tensor, ...]
Draw = Callable[[np.random.Generator], Sample]
Loss = Callable[[nn.Module, Sample], tuple[Tensor, Mapping[str, Tensor]]]


def training_loop(
    model: nn.Module,
    run: Run,
    *,
    name: str,  # of what is trained; stands before its metrics and checkpoints
    hyperparams: Optimizer,
    draw: Draw,  # generator -> one sample; must depend on the generator alone
    # model, samples stacked along a new first axis -> their mean loss, to minimise, and parts of it to log:
    # of the same names all through a step; NaN where there is nothing to say.
    loss: Loss,
    validate: Callable[[nn.Module], Mapping[str, float]] | None = None,  # at the end, in eval mode
) -> nn.Module:
    """Train `model` in place, continuing from the run's last checkpoint; returns it in eval mode, on the CPU.

    What is left in it, and validated, is the average of its weights where there is one. Logs means over
    LOG_STEPS steps, or over those since the last checkpoint. Raises Refusal when the batch can not be shared,
    too many steps were bad, or a checkpoint can not be written.
    """
    accelerator = _accelerate(name, hyperparams)
    first, tensors = load_checkpoint(run.checkpoints, name)
    if tensors:
        restore_model(model, tensors)
    prepared, optimizer = accelerator.prepare(model, make_optimizer(model, hyperparams))
    device, sharded = accelerator.device.type, is_sharded(accelerator)
    learner = make_train_state(model, optimizer, hyperparams, device, prepared if sharded else None)
    if tensors:
        restore(learner, tensors)
    judged = first == hyperparams.steps and _is_judged(run, name, first)
    if accelerator.is_main_process and not judged:
        run.rewind(first, f"{name}/")
    prepared.train()
    computing = in_mixed_precision(prepared, "float32" if sharded else hyperparams.precision, device)
    means = no_means()
    with _progress(name, first, hyperparams.steps, accelerator) as bar:
        for step in range(first, hyperparams.steps):
            rate = hyperparams.learning_rate * rate_share(step, hyperparams.steps, hyperparams.lr_scheduler)
            for group in learner.optimizer.param_groups:
                group["lr"] = rate

            def part_loss(part: int, step: int = step) -> tuple[Tensor, Mapping[str, Tensor]]:
                batch = _draw_part(draw, hyperparams, step, part, accelerator)
                torch.manual_seed(_seed(hyperparams.seed, step, part))
                return loss(computing, batch)

            values = _differentiate(
                part_loss, prepared, learner, hyperparams.gradient_accumulation_steps, accelerator
            )
            norm = learn(learner, values["loss"], hyperparams, step)
            _require_few(int(learner.bad_steps), name, hyperparams, step)
            told = {} if norm is None else {**values, "gradient_norm": norm}
            means = means.with_step(told, hyperparams.batch_size)
            bar.update()
            done = step + 1
            saving = done % hyperparams.checkpoint_every == 0 or done == hyperparams.steps
            # Means end with a checkpoint: a training that goes on from it logs the same lines.
            if saving or done % LOG_STEPS == 0:
                if accelerator.is_main_process:
                    state = {"learning_rate": rate, "bad_steps": int(learner.bad_steps)}
                    run.log(step, means.named(name, **state))
                    if saving:
                        save_checkpoint(run.checkpoints, name, done, tensors_of(learner))
                means = no_means()
    use_ema(learner.average, model)
    model.cpu().eval()
    if validate is not None and accelerator.is_main_process and not judged:
        scores = validate(model)
        run.log(hyperparams.steps, {f"{name}/{score}": round(value, 6) for score, value in scores.items()})
    return model


def _accelerate(name: str, hyperparams: Optimizer) -> Accelerator:
    """The processes there are; Refusal where they can not share the batch."""
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no")  # params.yaml says
    require_shares(name, hyperparams)
    if is_sharded(accelerator):
        configure_sharding(name, hyperparams, accelerator)
    return accelerator


def require_shares(name: str, hyperparams: Optimizer) -> None:
    """Refuse a batch that the processes there are can not share in equal parts."""
    processes = PartialState(cpu=not torch.cuda.is_available()).num_processes
    parts = hyperparams.gradient_accumulation_steps
    if hyperparams.batch_size % (processes * parts):
        in_parts = f" with {parts} parts each" * (parts > 1)
        raise UserError(
            f"{name}: {processes} processes{in_parts} can not share a batch of {hyperparams.batch_size}; "
            f"make its batch in params.yaml a multiple of {processes * parts}"
        )


def _is_judged(run: Run, name: str, steps: int) -> bool:
    """Whether the last line of this phase is there, which validation wrote."""
    lines = [line for line in run.metrics() if line["step"] == steps]
    return any(part.startswith(f"{name}/") for line in lines for part in line)


def _progress(name: str, first: int, steps: int, accelerator: Accelerator) -> tqdm:
    """A bar with an ETA; a terminal is refreshed often, a log gets a line now and then."""
    pace = 1.0 if sys.stderr.isatty() else 10.0
    quiet = not accelerator.is_main_process
    return tqdm(total=steps, initial=first, desc=name, unit="step", mininterval=pace, disable=quiet)


def rate_share(
    step: int,
    steps: int,
    schedule: str,  # one of LR_SCHEDULERS
) -> float:
    """The learning rate of a step as a share of its largest value."""
    warm_up = max(1, round(WARM_UP_SHARE * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    if schedule == "constant":
        return 1.0
    way = (step - warm_up) / max(1, steps - warm_up)
    return LEAST_RATE_SHARE + (1 - LEAST_RATE_SHARE) * 0.5 * (1 + math.cos(math.pi * way))


def _draw_part(draw: Draw, hyperparams: Optimizer, step: int, part: int, accelerator: Accelerator) -> Sample:
    """Every nth sample of the batch from `part` on, where n parts are gone through by all processes."""
    parts = accelerator.num_processes * hyperparams.gradient_accumulation_steps
    places = range(part, hyperparams.batch_size, parts)
    seeds = [np.random.SeedSequence([hyperparams.seed, step, place]) for place in places]
    samples = [draw(np.random.default_rng(seed)) for seed in seeds]
    return tuple(torch.stack(column).to(accelerator.device) for column in zip(*samples, strict=True))


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _differentiate(
    part_loss: Callable[[int], tuple[Tensor, Mapping[str, Tensor]]],
    prepared: nn.Module,
    learner: TrainState,
    count: int,  # of parts that each process goes through
    accelerator: Accelerator,
) -> dict[str, float]:
    """Leave the gradient of the whole batch in the weights; its loss and parts, the same in all processes."""
    learner.optimizer.zero_grad()
    told = []
    for turn in range(count):
        last = turn + 1 == count
        with nullcontext() if last or learner.engine is not None else accelerator.no_sync(prepared):
            value, parts = part_loss(accelerator.process_index + turn * accelerator.num_processes)
            backward(learner, value, count)
        told.append({"loss": value, **parts})
    rows = torch.stack([torch.stack([value.detach().float() for value in part.values()]) for part in told])
    rows = accelerator.gather(rows)
    means = rows.nanmean(dim=0)
    means[0] = rows[:, 0].mean()  # of losses all must be numbers
    return dict(zip(told[0], means.tolist(), strict=True))


def _require_few(bad_steps: int, name: str, hyperparams: Optimizer, step: int) -> None:
    if bad_steps > hyperparams.max_skipped_steps:
        raise UserError(
            f"{name}: the loss or its gradient is not finite at step {step}, bad step {bad_steps} where "
            f"max_skipped_steps is {hyperparams.max_skipped_steps}; lower its learning_rate in params.yaml"
        )
