"""Training of the diffusion inpainter: the recipe's laws, exact continuation, and what svd leaves alone."""

import dataclasses
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conformance.tiny_release import write_release
from safetensors.torch import load_file
from torch import Tensor, nn

from secondeye.inpaint.pipeline import Conditions, predict, time_ids
from secondeye.inpaint.tiny import make_tiny
from secondeye.inpaint.weights import load_pipeline, load_widened
from secondeye.params import Optimisation, TrainDiffusion
from secondeye.refusal import Refusal
from secondeye.runs import Run, open_run
from secondeye.training import diffusion
from secondeye.training.diffusion import (
    TEMPORAL,
    hash_initial,
    make_sample,
    to_working_size,
    train_diffusion,
    velocity_loss,
)
from secondeye.training.samples import Scene, store

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    write_release(folder)
    return folder / "stable-video-diffusion-img2vid-xt-1-1"


def make_scene(frames: int = 3, height: int = 64, width: int = 72, seed: int = 0) -> Scene:
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.rand(frames, 3, height, width, generator=generator) for _ in range(2))
    coverage = torch.ones(frames, 1, height, width)
    coverage[..., 30:40] = 0
    return Scene(left, right, right * coverage, coverage, torch.zeros_like(coverage))


def settings(size: str = "tiny", initial: str = "", steps: int = 2) -> TrainDiffusion:
    optimisation = Optimisation(steps=steps, batch=1, learning_rate=0.01, checkpoint_steps=1, seed=0)
    return TrainDiffusion(size, initial, 64, 64, 2, 0.5, optimisation, optimisation)


def train(runs: Path, of: TrainDiffusion) -> Run:
    run = open_run(runs, "key", "train_diffusion", of, {})
    train_diffusion(run, [store(make_scene(seed=1))], [store(make_scene(seed=2))], of)
    return run


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MEASURED_SCENES", "CHECKED_SCENES", "SHOWN_SCENES", "STEPS"):
        monkeypatch.setattr(diffusion, name, 1)


