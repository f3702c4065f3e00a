"""Run by test_loop.py under torchrun: train a small network, on as many processes as it is started with.

With the last argument its samples are made once, by whichever process meets them first.
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from accelerate import PartialState
from safetensors.torch import save_file
from test_loop import OPTIMIZER, at_times_bad, draw, learn, new_model, new_run
from torch import Tensor

from secondeye.training.cached_samples import draw_cached

PARTS = 4  # of a batch of 8, over all processes
CACHED = 30  # samples


def main(folder: Path, processes: int, killed_at: int, cached: bool) -> None:
    state = PartialState(cpu=True)
    assert state.num_processes == processes
    run = new_run(folder)  # the main process makes it
    drawn = 0

    def draw_until_killed(rng: np.random.Generator) -> tuple[Tensor, ...]:
        nonlocal drawn
        drawn += 1
        if drawn == killed_at * 8 // processes:
            os.kill(os.getpid(), signal.SIGKILL)
        return draw_cached(run.checkpoints / "samples", CACHED, 0, draw, rng) if cached else draw(rng)

    hyperparams = replace(
        OPTIMIZER,
        batch_size=8,
        gradient_accumulation_steps=PARTS // processes,
        ema_decay=0.9,
        max_skipped_steps=25,
    )
    trained = learn(run, hyperparams, new_model(), loss=at_times_bad, draw=draw_until_killed)
    if state.is_main_process:
        save_file(trained.state_dict(), folder / "weights.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:] == ["cached"])
