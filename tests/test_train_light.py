"""Training of the light inpainter: it learns, continues exactly, writes weights and a sample sheet."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_training import an_optimizer
from training_shots import MemoryShot

from secondeye.inpaint import Warped, light_inputs
from secondeye.inpaint import light_network as network
from secondeye.inpaint.light import inpaint_frames, load_light
from secondeye.params import TrainLight
from secondeye.run_folder import Run, open_run, repeatable
from secondeye.synthetic import two_planes
from secondeye.training import light, loop, shot_crops
from secondeye.training.light import train_light
from secondeye.training.monocular import double_warp
from secondeye.training.stereo_shot import ShotPool, StereoShot, dequantize
from secondeye.warp import warp


@pytest.fixture(autouse=True, scope="module")
def small_network() -> Iterator[None]:
    """Train a small network on one thread, which is faster for small arrays."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(light, "CHANNELS", (4, 6, 8))
        patch.setattr(light, "VALIDATION_CROPS", 4)
        yield
    torch.set_num_threads(threads)


def settings(steps: int, learning_rate: float = 0.003, discriminator_start: float = 0.5) -> TrainLight:
    hyperparams = an_optimizer(steps=steps, batch_size=2, learning_rate=learning_rate, checkpoint_every=4)
    return TrainLight(
        height=32,
        width=48,
        mono_share=0.5,
        mono_max_gradient=0.0,
        discriminator_start=discriminator_start,
        discriminator_weight=0.1,
        optimizer=hyperparams,
    )


def toy() -> list[MemoryShot]:
    """Two planes with a dark background behind the near one, which `fill` cannot know."""
    shots = []
    for seed in range(2):
        shot = two_planes(frames=3, height=32, width=64, near_px=12, seed=seed)
        right = shot.right * (1 - 0.9 * shot.right_occlusion.float())
        shots.append(MemoryShot(StereoShot(shot.left, right, *warp(shot.left, shot.disparity))))
    return shots


def mono() -> list[MemoryShot]:
    shot = two_planes(frames=3, height=32, width=64, seed=9)
    return [MemoryShot(double_warp(shot.right, shot.right_disparity))]


def new_run(folder: Path) -> Run:
    folder.mkdir(exist_ok=True)
    return open_run(folder, "key", "train_light", settings(1), {})


