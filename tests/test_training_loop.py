"""The one training loop: steps are functions of their number."""

import errno
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import an_optimizer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from secondeye.params import Gate, Optimizer
from secondeye.run_folder import MACHINE_METRICS, Run, open_run, repeatable
from secondeye.system.errors import UserError
from secondeye.training import checkpoints
from secondeye.training.deepspeed import configure_sharding
from secondeye.training.loop import Draw, Loss, rate_share, training_loop
from secondeye.training.train_state import LARGEST_GRADIENT

OPTIMIZER = an_optimizer(steps=25, batch_size=4, learning_rate=0.05, checkpoint_every=5, seed=3)


def new_run(folder: Path) -> Run:
    return open_run(folder, "key", "train", Gate(confidence=0.5), {})


def new_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))


def draw(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    x = torch.from_numpy(rng.normal(size=3).astype(np.float32))
    return x, x.sum()[None]


def loss(model: nn.Module, sample: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    error = model(sample[0]) - sample[1]
    return error.square().mean(), {"absolute": error.abs().mean()}


def at_times_bad(model: nn.Module, sample: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    """Not finite where the batch says so, about one time in five."""
    value, parts = loss(model, sample)
    return value / (sample[1].mean() < 0.7).float(), parts


def learn(
    run: Run, hyperparams: Optimizer, model: nn.Module | None = None, loss: Loss = loss, draw: Draw = draw
) -> nn.Module:
    return training_loop(model or new_model(), run, name="net", hyperparams=hyperparams, draw=draw, loss=loss)


def weights_folder(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.state_dict())


def last_checkpoint(run: Run) -> dict[str, Tensor]:
    return load_file(max(run.checkpoints.iterdir()))


def test_training_lowers_the_loss_and_logs_it(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    training_loop(new_model(), run, name="net", hyperparams=OPTIMIZER, draw=draw, loss=loss)
    lines = run.metrics()
    assert [line["step"] for line in lines] == [4, 9, 14, 19, 24]
    assert lines[-1]["net/loss"] < lines[0]["net/loss"]
    assert "net/absolute" in lines[0]


ALL_AT_ONCE = replace(OPTIMIZER, gradient_accumulation_steps=2, ema_decay=0.9, max_skipped_steps=25)


@pytest.mark.parametrize(
    ("killed_at", "hyperparams"),
    [
        *((step, OPTIMIZER) for step in (3, 5, 12, 24)),
        (12, replace(ALL_AT_ONCE, precision="bfloat16", lr_scheduler="constant")),
        (13, replace(ALL_AT_ONCE, precision="float16")),
    ],
)
def test_a_killed_training_ends_in_the_same_weights(
    tmp_path: Path, killed_at: int, hyperparams: Optimizer
) -> None:
    whole = new_run(tmp_path / "whole")
    wanted = weights_folder(learn(whole, hyperparams, loss=may_fail(hyperparams)))
    run = new_run(tmp_path / "killed")
    seen = 0

    def draw_until_killed(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        nonlocal seen
        seen += 1
        if seen > killed_at * OPTIMIZER.batch_size:
            raise InterruptedError
        return draw(rng)

    with pytest.raises(InterruptedError):
        learn(run, hyperparams, loss=may_fail(hyperparams), draw=draw_until_killed)
    got = weights_folder(learn(run, hyperparams, loss=may_fail(hyperparams)))
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    assert repeatable(run.metrics()) == repeatable(whole.metrics())
    before, after = last_checkpoint(whole), last_checkpoint(run)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (run.metrics()[-1]["net/bad_steps"] > 0) == (hyperparams.max_skipped_steps > 0)


def may_fail(hyperparams: Optimizer) -> Loss:
    return at_times_bad if hyperparams.max_skipped_steps else loss


def test_checkpoints_hold_no_pickle_and_only_the_last_two_stay(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    learn(run, OPTIMIZER)
    names = sorted(path.name for path in run.checkpoints.iterdir())
    assert names == ["net_00000020.safetensors", "net_00000025.safetensors"]
    assert any(name.startswith("optimizer.0.") for name in last_checkpoint(run))


def test_a_broken_checkpoint_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, run = (new_run(tmp_path / name) for name in ("whole", "broken"))
    wanted = weights_folder(learn(whole, OPTIMIZER))
    learn(run, OPTIMIZER)
    newest = run.checkpoints / "net_00000025.safetensors"
    os.truncate(newest, newest.stat().st_size // 2)
    capsys.readouterr()
    drawn = 0

    def count(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        nonlocal drawn
        drawn += 1
        return draw(rng)

    got = weights_folder(learn(run, OPTIMIZER, draw=count))
    assert f"{newest}: is broken (" in capsys.readouterr().out and drawn == 5 * OPTIMIZER.batch_size
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    assert repeatable(run.metrics()) == repeatable(whole.metrics())


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), SafetensorError("No space left")])
def test_a_full_disk_is_one_line_and_leaves_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    run = new_run(tmp_path)

    def fill_up(tensors: dict[str, Tensor], path: Path) -> None:
        if "00000015" not in path.name:
            return save_file(tensors, path)
        path.write_bytes(b"half a file")
        raise error

    monkeypatch.setattr(checkpoints, "save_file", fill_up)
    with pytest.raises(
        UserError, match=r"net_00000015.safetensors: can not be written .*free some disk"
    ) as told:
        learn(run, OPTIMIZER)
    assert "\n" not in str(told.value)
    names = sorted(path.name for path in run.checkpoints.iterdir())
    assert names == ["net_00000005.safetensors", "net_00000010.safetensors"]
    monkeypatch.undo()
    wanted = weights_folder(learn(new_run(tmp_path / "whole"), OPTIMIZER))
    got = weights_folder(learn(run, OPTIMIZER))
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)


def test_two_phases_of_a_run_do_not_meet(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    for name in ("first", "second"):
        training_loop(new_model(), run, name=name, hyperparams=OPTIMIZER, draw=draw, loss=loss)
    assert {key.split("/")[0] for line in run.metrics() for key in line} == {"step", "first", "second"}
    assert len(list(run.checkpoints.iterdir())) == 4


def test_validation_is_logged_at_the_end(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    seen = []

    def validate(model: nn.Module) -> dict[str, float]:
        seen.append(model.training)
        return {"score": 7.0}

    training_loop(
        new_model(), run, name="net", hyperparams=OPTIMIZER, draw=draw, loss=loss, validate=validate
    )
    assert seen == [False]
    assert run.metrics()[-1] == {"step": 25, "net/score": 7.0}


def test_a_phase_that_is_over_is_left_as_it_is(tmp_path: Path) -> None:
    run, judged = new_run(tmp_path), []

    def validate(model: nn.Module) -> dict[str, float]:
        judged.append(model)
        return {"score": 7.0}

    def go_on() -> None:
        for name in ("first", "second"):
            training_loop(
                new_model(),
                run,
                name=name,
                hyperparams=OPTIMIZER,
                draw=draw,
                loss=loss,
                validate=validate,
            )

    go_on()
    before = run.metrics()
    go_on()
    assert run.metrics() == before and len(judged) == 2
    run.rewind(OPTIMIZER.steps, "second/")  # killed before it was judged
    go_on()
    assert run.metrics() == before and len(judged) == 3


def test_a_training_that_diverges_is_refused(tmp_path: Path) -> None:
    run = new_run(tmp_path)

    def diverge(model: nn.Module, sample: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        value, parts = loss(model, sample)
        return value * float("nan"), parts

    for bound in (0, 3):
        message = (
            f"net: the loss or its gradient is not finite at step {bound}, bad step {bound + 1} where "
            f"max_skipped_steps is {bound}; lower its learning_rate in params.yaml"
        )
        with pytest.raises(UserError, match=message):
            learn(run, replace(OPTIMIZER, max_skipped_steps=bound), loss=diverge)
        assert run.metrics() == [] and list(run.checkpoints.iterdir()) == []


def test_the_rate_rises_and_falls() -> None:
    shares = [rate_share(step, 100, "cosine") for step in range(100)]
    assert shares[0] == pytest.approx(0.2) and max(shares) == 1.0
    assert all(a <= b for a, b in pairwise(shares[:6]))
    assert all(a >= b for a, b in pairwise(shares[5:]))
    assert shares[-1] < 0.03


def test_a_constant_rate_rises_alike_and_stays() -> None:
    shares = [rate_share(step, 100, "constant") for step in range(100)]
    assert shares[:5] == [rate_share(step, 100, "cosine") for step in range(5)]
    assert set(shares[5:]) == {1.0}


# What the keys of Optimizer do


def still_model() -> nn.Module:
    """Without chance."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))


def test_parts_of_a_batch_learn_what_the_whole_does(tmp_path: Path) -> None:
    hyperparams = replace(OPTIMIZER, batch_size=6)
    runs = {parts: new_run(tmp_path / str(parts)) for parts in (1, 2, 3)}
    learnt = {
        parts: weights_folder(
            learn(run, replace(hyperparams, gradient_accumulation_steps=parts), still_model())
        )
        for parts, run in runs.items()
    }
    for parts in (2, 3):
        for name, weights in learnt[1].items():
            torch.testing.assert_close(learnt[parts][name], weights, atol=1e-5, rtol=1e-5)
        for one, other in pairwise([repeatable(runs[count].metrics()) for count in (1, parts)]):
            assert one == [pytest.approx(line, rel=1e-3) for line in other]


def test_parts_have_chances_of_their_own(tmp_path: Path) -> None:
    chances: list[float] = []

    def roll(model: nn.Module, sample: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        chances.append(float(torch.rand(())))
        return loss(model, sample)

    learn(new_run(tmp_path), replace(OPTIMIZER, steps=3, gradient_accumulation_steps=4), loss=roll)
    assert len(set(chances)) == 12


def test_a_batch_that_has_no_such_parts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"1 processes with 3 parts each can not share a batch of 4; .* of 3"):
        learn(new_run(tmp_path), replace(OPTIMIZER, gradient_accumulation_steps=3))


def test_what_is_left_and_validated_is_the_average(tmp_path: Path) -> None:
    after: list[dict[str, Tensor]] = []  # every step, and one before

    def note(model: nn.Module, sample: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        after.append({name: weights.clone() for name, weights in weights_folder(model).items()})
        return loss(model, sample)

    judged: list[dict[str, Tensor]] = []

    def validate(model: nn.Module) -> dict[str, float]:
        judged.append({name: weights.clone() for name, weights in weights_folder(model).items()})
        return {}

    run, hyperparams = new_run(tmp_path), replace(OPTIMIZER, ema_decay=0.8)
    got = weights_folder(
        training_loop(
            new_model(), run, name="net", hyperparams=hyperparams, draw=draw, loss=note, validate=validate
        )
    )
    stored = last_checkpoint(run)
    after.append({name: stored[f"model.{name}"] for name in got})
    for name, weights in got.items():
        average = after[0][name].double()
        for step, learnt in enumerate(after[1:]):
            decay = min(0.8, (1 + step) / (10 + step))
            average = decay * average + (1 - decay) * learnt[name].double()
        torch.testing.assert_close(weights.double(), average, atol=1e-6, rtol=1e-5)
        assert torch.equal(judged[0][name], weights) and torch.equal(stored[f"average.{name}"], weights)
        assert not torch.equal(weights, after[-1][name])


def test_without_averaging_there_is_no_second_copy(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    learn(run, replace(OPTIMIZER, steps=1))
    assert not any(name.startswith("average.") for name in last_checkpoint(run))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_short_precision_keeps_what_only_float32_can(tmp_path: Path, precision: str) -> None:
    """A weight near 1 is changed by less than half of the 0.008 or 0.001 to its neighbour."""
    seen: set[torch.dtype] = set()

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 1)
            nn.init.ones_(self.inner.weight)

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.inner(x)
            seen.add(answer.dtype)
            return answer

    def answered(model: nn.Module, sample: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        answer = model(sample[0])
        assert answer.dtype == torch.float32
        return (answer - 9).square().mean(), {}

    hyperparams = replace(OPTIMIZER, precision=precision, learning_rate=1e-6, lr_scheduler="constant")
    learnt = weights_folder(learn(new_run(tmp_path), hyperparams, Network(), loss=answered))
    assert seen == {getattr(torch, precision)}
    assert all(weights.dtype == torch.float32 for weights in learnt.values())
    change = learnt["inner.weight"] - 1
    assert bool((change != 0).all()) and float(change.abs().max()) < 1e-4


def test_a_scaler_that_was_too_high_makes_no_bad_step(tmp_path: Path) -> None:
    def steep(model: nn.Module, sample: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        return 1000 * loss(model, sample)[0], {}

    run, model = new_run(tmp_path), new_model()
    before = {name: weights.clone() for name, weights in weights_folder(model).items()}
    learn(run, replace(OPTIMIZER, precision="float16"), model, loss=steep)
    stored = last_checkpoint(run)
    assert 1 <= float(stored["scaler.scale"]) < 65536 and int(stored["scaler.growth"]) > 5
    assert run.metrics()[-1]["net/bad_steps"] == 0
    assert all(not torch.equal(weights_folder(model)[name], before[name]) for name in before)
    assert int(stored["optimizer.0.step"]) < OPTIMIZER.steps


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
@pytest.mark.parametrize("gradient", [False, True])
def test_a_bad_step_changes_nothing_and_is_counted(tmp_path: Path, ema_decay: float, gradient: bool) -> None:
    calls = 0

    def fails_once(model: nn.Module, sample: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        nonlocal calls
        calls += 1
        value, parts = loss(model, sample)
        if calls != 6:
            return value, parts
        # The gradient of a root is infinite at 0; its loss is not.
        return (value + (0 * value).sqrt() if gradient else value / 0), parts

    run = new_run(tmp_path)
    hyperparams = replace(OPTIMIZER, ema_decay=ema_decay, max_skipped_steps=1, checkpoint_every=1)
    learn(run, replace(hyperparams, steps=6, lr_scheduler="constant"), loss=fails_once)
    before, after = (load_file(path) for path in sorted(run.checkpoints.iterdir()))
    assert before.keys() == after.keys()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"bad_steps.all"}
    lines = run.metrics()
    assert [line["net/bad_steps"] for line in lines] == [0, 0, 0, 0, 0, 1]
    assert "net/loss" in lines[4] and "net/loss" not in lines[5]


def test_frozen_weights_are_no_matter_of_the_optimiser(tmp_path: Path) -> None:
    run, model = new_run(tmp_path), new_model()
    model[0].requires_grad_(False)  # type: ignore[index]
    before = {name: weights.clone() for name, weights in weights_folder(model).items()}
    learnt = weights_folder(learn(run, replace(OPTIMIZER, ema_decay=0.5), model))
    places = {name.split(".")[1] for name in last_checkpoint(run) if name.startswith("optimizer.")}
    averaged = {name for name in last_checkpoint(run) if name.startswith("average.")}
    assert places == {"0", "1"} and averaged == {"average.3.weight", "average.3.bias"}
    changed = {name for name in learnt if not torch.equal(before[name], learnt[name])}
    assert changed == {"3.weight", "3.bias"}


def test_every_line_tells_how_the_training_goes(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    learn(run, OPTIMIZER)
    for line in run.metrics():
        step = int(line["step"])
        rate = OPTIMIZER.learning_rate * rate_share(step, OPTIMIZER.steps, "cosine")
        assert line["net/learning_rate"] == pytest.approx(rate, rel=1e-5)
        assert line["net/gradient_norm"] > 0 and line["net/bad_steps"] == 0
        assert line["net/samples_per_second"] > 0 and 10 < line["net/memory_mib"] < 10**6
    names = {name.removeprefix("net/") for name in run.metrics()[0]}
    assert names - {name.removeprefix("net/") for name in repeatable(run.metrics())[0]} == set(
        MACHINE_METRICS
    )


def test_the_norm_is_that_before_clipping(tmp_path: Path) -> None:
    def steep(model: nn.Module, sample: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        return 100 * sum((weights.sum() for weights in model.parameters()), torch.tensor(0.0)), {}

    run, model = new_run(tmp_path), new_model()
    learn(run, replace(OPTIMIZER, steps=1), model, loss=steep)
    count = sum(weights.numel() for weights in model.parameters())
    assert run.metrics()[0]["net/gradient_norm"] == pytest.approx(100 * count**0.5, rel=1e-4)


def test_what_a_part_of_the_loss_does_not_say_is_not_counted(tmp_path: Path) -> None:
    calls = 0

    def quiet_at_times(model: nn.Module, sample: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        nonlocal calls
        calls += 1
        said = torch.tensor(float(calls) if calls % 2 else float("nan"))
        return loss(model, sample)[0], {"said": said, "never": torch.tensor(float("nan"))}

    run = new_run(tmp_path)
    learn(run, replace(OPTIMIZER, steps=5, gradient_accumulation_steps=2), loss=quiet_at_times)
    (line,) = run.metrics()
    assert line["net/said"] == 5 and "net/never" not in line  # the mean of 1, 3, 5, 7, 9


def test_deepspeed_is_told_what_params_say_or_refused() -> None:
    def told(hyperparams: Optimizer) -> dict[str, Any]:
        plugin = SimpleNamespace(deepspeed_config={"zero_optimization": {"stage": 2}})
        configure_sharding(
            "net",
            hyperparams,
            SimpleNamespace(num_processes=2, state=SimpleNamespace(deepspeed_plugin=plugin)),
        )
        return plugin.deepspeed_config

    hyperparams = replace(OPTIMIZER, batch_size=12, gradient_accumulation_steps=3, precision="bfloat16")
    config = told(hyperparams)
    assert config["zero_optimization"] == {"stage": 2} and config["gradient_clipping"] == LARGEST_GRADIENT
    assert config["train_micro_batch_size_per_gpu"] == 2 and config["gradient_accumulation_steps"] == 3
    assert config["torch_autocast"]["enabled"]
    for changes in ({"max_skipped_steps": 1}, {"precision": "float16"}):
        with pytest.raises(UserError, match="net: with DeepSpeed precision must be float32 or bfloat16"):
            told(replace(hyperparams, **changes))


@pytest.mark.slow
@pytest.mark.parametrize("samples", ["new", "cached"])
def test_two_processes_learn_as_one_and_go_on_where_they_were_killed(tmp_path: Path, samples: str) -> None:
    """Two of two parts each draw the samples and the chances of one that has four parts."""
    start_processes(tmp_path / "one", samples, processes=1)
    start_processes(tmp_path / "two", samples, processes=2)
    assert start_processes(tmp_path / "killed", samples, processes=2, killed_at=13, check=False) != 0
    assert (tmp_path / "killed" / "key" / "checkpoints" / "net_00000010.safetensors").exists()
    assert not (tmp_path / "killed" / "weights.safetensors").exists()
    start_processes(tmp_path / "killed", samples, processes=2)
    one, two, killed = (
        load_file(tmp_path / name / "weights.safetensors") for name in ("one", "two", "killed")
    )
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-4, rtol=1e-3)
        assert torch.equal(two[name], killed[name])
    lines = {name: repeatable(Run(tmp_path / name / "key").metrics()) for name in ("one", "two", "killed")}
    assert lines["two"] == lines["killed"] and lines["two"][-1]["net/bad_steps"] > 0
    assert [pytest.approx(line, rel=1e-2, abs=1e-4) for line in lines["one"]] == lines["two"]


def start_processes(
    folder: Path, samples: str, processes: int, killed_at: int = -1, check: bool = True
) -> int:
    script = Path(__file__).with_name("train_on_processes.py")
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    variables = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    given = [str(folder), str(processes), str(killed_at), samples]
    return subprocess.run([sys.executable, *command, script, *given], env=variables, check=check).returncode
