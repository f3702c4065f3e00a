"""The training loop: every step is a function of its number."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import train_on_processes
from conftest import load_preset
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from small_training import OPTIMIZER, draw, learn, loss, new_model, new_run, sometimes_infinite
from torch import Tensor, nn

from secondeye.params import Optimizer
from secondeye.run_folder import MACHINE_METRICS, Run, repeatable
from secondeye.system.errors import UserError
from secondeye.training import checkpoints, loop
from secondeye.training.checkpoints import load_checkpoint
from secondeye.training.deepspeed import configure_sharding
from secondeye.training.loop import Loss, learning_rate_factor, training_loop
from secondeye.training.sample_loader import Draw
from secondeye.training.train_state import MAX_GRADIENT_NORM


def weights_of(model: nn.Module) -> dict[str, Tensor]:
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
    ("killed_at", "hyperparams"),  # steps; one that is continued can be killed again
    [
        *(((step,), OPTIMIZER) for step in (3, 5, 12, 24)),
        ((7, 14, 14), OPTIMIZER),
        ((12,), replace(ALL_AT_ONCE, precision="bfloat16", lr_scheduler="constant")),
        ((13,), replace(ALL_AT_ONCE, precision="float16")),
    ],
)
def test_a_killed_training_ends_with_the_same_weights(
    tmp_path: Path, killed_at: tuple[int, ...], hyperparams: Optimizer
) -> None:
    whole = new_run(tmp_path / "whole")
    wanted = weights_of(learn(whole, hyperparams, loss=loss_for(hyperparams)))
    run = new_run(tmp_path / "killed")
    for step in killed_at:

        def draw_until_killed(number: int, rng: np.random.Generator, step: int = step) -> tuple[Tensor, ...]:
            if number >= step * OPTIMIZER.batch_size:
                raise InterruptedError
            return draw(number, rng)

        with pytest.raises(InterruptedError):
            learn(run, hyperparams, loss=loss_for(hyperparams), draw=draw_until_killed)
    got = weights_of(learn(run, hyperparams, loss=loss_for(hyperparams)))
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    assert repeatable(run.metrics()) == repeatable(whole.metrics())
    before, after = last_checkpoint(whole), last_checkpoint(run)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (run.metrics()[-1]["net/skipped_steps"] > 0) == (hyperparams.max_skipped_steps > 0)


def loss_for(hyperparams: Optimizer) -> Loss:
    return sometimes_infinite if hyperparams.max_skipped_steps else loss


def test_checkpoints_are_safetensors_and_only_two_are_kept(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    learn(run, OPTIMIZER)
    names = sorted(path.name for path in run.checkpoints.iterdir())
    assert names == ["net_00000020.safetensors", "net_00000025.safetensors"]
    assert any(name.startswith("optimizer.0.") for name in last_checkpoint(run))


def test_a_damaged_checkpoint_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, run = (new_run(tmp_path / name) for name in ("whole", "broken"))
    wanted = weights_of(learn(whole, OPTIMIZER))
    learn(run, OPTIMIZER)
    newest = run.checkpoints / "net_00000025.safetensors"
    os.truncate(newest, newest.stat().st_size // 2)
    capsys.readouterr()
    drawn = 0

    def count(number: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        nonlocal drawn
        drawn += 1
        return draw(number, rng)

    got = weights_of(learn(run, OPTIMIZER, draw=count))
    assert f"{newest}: damaged (" in capsys.readouterr().out and drawn == 5 * OPTIMIZER.batch_size
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    assert repeatable(run.metrics()) == repeatable(whole.metrics())


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), SafetensorError("No space left")])
def test_a_full_disk_is_one_line_and_keeps_earlier_checkpoints(
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
        UserError, match=r"net_00000015.safetensors: cannot be written .*free some disk space"
    ) as raised:
        learn(run, OPTIMIZER)
    assert "\n" not in str(raised.value)
    names = sorted(path.name for path in run.checkpoints.iterdir())
    assert names == ["net_00000005.safetensors", "net_00000010.safetensors"]
    monkeypatch.undo()
    wanted = weights_of(learn(new_run(tmp_path / "whole"), OPTIMIZER))
    got = weights_of(learn(run, OPTIMIZER))
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)


def test_two_phases_of_a_run_are_separate(tmp_path: Path) -> None:
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


def test_a_finished_phase_is_not_repeated(tmp_path: Path) -> None:
    run, validated = new_run(tmp_path), []

    def validate(model: nn.Module) -> dict[str, float]:
        validated.append(model)
        return {"score": 7.0}

    def resume() -> None:
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

    resume()
    before = run.metrics()
    resume()
    assert run.metrics() == before and len(validated) == 2
    run.rewind(OPTIMIZER.steps, "second/")  # killed before validation
    resume()
    assert run.metrics() == before and len(validated) == 3


def test_a_training_that_diverges_is_refused(tmp_path: Path) -> None:
    run = new_run(tmp_path)

    def diverge(model: nn.Module, sample: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        value, parts = loss(model, sample)
        return value * float("nan"), parts

    for bound in (0, 3):
        message = (
            f"net: the loss or its gradient is not finite at step {bound}; {bound + 1} steps were skipped, "
            rf"{bound} are allowed \(max_skipped_steps\); lower its learning_rate in params.yaml"
        )
        with pytest.raises(UserError, match=message):
            learn(run, replace(OPTIMIZER, max_skipped_steps=bound), loss=diverge)
        assert run.metrics() == [] and list(run.checkpoints.iterdir()) == []


def test_a_cosine_rate_warms_up_and_falls() -> None:
    shares = [learning_rate_factor(step, 100, "cosine") for step in range(100)]
    assert shares[0] == pytest.approx(0.2) and max(shares) == 1.0
    assert all(a <= b for a, b in pairwise(shares[:6]))
    assert all(a >= b for a, b in pairwise(shares[5:]))
    assert shares[-1] < 0.03


def test_a_constant_rate_warms_up_and_stays() -> None:
    shares = [learning_rate_factor(step, 100, "constant") for step in range(100)]
    assert shares[:5] == [learning_rate_factor(step, 100, "cosine") for step in range(5)]
    assert set(shares[5:]) == {1.0}


# What the keys of Optimizer do


def still_model() -> nn.Module:
    """Without dropout."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))