def test_an_interrupted_training_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tmp_path / "whole", settings())
    draw, calls = diffusion.draw_scene, [0]

    def fail(*arguments: object) -> Scene:
        calls[0] += 1
        if calls[0] in (3, 8):  # once while the autoencoder is trained, once while the network is
            raise KeyboardInterrupt
        return draw(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(diffusion, "draw_scene", fail)
    interruptions = 0
    while not (tmp_path / "cut" / "key" / "pictures").exists():
        try:
            cut = train(tmp_path / "cut", settings())
        except KeyboardInterrupt:
            interruptions += 1
    assert interruptions == 2
    names = {path.relative_to(whole.model) for path in whole.model.rglob("*") if path.is_file()}
    assert names == {path.relative_to(cut.model) for path in cut.model.rglob("*") if path.is_file()}
    for name in names:
        assert (whole.model / name).read_bytes() == (cut.model / name).read_bytes(), name
    assert whole.metrics() == cut.metrics()


def test_what_was_trained_loads_and_is_scored(tmp_path: Path) -> None:
    run = train(tmp_path, settings(steps=1))
    pipeline = load_pipeline(run.model, "cpu")
    assert pipeline.unet.config.num_frames == 2
    assert pipeline.vae.config.scaling_factor not in (0.18215, 1)  # measured, not the class's own
    assert {path.name for path in run.picture("").iterdir()} == {"diffusion.png"}
    scores = {name for line in run.metrics() for name in line} - {"step"}
    assert {"autoencoder/psnr_db", "network/open_psnr_db"} <= scores


# Stable Video Diffusion


def test_a_widened_network_ignores_the_mask_at_first(release: Path) -> None:
    pipeline = load_widened(str(release))
    assert pipeline.unet.conv_in.in_channels == 9
    assert not pipeline.unet.conv_in.weight[:, 8:].any()
    narrow = load_file(release / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    for name, value in pipeline.unet.state_dict().items():
        assert torch.equal(value[:, :8] if name == "conv_in.weight" else value, narrow[name])
    noisy, given = torch.randn(2, 1, 2, 4, 8, 8)
    embedding, ids = torch.randn(1, 1, 32), time_ids(1, 0.0, "cpu")

    def velocity(mask: Tensor) -> Tensor:
        return predict(pipeline.unet, noisy, torch.tensor(0.5), Conditions(given, mask, embedding, ids))

    with torch.no_grad():
        assert torch.equal(velocity(torch.zeros(1, 2, 1, 8, 8)), velocity(torch.ones(1, 2, 1, 8, 8)))


def test_svd_changes_spatial_layers_alone(release: Path, tmp_path: Path) -> None:
    before = load_widened(str(release))
    run = train(tmp_path, settings("svd", str(release), steps=1))
    after = load_pipeline(run.model, "cpu")
    for part in ("vae", "image_encoder"):
        old, new = (getattr(pipeline, part).state_dict() for pipeline in (before, after))
        assert all(torch.equal(old[name], new[name]) for name in old)
    assert after.vae.config.scaling_factor == 0.18215
    old, new = before.unet.state_dict(), after.unet.state_dict()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    spatial = {name for name in old if not any(part in name for part in TEMPORAL)}
    assert changed <= spatial and len(changed) > 0.9 * len(spatial)
    assert new["conv_in.weight"][:, 8:].any()
    assert not any(line for line in run.metrics() if "autoencoder/psnr_db" in line)


def test_svd_that_can_not_be_had_is_refused(release: Path, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="neither a folder with model_index"):
        load_widened(str(tmp_path / "nowhere"))
    with pytest.raises(Refusal, match="neither a folder with model_index"):
        load_widened("nobody/no-such-model")
    make_tiny(2).save_pretrained(tmp_path / "wide")
    with pytest.raises(Refusal, match="this one has 9"):
        load_widened(str(tmp_path / "wide"))


def test_the_key_knows_what_training_begins_with(release: Path, tmp_path: Path) -> None:
    before = hash_initial(settings("svd", str(release)))
    copy = shutil.copytree(release, tmp_path / "elsewhere")
    assert before == hash_initial(settings("svd", str(copy)))
    config = copy / "unet" / "config.json"
    config.write_text(config.read_text() + " ")
    assert before != hash_initial(settings("svd", str(copy)))


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="width must be a multiple of 64, got 96"):
        dataclasses.replace(settings(), width=96)


def test_it_is_judged_on_scenes_not_learnt_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = [store(make_scene(seed=seed)) for seed in range(20)]
    learnt, seen = [], []
    autoencoder, network = diffusion.train_autoencoder, diffusion.train_network

    def spy(teach: Callable[..., None], *given: Any) -> None:
        *rest, draw, draw_held = given
        learnt.append(draw.args[0])
        seen.append(draw_held.args[0])
        teach(*rest, draw, draw_held)

    monkeypatch.setattr(diffusion, "train_autoencoder", partial(spy, autoencoder))
    monkeypatch.setattr(diffusion, "train_network", partial(spy, network))
    train_diffusion(open_run(tmp_path, "key", "train", settings(), {}), scenes, [], settings(steps=1))
    assert [len(kind) for kind in learnt] == [18, 18] and [len(kind) for kind in seen] == [2, 2]


# The recipe


def test_given_frames_are_right_and_their_mask_stays() -> None:
    scene = make_scene(frames=6)
    counts = set()
    for seed in range(40):
        truth, given, holes = make_sample(scene, np.random.default_rng(seed), overlap_frames=3)
        right = [bool(torch.equal(given[t], scene.right[t])) for t in range(6)]
        count = sum(right)
        counts.add(count)
        assert right == [t < count for t in range(6)]
        assert torch.equal(given[count:], scene.warped[count:])
        assert torch.equal(truth, scene.right) and torch.equal(holes, 1 - scene.coverage)
    assert counts == {0, 1, 2, 3}


def test_the_true_velocity_has_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """v = (noise - sigma * latents) / sqrt(sigma^2 + 1)."""
    torch.manual_seed(0)
    pipeline = make_tiny(2)
    scene = make_scene(frames=2, width=64)
    batch = tuple(part[None] for part in make_sample(scene, np.random.default_rng(0), 1))
    with torch.no_grad():
        frames = torch.nn.functional.pixel_unshuffle(scene.right * 2 - 1, 4)
        latents = pipeline.vae.encode(frames).latent_dist.mode()[None] * pipeline.vae.config.scaling_factor

    def true_velocity(_: nn.Module, noisy: Tensor, timestep: Tensor, conditions: Conditions) -> Tensor:
        assert conditions.mask.shape == (1, 2, 1, 8, 8)
        sigma = (timestep / 0.25).exp().view(-1, 1, 1, 1, 1)
        noise = (noisy * (sigma**2 + 1).sqrt() - latents) / sigma
        return (noise - sigma * latents) / (sigma**2 + 1).sqrt()

    monkeypatch.setattr(diffusion, "predict", true_velocity)
    value, parts = velocity_loss(pipeline.unet, pipeline, batch)
    assert float(value) < 1e-6 and float(parts["holes"]) < 1e-6
    monkeypatch.setattr(diffusion, "predict", lambda *given: 1 + true_velocity(*given))
    assert float(velocity_loss(pipeline.unet, pipeline, batch)[0]) == pytest.approx(1, rel=1e-3)


def test_scenes_are_reduced_as_pictures_will_be() -> None:
    scene = store(make_scene(frames=1, height=181, width=190))
    small = to_working_size(scene, make_tiny(2))
    assert small.left.shape == (1, 3, 91, 95) and small.coverage.dtype == torch.uint8
    assert small.coverage.unique().tolist() == [0, 255]
    as_it_was = store(make_scene(frames=1))
    assert to_working_size(as_it_was, make_tiny(2)) is as_it_was
