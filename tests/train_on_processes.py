"""Run by test_loop.py under torchrun: train a small network, on as many processes as it is started with."""

import sys
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors.torch import save_file
from test_loop import OPTIMISATION, draw, loss, new_run
from torch import nn

from secondeye.training.loop import train


def main(folder: Path, processes: int) -> None:
    state = PartialState(cpu=True)
    assert state.num_processes == processes
    if state.is_main_process:
        new_run(folder / str(processes))
    state.wait_for_everyone()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))  # no dropout: it differs by process
    run = new_run(folder / str(processes))
    trained = train(model, run, name="net", optimisation=OPTIMISATION, draw=draw, loss=loss)
    if state.is_main_process:
        save_file(trained.state_dict(), folder / f"{processes}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
