"""Run by test_training_loop.py under torchrun: train a small network on the given number of processes.

Once on new samples, then on cached ones, which are made once, by the process that needs them first. In the
kind of samples that the last argument names, every process kills itself; nothing is trained again.
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from accelerate import PartialState
from safetensors.torch import save_file
from small_training import OPTIMIZER, draw, learn, new_model, new_run, sometimes_infinite
from torch import Tensor

from secondeye.training.cached_samples import draw_cached

PARTS = 4  # of a batch of 8, over all processes
CACHED = 30  # samples


def main(folder: Path, processes: int, killed_at: int, killed: str) -> None:
    state = PartialState(cpu=True)
    assert state.num_processes == processes
    for samples in ("new", "cached"):
        if not (folder / samples / "weights.safetensors").exists():
            train(folder / samples, state, samples == "cached", killed_at if samples == killed else -1)
        state.wait_for_everyone()


def train(folder: Path, state: PartialState, cached: bool, killed_at: int) -> None:
    run = new_run(folder)  # the main process makes it
    drawn = 0

    def draw_until_killed(number: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
        nonlocal drawn
        drawn += 1
        if drawn == killed_at * 8 // state.num_processes:
            os.kill(os.getpid(), signal.SIGKILL)
        if cached:
            return draw_cached(run.checkpoints / "samples", CACHED, 0, draw, rng)
        return draw(number, rng)

    hyperparams = replace(
        OPTIMIZER,
        batch_size=8,
        gradient_accumulation_steps=PARTS // state.num_processes,
        ema_decay=0.9,
        max_skipped_steps=25,
    )
    trained = learn(run, hyperparams, new_model(), loss=sometimes_infinite, draw=draw_until_killed)
    if state.is_main_process:
        save_file(trained.state_dict(), folder / "weights.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
