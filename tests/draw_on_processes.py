"""Run by test_several_machines.py under torchrun: draw samples from a slow storage, in step with the others.

Every rank writes what it drew and how long it waited. Few imports: each worker repeats them.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from secondeye.params import Optimizer
from secondeye.training.sample_loader import SampleShare, load_micro_batches
from secondeye.training.sample_order import SampleOrder

WINDOWS = (3, 1, 2, 4, 2, 5, 3)  # of each shot
BATCH, STEPS, SEED = 8, 5, 3  # two epochs of 20 windows
READ_S = 0.1  # of one window


def draw(number: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
    """Return the sample's number, shot and chance, the process that drew it, and how long that took."""
    start = time.monotonic()
    time.sleep(READ_S)
    shot, chance = SampleOrder(WINDOWS, SEED).shot(number), rng.random()
    took = time.monotonic() - start
    return tuple(
        torch.tensor(value, dtype=torch.float64) for value in (number, shot, chance, os.getpid(), took)
    )


def draw_all(folder: Path, workers: int) -> None:
    """Draw this rank's samples; a step ends when all ranks have theirs, as that of a training does."""
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    settings = Optimizer(
        steps=STEPS,
        batch_size=BATCH,
        gradient_accumulation_steps=1,
        learning_rate=0.001,
        lr_scheduler="constant",
        ema_decay=0.0,
        precision="float32",
        max_skipped_steps=0,
        checkpoint_every=1,
        seed=SEED,
    )
    batches = load_micro_batches(draw, settings, SampleShare(BATCH, ranks, rank, ranks), 0, workers)
    drawn, waited_s = [], []
    for _ in range(STEPS):
        start = time.monotonic()
        columns = next(batches)
        waited_s.append(time.monotonic() - start)
        drawn.append(torch.stack(columns, dim=1).tolist())
        dist.all_reduce(columns[0])
    (folder / f"{rank}.json").write_text(json.dumps({"drawn": drawn, "waited_s": waited_s}))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    draw_all(Path(sys.argv[1]), int(sys.argv[2]))
