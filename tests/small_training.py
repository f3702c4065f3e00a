"""A training of milliseconds. Few imports: processes of distributed trainings repeat them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secondeye.params import Gate, Optimizer
from secondeye.run_folder import Run, open_run
from secondeye.training.loop import Loss, training_loop
from secondeye.training.sample_loader import Draw


def an_optimizer(**changes: Any) -> Optimizer:
    """Return the shortest plain optimizer settings."""
    plain = Optimizer(
        steps=1,
        batch_size=1,
        gradient_accumulation_steps=1,
        learning_rate=0.001,
        lr_scheduler="cosine",
        ema_decay=0.0,
        precision="float32",
        max_skipped_steps=0,
        checkpoint_every=1,
        seed=0,
    )
    return replace(plain, **changes)


OPTIMIZER = an_optimizer(steps=25, batch_size=4, learning_rate=0.05, checkpoint_every=5, seed=3)


def new_run(folder: Path) -> Run:
    return open_run(folder, "key", "train", Gate(confidence=0.5), {})


def new_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))


def draw(number: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    x = torch.from_numpy(rng.normal(size=3).astype(np.float32))
    return x, x.sum()[None]


def loss(model: nn.Module, sample: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    error = model(sample[0]) - sample[1]
    return error.square().mean(), {"absolute": error.abs().mean()}


def sometimes_infinite(model: nn.Module, sample: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a loss that is infinite for about one batch in five."""
    value, parts = loss(model, sample)
    return value / (sample[1].mean() < 0.7).float(), parts


def learn(
    run: Run, hyperparams: Optimizer, model: nn.Module | None = None, loss: Loss = loss, draw: Draw = draw
) -> nn.Module:
    return training_loop(model or new_model(), run, name="net", hyperparams=hyperparams, draw=draw, loss=loss)