def test_gradient_accumulation_learns_what_the_whole_batch_does(tmp_path: Path) -> None:
    hyperparams = replace(OPTIMIZER, batch_size=6)
    runs = {parts: new_run(tmp_path / str(parts)) for parts in (1, 2, 3)}
    learnt = {
        parts: weights_of(learn(run, replace(hyperparams, gradient_accumulation_steps=parts), still_model()))
        for parts, run in runs.items()
    }
    for parts in (2, 3):
        for name, weights in learnt[1].items():
            torch.testing.assert_close(learnt[parts][name], weights, atol=1e-5, rtol=1e-5)
        for one, other in pairwise([repeatable(runs[count].metrics()) for count in (1, parts)]):
            assert one == [pytest.approx(line, rel=1e-3) for line in other]


def test_every_part_has_its_own_random_numbers(tmp_path: Path) -> None:
    chances: list[float] = []

    def record_chance(model: nn.Module, sample: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        chances.append(float(torch.rand(())))
        return loss(model, sample)

    learn(new_run(tmp_path), replace(OPTIMIZER, steps=3, gradient_accumulation_steps=4), loss=record_chance)
    assert len(set(chances)) == 12


def test_a_batch_that_cannot_be_divided_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"1 process with 3 gradient_accumulation_steps each cannot share .* of 4; .* of 3"
    ):
        learn(new_run(tmp_path), replace(OPTIMIZER, gradient_accumulation_steps=3))