def test_training_lowers_the_loss_and_beats_fill(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    train_light(run, ShotPool(toy(), []), settings(60, 0.01, discriminator_start=1.0))
    losses = [line["light/loss"] for line in run.metrics() if "light/loss" in line]
    assert losses[-1] < 0.7 * losses[0]
    (scores,) = [line for line in run.metrics() if "light/hole_psnr_db" in line]
    assert scores["light/hole_psnr_db"] > scores["light/fill_hole_psnr_db"] + 2


@pytest.fixture(scope="module")
def whole(small_network: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Train without interruption."""
    run = new_run(tmp_path_factory.mktemp("whole"))
    train_light(run, ShotPool(toy(), mono()), settings(9))
    return run


# Before the first checkpoint, between two of them and at the second. The discriminator is trained from the
# fifth step on.
@pytest.mark.parametrize("killed_in", [2, 6, 8])
def test_a_killed_training_ends_with_the_same_weights(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_in: int
) -> None:
    killed = new_run(tmp_path / "killed")
    draws, gather = [0], light.stack_inputs

    def gather_until_killed(*arguments: object) -> torch.Tensor:
        draws[0] += 1
        if draws[0] > 2 * 2 * killed_in:  # two frames of each sample, two samples a step
            raise KeyboardInterrupt
        return gather(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(light, "stack_inputs", gather_until_killed)
    with pytest.raises(KeyboardInterrupt):
        train_light(killed, ShotPool(toy(), mono()), settings(9))
    left = [f"light_{steps:08d}.safetensors" for steps in (4, 8) if steps <= killed_in]
    assert sorted(path.name for path in killed.checkpoints.iterdir()) == left
    monkeypatch.setattr(light, "stack_inputs", gather)
    train_light(killed, ShotPool(toy(), mono()), settings(9))

    files = [whole.model / "model.safetensors", killed.model / "model.safetensors"]
    files += [run.checkpoints / "light_00000009.safetensors" for run in (whole, killed)]
    for one, other in (
        files[:2],
        files[2:],
    ):  # the inpainter; checkpoints with the discriminator and all moments
        weights, again = load_file(one), load_file(other)
        assert weights.keys() == again.keys()
        assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert repeatable(killed.metrics()) == repeatable(whole.metrics())


@pytest.mark.slow(seconds=6)
def test_workers_do_not_change_the_weights(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECONDEYE_LOADER_WORKERS", "2")
    run = new_run(tmp_path / "workers")
    here: list[str] = []
    monkeypatch.setattr(light.DrawCrop, "__call__", lambda *_: here.append("drawn in the training"))
    with monkeypatch.context() as patch:
        patch.setattr(light, "_validate", lambda *_: {})
        patch.setattr(light, "_write_sheet", lambda *_: None)
        patch.setattr(light, "VALIDATION_CROPS", 0)
        patch.setattr(light, "SHEET_CROPS", 0)
        train_light(run, ShotPool(toy(), mono()), settings(9))
    wanted, found = (load_file(one.model / "model.safetensors") for one in (whole, run))
    assert all(torch.equal(weights, found[name]) for name, weights in wanted.items()) and not here


def make_trainer(steps: int) -> tuple[light.LightTrainer, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    trainer = light.LightTrainer(network.Light((4, 6, 8)), settings(10))
    torch.nn.init.normal_(trainer.inpainter.tail.weight, std=0.5)
    trainer.steps += steps
    drawn = light.DrawCrop(ShotPool(toy(), []), settings(10))(0, np.random.default_rng(3))
    return trainer, tuple(column[None] for column in drawn)


def test_the_discriminator_starts_at_its_step() -> None:
    for steps, adversarial in ((4, False), (5, True)):
        trainer, batch = make_trainer(steps)
        value, parts = trainer(batch)
        value.backward()
        assert ("discriminator" in parts) == adversarial and int(trainer.steps) == steps + 1
        changed = [
            bool(weights.grad.any())
            for weights in trainer.discriminator.parameters()
            if weights.grad is not None
        ]
        assert len(changed) == 8 and any(changed) == adversarial


def test_the_discriminator_waits_for_steps_not_for_their_parts() -> None:
    by_three = replace(
        settings(10), optimizer=an_optimizer(steps=10, batch_size=3, gradient_accumulation_steps=3)
    )
    assert light.LightTrainer(network.Light((4, 6, 8)), by_three).discriminator_start == 3 * 5


def test_discriminator_and_inpainter_learn_from_their_own_loss_only() -> None:
    trainer, batch = make_trainer(5)
    _, parts = trainer(batch)
    for part, learns, rests in (
        ("generator", trainer.inpainter, trainer.discriminator),
        ("discriminator", trainer.discriminator, trainer.inpainter),
    ):
        gradients = {
            net: torch.autograd.grad(
                parts[part], list(net.parameters()), retain_graph=True, allow_unused=True
            )
            for net in (learns, rests)
        }
        assert any(found is not None and found.any() for found in gradients[learns])
        assert not any(found is not None and found.any() for found in gradients[rests])


def test_it_is_validated_on_held_out_films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[str] = set()

    class Watched(MemoryShot):
        def read(self, frames: Sequence[int]) -> StereoShot:
            read.add(self.film)
            return super().read(frames)

    pool = ShotPool([Watched(shot.shot, str(n)) for n, shot in enumerate(toy() * 10)], [])

    def start_training(*given: Any, **named: Any) -> torch.nn.Module:
        def start_validation(model: torch.nn.Module) -> Any:
            of["drawn"] = set(read)
            read.clear()
            return named["validate"](model)

        return loop.training_loop(*given, **named | {"validate": start_validation})

    of: dict[str, set[str]] = {}
    monkeypatch.setattr(light, "training_loop", start_training)
    train_light(new_run(tmp_path), pool, settings(12))
    assert read == {"9", "19"} and len(of["drawn"]) > 5 and not of["drawn"] & read


def test_a_run_has_weights_that_load_and_a_sample_sheet(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    train_light(run, ShotPool(toy(), mono()), settings(1))
    load_light(run.model, "cpu")
    image = cv2.imread(str(run.picture("light.png")))
    assert image is not None and image.shape == (4 * 32 * 2, 6 * 48 * 2, 3)


def test_a_sample_depends_on_its_number_and_generator_alone() -> None:
    draw = light.DrawCrop(ShotPool(toy(), []), settings(10))
    draw(7, np.random.default_rng(0))
    first, again = (draw(1, np.random.default_rng(4)) for _ in range(2))
    assert all(torch.equal(*columns) for columns in zip(first, again, strict=True))
    planes, holes, flow, truth = first
    assert planes.shape == (2, light_inputs.INPUT_CHANNELS, 32, 48) and holes.shape == (2, 1, 32, 48)
    assert flow.shape == (2, 32, 48)
    seen = (planes[1, light_inputs.COVERAGE] == 1).expand_as(truth)
    torch.testing.assert_close(planes[1, light_inputs.FILLED][seen], truth[seen], atol=1e-6, rtol=0)


def test_training_inputs_equal_those_of_inpainting() -> None:
    """The second frame of a whole shot is inpainted the same way in training and in use."""
    shot = toy()[0].read([0, 1])
    crop = shot_crops.ShotCrop(0, 0, 32, 64, flipped=False, gain=(1.0, 1.0, 1.0))
    torch.manual_seed(0)
    model = network.Light((4, 6, 8)).eval()
    torch.nn.init.normal_(model.tail.weight, std=0.5)
    sample = light.make_sample(shot, crop, np.random.default_rng(1))
    assert sample[2].abs().max() < light.FAR_AWAY_PX  # not taken for a first frame
    left, _, warped, coverage, disparity = dequantize(shot)
    used, _ = inpaint_frames(model, Warped(left, warped, coverage, disparity), None)
    with torch.no_grad():
        filled, trained = light._inpaint(model, tuple(column[None] for column in sample))
    torch.testing.assert_close(trained[0].clamp(0, 1), used[1], atol=0.02, rtol=0)
    assert (trained - filled).abs().max() > 0.2
