"""The one training loop: steps are functions of their number."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from secondeye.params import Gate, Optimisation
from secondeye.refusal import Refusal
from secondeye.runs import Run, open_run
from secondeye.training.loop import rate_share, train

OPTIMISATION = Optimisation(steps=25, batch=4, learning_rate=0.05, checkpoint_steps=5, seed=3)


def new_run(folder: Path) -> Run:
    return open_run(folder, "key", "train", Gate(2, 0.5), {})


def new_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))


def draw(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    x = torch.from_numpy(rng.normal(size=3).astype(np.float32))
    return x, x.sum()[None]


def loss(model: nn.Module, sample: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    error = model(sample[0]) - sample[1]
    return error.square().mean(), {"absolute": error.abs().mean()}


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.state_dict())


def test_training_lowers_the_loss_and_logs_it(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    train(new_model(), run, name="net", optimisation=OPTIMISATION, draw=draw, loss=loss)
    lines = run.metrics()
    assert [line["step"] for line in lines] == [4, 9, 14, 19, 24]
    assert lines[-1]["net/loss"] < lines[0]["net/loss"]
    assert "net/absolute" in lines[0]


@pytest.mark.parametrize("killed_at", [3, 5, 12, 24])
def test_a_killed_training_ends_in_the_same_weights(tmp_path: Path, killed_at: int) -> None:
    whole = new_run(tmp_path / "whole")
    wanted = weights_of(
        train(new_model(), whole, name="net", optimisation=OPTIMISATION, draw=draw, loss=loss)
    )
    run = new_run(tmp_path / "killed")
    seen = 0

    def draw_until_killed(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        nonlocal seen
        seen += 1
        if seen > killed_at * OPTIMISATION.batch:
            raise InterruptedError
        return draw(rng)

    with pytest.raises(InterruptedError):
        train(new_model(), run, name="net", optimisation=OPTIMISATION, draw=draw_until_killed, loss=loss)
    got = weights_of(train(new_model(), run, name="net", optimisation=OPTIMISATION, draw=draw, loss=loss))
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    assert run.metrics() == whole.metrics()


def test_checkpoints_hold_no_pickle_and_only_the_last_stays(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    train(new_model(), run, name="net", optimisation=OPTIMISATION, draw=draw, loss=loss)
    assert [path.name for path in run.checkpoints.iterdir()] == ["net_00000025.safetensors"]
    assert any(
        name.startswith("optimizer.0.") for name in load_file(run.checkpoints / "net_00000025.safetensors")
    )


def test_two_phases_of_a_run_do_not_meet(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    for name in ("first", "second"):
        train(new_model(), run, name=name, optimisation=OPTIMISATION, draw=draw, loss=loss)
    assert {key.split("/")[0] for line in run.metrics() for key in line} == {"step", "first", "second"}
    assert len(list(run.checkpoints.iterdir())) == 2


def test_validation_is_logged_at_the_end(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    seen = []

    def validate(model: nn.Module) -> dict[str, float]:
        seen.append(model.training)
        return {"score": 7.0}

    train(new_model(), run, name="net", optimisation=OPTIMISATION, draw=draw, loss=loss, validate=validate)
    assert seen == [False]
    assert run.metrics()[-1] == {"step": 25, "net/score": 7.0}


def test_a_phase_that_is_over_is_left_as_it_is(tmp_path: Path) -> None:
    run, judged = new_run(tmp_path), []

    def validate(model: nn.Module) -> dict[str, float]:
        judged.append(model)
        return {"score": 7.0}

    def go_on() -> None:
        for name in ("first", "second"):
            train(
                new_model(),
                run,
                name=name,
                optimisation=OPTIMISATION,
                draw=draw,
                loss=loss,
                validate=validate,
            )

    go_on()
    before = run.metrics()
    go_on()
    assert run.metrics() == before and len(judged) == 2
    run.rewind(OPTIMISATION.steps, "second/")  # killed before it was judged
    go_on()
    assert run.metrics() == before and len(judged) == 3


def test_a_training_that_diverges_is_refused(tmp_path: Path) -> None:
    run = new_run(tmp_path)

    def diverge(model: nn.Module, sample: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        value, parts = loss(model, sample)
        return value * float("nan"), parts

    with pytest.raises(Refusal, match="net: the loss is not finite at step 0; lower its learning_rate"):
        train(new_model(), run, name="net", optimisation=OPTIMISATION, draw=draw, loss=diverge)
    assert run.metrics() == [] and list(run.checkpoints.iterdir()) == []


def test_the_rate_rises_and_falls() -> None:
    shares = [rate_share(step, 100) for step in range(100)]
    assert shares[0] == pytest.approx(0.2) and max(shares) == 1.0
    assert all(a <= b for a, b in pairwise(shares[:6]))
    assert all(a >= b for a, b in pairwise(shares[5:]))
    assert shares[-1] < 0.03


@pytest.mark.slow
def test_two_processes_train_on_the_same_batches(tmp_path: Path) -> None:
    script = Path(__file__).with_name("train_on_processes.py")
    for processes in (1, 2):
        command = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        variables = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        subprocess.run(
            [sys.executable, *command, script, tmp_path, str(processes)], env=variables, check=True
        )
    one, two = (load_file(tmp_path / f"{processes}.safetensors") for processes in (1, 2))
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-4, rtol=1e-3)