def test_the_average_is_returned_and_validated(tmp_path: Path) -> None:
    after: list[dict[str, Tensor]] = []  # every step, and one before

    def note(model: nn.Module, sample: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        after.append({name: weights.clone() for name, weights in weights_of(model).items()})
        return loss(model, sample)

    validated: list[dict[str, Tensor]] = []

    def validate(model: nn.Module) -> dict[str, float]:
        validated.append({name: weights.clone() for name, weights in weights_of(model).items()})
        return {}

    run, hyperparams = new_run(tmp_path), replace(OPTIMIZER, ema_decay=0.8)
    got = weights_of(
        training_loop(
            new_model(), run, name="net", hyperparams=hyperparams, draw=draw, loss=note, validate=validate
        )
    )
    stored = last_checkpoint(run)
    after.append({name: stored[f"model.{name}"] for name in got})
    for index, (name, weights) in enumerate(got.items()):
        average = after[0][name].double()
        for step, learnt in enumerate(after[1:]):
            decay = min(0.8, (1 + step) / (10 + step)) if step else 0.0
            average = decay * average + (1 - decay) * learnt[name].double()
        torch.testing.assert_close(weights.double(), average, atol=1e-6, rtol=1e-5)
        assert torch.equal(validated[0][name], weights) and torch.equal(stored[f"ema.{index}"], weights)
        assert not torch.equal(weights, after[-1][name])


def test_without_ema_there_is_no_second_copy(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    learn(run, replace(OPTIMIZER, steps=1))
    assert not any(name.startswith("ema.") for name in last_checkpoint(run))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_keeps_float32_weights(tmp_path: Path, precision: str) -> None:
    """A weight near 1 changes by less than half of the 0.008 or 0.001 between neighbouring short floats."""
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
    learnt = weights_of(learn(new_run(tmp_path), hyperparams, Network(), loss=answered))
    assert seen == {getattr(torch, precision)}
    assert all(weights.dtype == torch.float32 for weights in learnt.values())
    change = learnt["inner.weight"] - 1
    assert bool((change != 0).all()) and float(change.abs().max()) < 1e-4


def test_a_loss_scale_that_was_too_high_is_not_counted_as_a_skipped_step(tmp_path: Path) -> None:
    def steep(model: nn.Module, sample: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        return 1000 * loss(model, sample)[0], {}

    run, model = new_run(tmp_path), new_model()
    before = {name: weights.clone() for name, weights in weights_of(model).items()}
    learn(run, replace(OPTIMIZER, precision="float16"), model, loss=steep)
    stored = last_checkpoint(run)
    assert 1 <= float(stored["scaler.scale"]) < 65536 and int(stored["scaler.growth"]) > 5
    assert run.metrics()[-1]["net/skipped_steps"] == 0
    assert all(not torch.equal(weights_of(model)[name], before[name]) for name in before)
    assert int(stored["optimizer.0.step"]) < OPTIMIZER.steps


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
@pytest.mark.parametrize("gradient", [False, True])
def test_a_skipped_step_changes_nothing_and_is_counted(
    tmp_path: Path, ema_decay: float, gradient: bool
) -> None:
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
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"skipped_steps.count"}
    lines = run.metrics()
    assert [line["net/skipped_steps"] for line in lines] == [0, 0, 0, 0, 0, 1]
    assert "net/loss" in lines[4] and "net/loss" not in lines[5]


def test_frozen_weights_are_left_out_of_optimizer_and_ema(tmp_path: Path) -> None:
    run, model = new_run(tmp_path), new_model()
    model[0].requires_grad_(False)  # type: ignore[index]
    before = {name: weights.clone() for name, weights in weights_of(model).items()}
    learnt = weights_of(learn(run, replace(OPTIMIZER, ema_decay=0.5), model))
    places = {name.split(".")[1] for name in last_checkpoint(run) if name.startswith("optimizer.")}
    averaged = {name for name in last_checkpoint(run) if name.startswith("ema.")}
    assert places == {"0", "1"} and averaged == {"ema.0", "ema.1"}
    kept = {name for name in last_checkpoint(run) if name.startswith("model.")}
    assert kept == {"model.3.weight", "model.3.bias"}
    changed = {name for name in learnt if not torch.equal(before[name], learnt[name])}
    assert changed == {"3.weight", "3.bias"}


def test_a_training_with_frozen_weights_continues_after_a_kill(tmp_path: Path) -> None:
    def learn_half(run: Run, draw: Draw = draw) -> dict[str, Tensor]:
        model = new_model()
        model[0].requires_grad_(False)  # type: ignore[index]
        return weights_of(learn(run, replace(OPTIMIZER, ema_decay=0.5), model, draw=draw))

    def draw_until_killed(number: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        if number == 50:
            raise KeyboardInterrupt
        return draw(number, rng)

    whole, cut = learn_half(new_run(tmp_path / "whole")), new_run(tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        learn_half(cut, draw_until_killed)
    continued = learn_half(cut)
    assert all(torch.equal(whole[name], continued[name]) for name in whole)


def test_a_checkpoint_of_other_weights_is_refused(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    learn(run, OPTIMIZER)
    model = new_model()
    model[0].requires_grad_(False)  # type: ignore[index]
    with pytest.raises(
        UserError, match=r"net_00000025.safetensors: has other weights .* delete .*checkpoints"
    ):
        learn(run, OPTIMIZER, model)


@pytest.mark.skipif(sys.platform != "linux", reason="lists a process's mapped files")
def test_a_training_that_continues_holds_no_part_of_its_checkpoint(tmp_path: Path) -> None:
    """Weights, moments and EMA are its own by then: a deleted checkpoint frees its memory and its disk."""

    def mapped() -> list[str]:
        lines = Path("/proc/self/maps").read_text().splitlines()
        return [line for line in lines if str(tmp_path) in line]

    def look(model: nn.Module, sample: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        seen.append(mapped())
        return loss(model, sample)

    run, seen = new_run(tmp_path), list[list[str]]()
    learn(run, replace(OPTIMIZER, steps=10, ema_decay=0.5))
    _, stored = load_checkpoint(run.checkpoints, "net")
    assert stored is not None and stored["model.0.weight"].shape == (8, 3) and mapped()
    del stored
    learn(run, replace(OPTIMIZER, ema_decay=0.5), loss=look)
    assert len(seen) == 15 and not any(seen)


def test_every_line_has_rate_norm_speed_and_memory(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    learn(run, OPTIMIZER)
    for line in run.metrics():
        step = int(line["step"])
        rate = OPTIMIZER.learning_rate * learning_rate_factor(step, OPTIMIZER.steps, "cosine")
        assert line["net/learning_rate"] == pytest.approx(rate, rel=1e-5)
        assert line["net/gradient_norm"] > 0 and line["net/skipped_steps"] == 0
        assert line["net/samples_per_second"] > 0 and 10 < line["net/memory_mib"] < 10**6
    names = {name.removeprefix("net/") for name in run.metrics()[0]}
    assert names - {name.removeprefix("net/") for name in repeatable(run.metrics())[0]} == set(
        MACHINE_METRICS
    )


def test_the_logged_norm_is_that_before_clipping(tmp_path: Path) -> None:
    def steep(model: nn.Module, sample: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        return 100 * sum((weights.sum() for weights in model.parameters()), torch.tensor(0.0)), {}

    run, model = new_run(tmp_path), new_model()
    learn(run, replace(OPTIMIZER, steps=1), model, loss=steep)
    count = sum(weights.numel() for weights in model.parameters())
    assert run.metrics()[0]["net/gradient_norm"] == pytest.approx(100 * count**0.5, rel=1e-4)


def test_nan_metrics_are_left_out_of_the_mean(tmp_path: Path) -> None:
    calls = 0

    def sometimes_nan(model: nn.Module, sample: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        nonlocal calls
        calls += 1
        logged = torch.tensor(float(calls) if calls % 2 else float("nan"))
        return loss(model, sample)[0], {"logged": logged, "never": torch.tensor(float("nan"))}

    run = new_run(tmp_path)
    learn(run, replace(OPTIMIZER, steps=5, gradient_accumulation_steps=2), loss=sometimes_nan)
    (line,) = run.metrics()
    assert line["net/logged"] == 5 and "net/never" not in line  # the mean of 1, 3, 5, 7, 9


def test_deepspeed_is_configured_from_params_or_refused() -> None:
    def configure(hyperparams: Optimizer) -> dict[str, Any]:
        plugin = SimpleNamespace(deepspeed_config={"zero_optimization": {"stage": 2}})
        configure_sharding(
            "net",
            hyperparams,
            SimpleNamespace(num_processes=2, state=SimpleNamespace(deepspeed_plugin=plugin)),
        )
        return plugin.deepspeed_config

    hyperparams = replace(OPTIMIZER, batch_size=12, gradient_accumulation_steps=3, precision="bfloat16")
    config = configure(hyperparams)
    assert config["zero_optimization"] == {"stage": 2} and config["gradient_clipping"] == MAX_GRADIENT_NORM
    assert config["train_micro_batch_size_per_gpu"] == 2 and config["gradient_accumulation_steps"] == 3
    assert config["torch_autocast"]["enabled"]
    with pytest.raises(UserError, match="net: with DeepSpeed precision must be float32 or bfloat16"):
        configure(replace(hyperparams, precision="float16"))


def test_deepspeed_takes_the_paper_preset_as_it_is(tmp_path: Path) -> None:
    network = load_preset("paper", tmp_path).train_diffusion.network
    assert network.max_skipped_steps > 0
    plugin = SimpleNamespace(deepspeed_config={})
    state = SimpleNamespace(deepspeed_plugin=plugin)
    configure_sharding("network", network, SimpleNamespace(num_processes=8, state=state))
    assert plugin.deepspeed_config["train_batch_size"] == 8
    assert plugin.deepspeed_config["train_micro_batch_size_per_gpu"] == 1
    assert plugin.deepspeed_config["torch_autocast"] == {"enabled": True, "dtype": "bfloat16"}


def test_a_sharded_training_ends_at_the_first_step_that_is_not_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DeepSpeed has then changed the weights already; the last checkpoint has not."""
    monkeypatch.setattr(loop, "is_sharded", lambda _: True)
    monkeypatch.setattr(loop, "configure_sharding", lambda *_: None)
    monkeypatch.setattr(loop, "make_train_state", without_engine(loop.make_train_state))
    run = new_run(tmp_path)
    with pytest.raises(UserError, match=r"1 steps were skipped, 0 are allowed"):
        learn(run, replace(OPTIMIZER, max_skipped_steps=25), loss=sometimes_infinite)


def without_engine(make: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given: make(*given[:4])


@pytest.mark.slow(seconds=55)
@pytest.mark.usefixtures("one_thread")
def test_two_processes_learn_as_one_and_continue_after_a_kill(tmp_path: Path) -> None:
    """Two processes with two parts each draw the samples and random numbers of one with four parts.

    Starting processes takes longest: each start trains on new samples, then on cached ones. What is trained
    is not trained again.
    """
    train_on_processes.main(tmp_path / "one", 1, -1, "")
    start_processes(tmp_path / "two", processes=2)
    for samples in ("new", "cached"):
        folder = tmp_path / "killed" / samples
        assert start_processes(tmp_path / "killed", processes=2, killed_at=13, killed=samples) != 0
        assert (folder / "key" / "checkpoints" / "net_00000010.safetensors").exists()
        assert not (folder / "weights.safetensors").exists()
    start_processes(tmp_path / "killed", processes=2)
    for samples in ("new", "cached"):
        folders = {name: tmp_path / name / samples for name in ("one", "two", "killed")}
        one, two, killed = (load_file(folder / "weights.safetensors") for folder in folders.values())
        for name in one:
            torch.testing.assert_close(one[name], two[name], atol=1e-4, rtol=1e-3)
            assert torch.equal(two[name], killed[name])
        lines = {name: repeatable(Run(folder / "key").metrics()) for name, folder in folders.items()}
        assert lines["two"] == lines["killed"] and lines["two"][-1]["net/skipped_steps"] > 0
        assert [pytest.approx(line, rel=1e-2, abs=1e-4) for line in lines["one"]] == lines["two"]


def start_processes(folder: Path, processes: int, killed_at: int = -1, killed: str = "") -> int:
    """Train on new and on cached samples; a process kills itself at a step of the kind `killed`, if any."""
    script = Path(__file__).with_name("train_on_processes.py")
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    variables = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    given = [str(folder), str(processes), str(killed_at), killed]
    done = subprocess.run([sys.executable, *command, script, *given], env=variables, check=not killed)
    return done.returncode
