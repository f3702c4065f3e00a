"""The one training loop: accelerate around a step that is a pure function of its number.

Samples are drawn with a generator made of (seed, step, place in the batch), and torch is seeded anew at
every step. So a step depends on nothing but its number and the checkpoint before it: a run that was killed
continues to the same weights, and the number of processes does not change what a batch holds.
"""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from secondeye.params import Optimisation
from secondeye.refusal import Refusal
from secondeye.runs import Run

WARM_UP_SHARE = 0.05  # of the steps, in which the learning rate rises to its value; it then falls as a cosine
LEAST_RATE_SHARE = 0.02  # of the learning rate, at the end
WEIGHT_DECAY = 0.01
LARGEST_GRADIENT = 1.0  # norm, clipped
LOG_STEPS = 10

Sample = tuple[Tensor, ...]
Draw = Callable[[np.random.Generator], Sample]
Loss = Callable[[nn.Module, Sample], tuple[Tensor, Mapping[str, Tensor]]]


def train(
    model: nn.Module,
    run: Run,
    *,
    name: str,  # of what is trained; stands before its metrics and checkpoints
    optimisation: Optimisation,
    draw: Draw,  # generator -> one sample; must depend on the generator alone
    loss: Loss,  # model, samples stacked along a new first axis -> loss to minimise, parts to log
    validate: Callable[[nn.Module], Mapping[str, float]] | None = None,  # at the end, in eval mode
) -> nn.Module:
    """Train `model` in place, continuing from the run's last checkpoint; returns it in eval mode, on the CPU.

    Logs means over LOG_STEPS steps, or over those since the last checkpoint. Raises Refusal when the
    processes can not share the batch, or the loss is not finite.
    """
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    if optimisation.batch % accelerator.num_processes:
        raise Refusal(
            f"{name}: {accelerator.num_processes} processes can not share a batch of {optimisation.batch}; "
            "make its batch in params.yaml a multiple of their number"
        )
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=optimisation.learning_rate, weight_decay=WEIGHT_DECAY
    )
    prepared, optimizer = accelerator.prepare(model, optimizer)
    first = _resume(run.checkpoints, name, model, optimizer)
    judged = first == optimisation.steps and _is_judged(run, name, first)
    if accelerator.is_main_process and not judged:
        run.rewind(first, f"{name}/")
    prepared.train()
    means = _Means({}, 0)
    with _progress(name, first, optimisation.steps, accelerator) as bar:
        for step in range(first, optimisation.steps):
            for group in optimizer.param_groups:
                group["lr"] = optimisation.learning_rate * rate_share(step, optimisation.steps)
            batch = _draw_batch(draw, optimisation, step, accelerator)
            torch.manual_seed(_seed(optimisation.seed, step, accelerator.process_index))
            value, parts = loss(prepared, batch)
            if not torch.isfinite(value):
                raise Refusal(
                    f"{name}: the loss is not finite at step {step}; lower its learning_rate in params.yaml"
                )
            optimizer.zero_grad()
            accelerator.backward(value)
            accelerator.clip_grad_norm_(prepared.parameters(), LARGEST_GRADIENT)
            optimizer.step()
            bar.update()
            means = means.with_step({"loss": value, **parts})
            done = step + 1
            saving = done % optimisation.checkpoint_steps == 0 or done == optimisation.steps
            # Means end with a checkpoint: a training that goes on from it logs the same lines.
            if saving or done % LOG_STEPS == 0:
                if accelerator.is_main_process:
                    run.log(step, means.named(name))
                means = _Means({}, 0)
            if saving and accelerator.is_main_process:
                _save(run.checkpoints, name, done, accelerator.unwrap_model(prepared), optimizer)
    model = accelerator.unwrap_model(prepared).cpu().eval()
    if validate is not None and accelerator.is_main_process and not judged:
        scores = validate(model)
        run.log(optimisation.steps, {f"{name}/{score}": round(value, 6) for score, value in scores.items()})
    return model


def _is_judged(run: Run, name: str, steps: int) -> bool:
    """Whether the last line of this phase is there, which validation wrote."""
    lines = [line for line in run.metrics() if line["step"] == steps]
    return any(part.startswith(f"{name}/") for line in lines for part in line)


class _Means(NamedTuple):
    """Sums over a few steps."""

    sums: dict[str, float]
    steps: int

    def with_step(self, parts: Mapping[str, Tensor]) -> "_Means":
        sums = {part: self.sums.get(part, 0.0) + float(value.detach()) for part, value in parts.items()}
        return _Means(sums, self.steps + 1)

    def named(self, name: str) -> dict[str, float]:
        return {f"{name}/{part}": round(total / self.steps, 6) for part, total in self.sums.items()}


def _progress(name: str, first: int, steps: int, accelerator: Accelerator) -> tqdm:
    """A bar with an ETA; a terminal is refreshed often, a log gets a line now and then."""
    pace = 1.0 if sys.stderr.isatty() else 10.0
    quiet = not accelerator.is_main_process
    return tqdm(total=steps, initial=first, desc=name, unit="step", mininterval=pace, disable=quiet)


def rate_share(step: int, steps: int) -> float:
    """The learning rate of a step as a share of its largest value."""
    warm_up = max(1, round(WARM_UP_SHARE * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    way = (step - warm_up) / max(1, steps - warm_up)
    return LEAST_RATE_SHARE + (1 - LEAST_RATE_SHARE) * 0.5 * (1 + float(np.cos(np.pi * way)))


def _draw_batch(draw: Draw, optimisation: Optimisation, step: int, accelerator: Accelerator) -> Sample:
    places = range(accelerator.process_index, optimisation.batch, accelerator.num_processes)
    seeds = [np.random.SeedSequence([optimisation.seed, step, place]) for place in places]
    samples = [draw(np.random.default_rng(seed)) for seed in seeds]
    return tuple(torch.stack(column).to(accelerator.device) for column in zip(*samples, strict=True))


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _save(folder: Path, name: str, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """One safetensors file with weights and optimiser; older ones go when it is whole."""
    tensors = {f"model.{key}": value.contiguous() for key, value in model.state_dict().items()}
    for place, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{place}.{key}": value for key, value in state.items()}
    path = folder / f"{name}_{step:08d}.safetensors"
    part = folder / f".{path.name}.part"
    save_file(tensors, part)
    os.replace(part, path)
    for older in folder.glob(f"{name}_*.safetensors"):
        if older != path:
            older.unlink()


def _resume(folder: Path, name: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load the last checkpoint, if there is one; returns the steps it has seen."""
    paths = sorted(folder.glob(f"{name}_*.safetensors"))
    if not paths:
        return 0
    weights: dict[str, Tensor] = {}
    states: dict[int, dict[str, Tensor]] = {}
    with safe_open(paths[-1], framework="pt") as file:
        for key in file.keys():  # noqa: SIM118 (not a mapping)
            kind, rest = key.split(".", 1)
            if kind == "model":
                weights[rest] = file.get_tensor(key)
            else:
                place, what = rest.split(".", 1)
                states.setdefault(int(place), {})[what] = file.get_tensor(key)
    model.load_state_dict(weights)
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(paths[-1].stem.rpartition("_")[2])
