"""Training the light inpainter: it learns, goes on where it was killed, leaves weights and a picture."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conftest import an_optimizer
from safetensors.torch import load_file

from secondeye.inpaint import Warped
from secondeye.inpaint import light_network as network
from secondeye.inpaint.light import inpaint_frames, load_light
from secondeye.params import TrainLight
from secondeye.run_folder import Run, open_run, repeatable
from secondeye.synthetic import two_planes
from secondeye.training import light, loop, samples
from secondeye.training.light import train_light
from secondeye.training.monocular import double_warp
from secondeye.training.scene import Scene, store
from secondeye.warp import warp


@pytest.fixture(autouse=True)
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(light, "CHANNELS", (4, 6, 8))
    monkeypatch.setattr(light, "CHECKED_WINDOWS", 4)


def settings(steps: int, learning_rate: float = 0.003, discriminator_start: float = 0.5) -> TrainLight:
    hyperparams = an_optimizer(steps=steps, batch_size=2, learning_rate=learning_rate, checkpoint_every=4)
    return TrainLight(
        height=32,
        width=48,
        mono_share=0.5,
        discriminator_start=discriminator_start,
        discriminator_weight=0.1,
        optimizer=hyperparams,
    )


def toy() -> list[Scene]:
    """Cards whose background behind the near one is dark, which `fill` can not know."""
    scenes = []
    for seed in range(2):
        shot = two_planes(frames=3, height=32, width=64, near_px=12, seed=seed)
        right = shot.right * (1 - 0.9 * shot.right_occlusion.float())
        scenes.append(store(Scene(shot.left, right, *warp(shot.left, shot.disparity))))
    return scenes


def mono() -> list[Scene]:
    shot = two_planes(frames=3, height=32, width=64, seed=9)
    return [store(double_warp(shot.right, shot.right_disparity))]


def new_run(folder: Path) -> Run:
    folder.mkdir(exist_ok=True)
    return open_run(folder, "key", "train_light", settings(1), {})


def test_it_learns_what_holes_have_in_common(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    train_light(run, toy(), [], settings(60, 0.01, discriminator_start=1.0))
    losses = [line["light/loss"] for line in run.metrics() if "light/loss" in line]
    assert losses[-1] < 0.7 * losses[0]
    (scores,) = [line for line in run.metrics() if "light/open_psnr_db" in line]
    assert scores["light/open_psnr_db"] > scores["light/fill_open_psnr_db"] + 2


@pytest.mark.parametrize("killed_in", [2, 4, 6, 8])  # the judge learns from the fifth step on
def test_killed_training_ends_in_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_in: int
) -> None:
    whole = new_run(tmp_path / "whole")
    train_light(whole, toy(), mono(), settings(9))

    killed = new_run(tmp_path / "killed")
    draws, gather = [0], light.stack_inputs

    def gather_until_killed(*arguments: object) -> torch.Tensor:
        draws[0] += 1
        if draws[0] > 2 * (4 + 2 * killed_in):  # two frames each: those that are checked, then steps of two
            raise KeyboardInterrupt
        return gather(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(light, "stack_inputs", gather_until_killed)
    with pytest.raises(KeyboardInterrupt):
        train_light(killed, toy(), mono(), settings(9))
    left = [f"light_{steps:08d}.safetensors" for steps in (4, 8) if steps <= killed_in]
    assert sorted(path.name for path in killed.checkpoints.iterdir()) == left
    monkeypatch.setattr(light, "stack_inputs", gather)
    train_light(killed, toy(), mono(), settings(9))

    files = [whole.model / "model.safetensors", killed.model / "model.safetensors"]
    files += [run.checkpoints / "light_00000009.safetensors" for run in (whole, killed)]
    for one, other in (files[:2], files[2:]):  # the inpainter; it, its judge and both their moments
        weights, again = load_file(one), load_file(other)
        assert weights.keys() == again.keys()
        assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert repeatable(killed.metrics()) == repeatable(whole.metrics())


def lesson(steps: int) -> tuple[light.Taught, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    taught = light.Taught(network.Light((4, 6, 8)), settings(10))
    torch.nn.init.normal_(taught.painter.tail.weight, std=0.5)
    taught.steps += steps
    scenes = toy()
    window = light.draw_window(scenes, [], 0.5, 32, 48, 2, np.random.default_rng(3))
    drawn = light._sample(
        scenes[window.scene], light._fill_scene(scenes[window.scene]), window, np.random.default_rng(4)
    )
    return taught, tuple(column[None] for column in drawn)


def test_the_judge_begins_at_its_step() -> None:
    for steps, judged in ((4, False), (5, True)):
        taught, batch = lesson(steps)
        value, parts = taught(batch)
        value.backward()
        assert ("judging" in parts) == judged and int(taught.steps) == steps + 1
        changed = [
            bool(weights.grad.any()) for weights in taught.judge.parameters() if weights.grad is not None
        ]
        assert len(changed) == 8 and any(changed) == judged


def test_the_judge_waits_for_steps_and_not_for_their_parts() -> None:
    by_three = replace(
        settings(10), optimizer=an_optimizer(steps=10, batch_size=3, gradient_accumulation_steps=3)
    )
    assert light.Taught(network.Light((4, 6, 8)), by_three).judged_from == 3 * 5


def test_judge_and_painter_learn_from_their_own_loss_only() -> None:
    taught, batch = lesson(5)
    _, parts = taught(batch)
    for part, learns, rests in (
        ("fooling", taught.painter, taught.judge),
        ("judging", taught.judge, taught.painter),
    ):
        gradients = {
            net: torch.autograd.grad(
                parts[part], list(net.parameters()), retain_graph=True, allow_unused=True
            )
            for net in (learns, rests)
        }
        assert any(found is not None and found.any() for found in gradients[learns])
        assert not any(found is not None and found.any() for found in gradients[rests])


def test_it_is_judged_on_scenes_not_learnt_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = [
        Scene(*(plane.clone() for plane in scene.planes), film=str(place))
        for place, scene in enumerate(toy() * 10)
    ]
    of: dict[str, set[int]] = {"drawn": set(), "judged": set()}
    sample = light._sample
    judging = True  # the checked windows are drawn first

    def note(scene: Scene, *given: object) -> tuple[torch.Tensor, ...]:
        of["judged" if judging else "drawn"].add(id(scene.left))
        return sample(scene, *given)  # type: ignore[arg-type]

    def teach(*given: Any, **named: Any) -> torch.nn.Module:
        nonlocal judging
        judging = False
        return loop.training_loop(*given, **named)

    monkeypatch.setattr(light, "_sample", note)
    monkeypatch.setattr(light, "training_loop", teach)
    train_light(new_run(tmp_path), scenes, [], settings(12))
    assert of["judged"] <= {id(scene.left) for scene in scenes[9::10]} and of["judged"]
    assert len(of["drawn"]) > 5 and not of["drawn"] & of["judged"]


def test_a_run_leaves_weights_that_load_and_a_picture(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    train_light(run, toy(), mono(), settings(1))
    load_light(run.model, "cpu")
    picture = cv2.imread(str(run.picture("light.png")))
    assert picture is not None and picture.shape == (4 * 32 * 2, 4 * 48 * 2, 3)


def test_a_sample_depends_on_its_generator_alone() -> None:
    scenes = toy()
    filled = [light._fill_scene(scene) for scene in scenes]
    window = light.draw_window(scenes, [], 0.5, 32, 48, 2, np.random.default_rng(3))
    chosen = scenes[window.scene], filled[window.scene], window
    first, again = (light._sample(*chosen, np.random.default_rng(4)) for _ in range(2))
    assert all(torch.equal(*columns) for columns in zip(first, again, strict=True))
    planes, open_, flow, truth = first
    assert planes.shape == (2, network.INPUT_CHANNELS, 32, 48) and open_.shape == (2, 1, 32, 48)
    assert flow.shape == (2, 32, 48)
    seen = (open_[1] == 0).expand_as(truth)
    torch.testing.assert_close(planes[1, network.FILLED][seen], truth[seen], atol=1e-6, rtol=0)


def test_training_sees_what_painting_sees() -> None:
    """The second frame of a whole scene is painted alike in training and in use."""
    scene = toy()[0]
    window = samples.SceneWindow(0, 0, 2, 0, 0, 32, 64, flipped=False, gain=(1.0, 1.0, 1.0))
    torch.manual_seed(0)
    model = network.Light((4, 6, 8)).eval()
    torch.nn.init.normal_(model.tail.weight, std=0.5)
    sample = light._sample(scene, light._fill_scene(scene), window, np.random.default_rng(1))
    assert sample[2].abs().max() < light.FAR_AWAY_PX  # not taken for a first frame
    left, _, warped, coverage, disparity = (samples.cut(plane, window) for plane in scene.planes)
    used, _ = inpaint_frames(model, Warped(left, warped, coverage, disparity), None)
    with torch.no_grad():
        filled, trained = light._paint(model, tuple(column[None] for column in sample))
    torch.testing.assert_close(trained[0].clamp(0, 1), used[1], atol=0.02, rtol=0)
    assert (trained - filled).abs().max() > 0.2
