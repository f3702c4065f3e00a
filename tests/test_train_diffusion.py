"""Training of the diffusion inpainter: the recipe's laws, exact continuation, and what svd leaves alone."""

import dataclasses
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conformance.tiny_release import write_release
from conftest import an_optimizer, load_preset
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.testing import assert_close

from secondeye.evaluation.baselines import fill_nearest
from secondeye.imaging.arrays import occlusion_mask
from secondeye.inpaint import Warped
from secondeye.inpaint.autoencoder import decode, encode
from secondeye.inpaint.conditions import Conditions, time_ids
from secondeye.inpaint.denoising import predict_velocity
from secondeye.inpaint.diffusion import downscale_factor, inpaint_warped
from secondeye.inpaint.pipeline import StereoInpaintPipeline
from secondeye.inpaint.sampling import RELEASE_SAMPLING
from secondeye.inpaint.tiny import make_tiny
from secondeye.inpaint.weights import load_pipeline, load_widened
from secondeye.params import TrainDiffusion
from secondeye.run_folder import Run, open_run, repeatable
from secondeye.synthetic import render_shot
from secondeye.system.errors import UserError
from secondeye.training import conditioning, diffusion
from secondeye.training import v_prediction as velocity
from secondeye.training.cached_samples import draw_cached
from secondeye.training.conditioning import Batch, condition, drop, paint_first
from secondeye.training.diffusion import (
    foreign_weights,
    make_pipeline,
    make_sample,
    to_working_size,
    train_autoencoder,
    train_diffusion,
    train_network,
)
from secondeye.training.sample_sheet import write_sample_sheet
from secondeye.training.scene import Scene, store
from secondeye.training.v_prediction import NOISE_LEVELS, velocity_loss
from secondeye.warp import warp

pytestmark = pytest.mark.usefixtures("one_thread")

PROJECT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    write_release(folder)
    return folder / "stable-video-diffusion-img2vid-xt-1-1"


def make_scene(
    frames: int = 3, height: int = 64, width: int = 72, seed: int = 0, film: str = "film"
) -> Scene:
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.rand(frames, 3, height, width, generator=generator) for _ in range(2))
    coverage = torch.ones(frames, 1, height, width)
    coverage[..., 30:40] = 0
    return Scene(left, right, right * coverage, coverage, torch.zeros_like(coverage), film)


def settings(
    size: str = "tiny", initial: str = "", steps: int = 2, method: str = "many_steps", cached: int = 0
) -> TrainDiffusion:
    hyperparams = an_optimizer(steps=steps, batch_size=1, learning_rate=0.01, checkpoint_every=1)
    return TrainDiffusion(
        size=size,
        pretrained=initial,
        method=method,
        height=64,
        width=64,
        frames=2,
        mono_share=0.5,
        conditioning_dropout=0.0,
        cached_samples=cached,
        vgg_weights="",
        autoencoder=hyperparams,
        network=hyperparams,
    )


def train(runs: Path, of: TrainDiffusion) -> Run:
    run = open_run(runs, "key", "train_diffusion", of, {})
    train_diffusion(run, [store(make_scene(seed=1))], [store(make_scene(seed=2))], of)
    return run


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MEASURED_SCENES", "CHECKED_SCENES", "SHOWN_SCENES", "STEPS"):
        monkeypatch.setattr(diffusion, name, 1)


@pytest.mark.parametrize(("method", "cached"), [("many_steps", 0), ("many_steps", 50), ("one_step", 0)])
def test_an_interrupted_training_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, cached: int
) -> None:
    of = settings(method=method, cached=cached)
    whole = train(tmp_path / "whole", of)
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
            cut = train(tmp_path / "cut", of)
        except KeyboardInterrupt:
            interruptions += 1
    assert interruptions == 2
    names = {path.relative_to(whole.model) for path in whole.model.rglob("*") if path.is_file()}
    assert names == {path.relative_to(cut.model) for path in cut.model.rglob("*") if path.is_file()}
    for name in names:
        assert (whole.model / name).read_bytes() == (cut.model / name).read_bytes(), name
    assert repeatable(whole.metrics()) == repeatable(cut.metrics())


def test_what_was_trained_loads_and_is_scored(tmp_path: Path) -> None:
    run = train(tmp_path, settings(steps=1))
    pipeline = load_pipeline(run.model, "cpu")
    assert pipeline.unet.config.num_frames == 2 and not pipeline.one_step
    assert pipeline.config.overlap_mask == "cleared"
    assert pipeline.vae.config.scaling_factor not in (0.18215, 1)  # measured, not the class's own
    assert {path.name for path in run.picture("").iterdir()} == {"diffusion.png"}
    scores = {name for line in run.metrics() for name in line} - {"step"}
    assert {"autoencoder/psnr_db", "network/open_psnr_db", "network/holes"} <= scores
    levels = {name for name in scores if name.startswith("network/loss_")}
    assert len(levels) == 1 and levels < {f"network/loss_{level}" for level in NOISE_LEVELS}  # of one clip


def test_a_picture_that_can_not_be_written_is_one_line(tmp_path: Path) -> None:
    sheet = np.zeros((4, 4, 3), np.uint8)
    sheet[..., 0] = 255  # red
    write_sample_sheet(tmp_path / "sheet.png", sheet)
    assert cv2.imread(str(tmp_path / "sheet.png"))[0, 0].tolist() == [0, 0, 255]
    with pytest.raises(UserError, match=r"sheet.png: can not be written; free some disk"):
        write_sample_sheet(tmp_path / "nowhere" / "sheet.png", sheet)


def test_scenes_without_a_hole_have_a_score(tmp_path: Path) -> None:
    whole = make_scene(width=64)._replace(coverage=torch.ones(3, 1, 64, 64))  # nothing to crop: no border
    run = open_run(tmp_path, "k", "train_diffusion", settings(steps=1), {})
    train_diffusion(run, [store(whole)], [], dataclasses.replace(settings(steps=1), mono_share=0.0))
    assert run.metrics()[-1]["network/open_psnr_db"] == 100


def test_one_step_trains_a_network_of_one_step(tmp_path: Path) -> None:
    run = train(tmp_path, settings(steps=1, method="one_step"))
    assert load_pipeline(run.model, "cpu").one_step
    assert "network/latents" in run.metrics()[-2] and "network/open_psnr_db" in run.metrics()[-1]
    with pytest.raises(ValueError, match="conditioning_dropout must be 0 for method one_step"):
        dataclasses.replace(settings(method="one_step"), conditioning_dropout=0.1)
    with pytest.raises(ValueError, match="cached_samples must be 0 for method one_step"):
        settings(method="one_step", cached=1)
    with pytest.raises(ValueError, match="vgg_weights must be empty unless method is one_step"):
        dataclasses.replace(settings(), vgg_weights="timm/vgg16.tv_in1k")


def test_the_weights_of_lpips_are_among_what_a_run_depends_on(vgg16_folder: Path, tmp_path: Path) -> None:
    def found(weights: Path) -> dict[str, str]:
        return foreign_weights(dataclasses.replace(settings(method="one_step"), vgg_weights=str(weights)))

    other = tmp_path / "other"
    shutil.copytree(vgg16_folder, other)
    assert found(vgg16_folder) == found(other) and found(other).keys() == {"lpips"}
    weights = load_file(other / "model.safetensors")
    save_file({**weights, "features.0.bias": weights["features.0.bias"] + 1}, other / "model.safetensors")
    assert found(vgg16_folder) != found(other)
    with pytest.raises(UserError, match=r"nowhere: neither a folder with VGG16's model.safetensors"):
        found(tmp_path / "nowhere")
    assert foreign_weights(settings()) == {}


def test_small_has_at_most_twenty_million_weights_and_all_of_its_network_learns(tmp_path: Path) -> None:
    of = dataclasses.replace(load_preset("small", tmp_path).train_inpaint.diffusion, frames=2)
    pipeline = make_pipeline(of)
    modules = (pipeline.vae, pipeline.image_encoder, pipeline.unet)
    assert 15e6 < sum(weights.numel() for module in modules for weights in module.parameters()) <= 20e6
    assert downscale_factor(pipeline, 288, 512) == 1, "it sees the preset's clips as they are"
    value, _ = velocity_loss(pipeline.unet, pipeline, make_batch(clips=1), dropout=0.0)
    value.backward()
    assert all(weights.grad is not None for weights in pipeline.unet.parameters())


# Stable Video Diffusion

# In the names of the release's layers that see time, or tell the network when it is.
FROZEN = (".temporal_", ".time_mixer.", ".time_pos_embed.", "time_embedding.", "add_embedding.")
TRAINED, KEPT = 680, 746  # tensors; 682 and 746 in the release, which widens once more


def test_a_widened_network_ignores_the_mask_at_first(release: Path) -> None:
    pipeline = load_widened(str(release))
    assert pipeline.unet.conv_in.in_channels == 9
    assert not pipeline.unet.conv_in.weight[:, 8:].any()
    narrow = load_file(release / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    for name, value in pipeline.unet.state_dict().items():
        assert torch.equal(value[:, :8] if name == "conv_in.weight" else value, narrow[name])
    noisy, given = torch.randn(2, 1, 2, 4, 8, 8)
    embedding, ids = torch.randn(1, 1, 32), time_ids(1, RELEASE_SAMPLING, "cpu")

    def velocity(mask: Tensor) -> Tensor:
        return predict_velocity(
            pipeline.unet, noisy, torch.tensor(0.5), Conditions(given, mask, embedding, ids)
        )

    with torch.no_grad():
        assert torch.equal(velocity(torch.zeros(1, 2, 1, 8, 8)), velocity(torch.ones(1, 2, 1, 8, 8)))


def test_svd_changes_spatial_layers_alone(release: Path, tmp_path: Path) -> None:
    """Every weight of the real layout is either trained, and moves, or frozen, and keeps its bits."""
    before = load_widened(str(release))
    run = train(tmp_path, settings("svd", str(release), steps=2))
    after = load_pipeline(run.model, "cpu")
    for part in ("vae", "image_encoder"):
        old, new = (getattr(pipeline, part).state_dict() for pipeline in (before, after))
        assert all(torch.equal(old[name], new[name]) for name in old)
    assert after.vae.config.scaling_factor == 0.18215
    assert after.unet.config.num_frames == settings("svd", str(release), steps=2).frames
    old, new = before.unet.state_dict(), after.unet.state_dict()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    frozen = {name for name in old if any(part in name for part in FROZEN)}
    assert changed == old.keys() - frozen
    assert (len(changed), len(frozen)) == (TRAINED, KEPT)
    assert new["conv_in.weight"][:, 8:].any()
    assert not any(line for line in run.metrics() if "autoencoder/psnr_db" in line)


def test_a_batch_that_can_not_be_shared_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    wrong = settings("tiny", "", steps=2)
    wrong = replace(wrong, network=replace(wrong.network, batch_size=3, gradient_accumulation_steps=2))
    with pytest.raises(UserError, match=r"network: .* can not share a batch of 3"):
        train(tmp_path, wrong)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_svd_that_can_not_be_had_is_refused(release: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model_index.json is missing; name the folder of a complete model"):
        load_widened(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="neither a folder with model_index"):
        load_widened("nobody/no-such-model")
    make_tiny(2).save_pretrained(tmp_path / "wide")
    with pytest.raises(UserError, match="this one has 9"):
        load_widened(str(tmp_path / "wide"))


def test_the_key_knows_what_training_begins_with(release: Path, tmp_path: Path) -> None:
    before = foreign_weights(settings("svd", str(release)))
    copy = shutil.copytree(release, tmp_path / "elsewhere")
    assert before == foreign_weights(settings("svd", str(copy)))
    config = copy / "unet" / "config.json"
    config.write_text(config.read_text() + " ")
    assert before != foreign_weights(settings("svd", str(copy)))


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 64"):
        dataclasses.replace(settings(), width=96)


def test_it_is_judged_on_scenes_not_learnt_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = [store(make_scene(seed=seed, film=f"film {seed}")) for seed in range(20)]
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


@pytest.fixture(scope="module")
def pipeline() -> StereoInpaintPipeline:
    torch.manual_seed(0)
    return make_tiny(2)


def make_batch(clips: int = 2, frames: int = 2) -> Batch:
    scenes = [make_scene(frames=frames, width=64, seed=seed) for seed in range(clips)]
    return Batch(*(torch.stack(planes) for planes in zip(*map(make_sample, scenes), strict=True)))


def round_trip(pipeline: StereoInpaintPipeline, clip: Tensor) -> Tensor:
    latents = encode(pipeline.vae, clip * 2 - 1) * pipeline.vae.config.scaling_factor
    return (decode(pipeline.vae, latents, 8) / 2 + 0.5).clamp(0, 1)


def test_a_sample_is_the_scene_with_what_was_not_seen() -> None:
    scene = make_scene()
    truth, given, holes, left = make_sample(scene)
    for plane, wanted in ((truth, scene.right), (given, scene.warped), (left, scene.left)):
        assert torch.equal(plane, wanted)
    assert torch.equal(holes, 1 - scene.coverage)


@torch.no_grad()
def test_painted_frames_are_composed_as_a_shot_is(
    pipeline: StereoInpaintPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warped where seen, the autoencoder's truth where not, and no longer a hole."""
    monkeypatch.setattr(conditioning, "PAINTED_NOISE", 0.0)
    monkeypatch.setattr(conditioning, "PAINTED_SHIFT", 0.0)
    batch = make_batch(clips=6, frames=4)
    torch.manual_seed(1)
    painted = paint_first(pipeline, batch)
    assert painted.truth is batch.truth and painted.left is batch.left
    for truth, given, holes, first, mask in zip(*batch[:3], *painted[1:3], strict=True):
        count = next(n for n in range(4) if mask[n].any())  # every frame has a hole
        assert torch.equal(given[count:], first[count:]) and torch.equal(holes[count:], mask[count:])
        if count:
            wanted = round_trip(pipeline, truth[:count])
            seen = (holes[:count] == 0).expand_as(wanted)
            assert torch.equal(first[:count][seen], given[:count][seen])
            assert_close(first[:count][~seen], wanted[~seen])


@torch.no_grad()
def test_painted_frames_are_a_little_off_in_light_and_colour(pipeline: StereoInpaintPipeline) -> None:
    batch = make_batch(clips=8, frames=2)
    torch.manual_seed(0)
    painted = paint_first(pipeline, batch)
    begun = [clip for clip in range(8) if not painted.holes[clip, 0].any()]
    assert 0 < len(begun) < 8
    for clip in begun:
        off = painted.given[clip, :1] - round_trip(pipeline, batch.truth[clip, :1])
        off = off[batch.holes[clip, :1].bool().expand_as(off)]
        assert 1e-3 < off.abs().mean() < 0.1


def test_half_of_all_clips_begin_with_painted_frames_and_none_is_painted_whole() -> None:
    torch.manual_seed(0)
    counts = [conditioning._draw_count(5) for _ in range(1000)]
    assert 450 < counts.count(0) < 550
    assert all(90 < counts.count(count) < 160 for count in (1, 2, 3, 4)) and max(counts) == 4


def test_the_network_is_told_what_it_is_told_when_it_paints(pipeline: StereoInpaintPipeline) -> None:
    batch = make_batch()
    latents, told = condition(pipeline, batch)
    factor = pipeline.vae.config.scaling_factor
    for clip in range(2):
        with torch.no_grad():
            assert_close(told.latents[clip], encode(pipeline.vae, batch.given[clip] * 2 - 1))
            assert_close(latents[clip], encode(pipeline.vae, batch.truth[clip] * 2 - 1) * factor)
    assert told.time_ids.tolist() == [[6, 127, 0]] * 2 and told.left is None
    assert told.mask.shape == (2, 2, 1, 8, 8) and told.embedding.shape == (2, 1, 32)
    assert told.mask[..., 3:5].all() and told.mask.sum() == 2 * 2 * 2 * 8  # pixels 30 to 39


def test_cached_samples_are_drawn_once_and_met_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two samples for six steps: each is drawn and encoded once, and has other noise at every step."""
    of = settings(cached=2)
    of = dataclasses.replace(of, network=dataclasses.replace(of.network, steps=6, learning_rate=0.0))
    drawn, met = 0, []

    def draw(rng: np.random.Generator) -> Scene:
        nonlocal drawn
        drawn += 1
        return make_scene(frames=2, width=64, seed=int(rng.integers(1000)))

    def learn(_: object, latents: Tensor, told: Conditions, *, dropout: float) -> Any:
        met.append((latents, *told[:4], torch.rand(())))
        return velocity.velocity_error(pipeline.unet, latents, told, dropout=dropout)

    monkeypatch.setattr(diffusion, "velocity_error", learn)
    pipeline, run = make_pipeline(of), open_run(tmp_path, "key", "train", of, {})
    train_network(pipeline, run, of, draw, lambda _: make_scene(frames=2, width=64))
    assert drawn == len(list((run.checkpoints / "samples").iterdir())) == 2 and len(met) == 6
    for sample in met:
        alike = [all(map(torch.equal, sample[:5], other[:5])) for other in met]
        assert 0 < sum(alike) < 6
    assert len({float(chance) for *_, chance in met}) == 6
    assert not torch.equal(met[0][0], torch.zeros_like(met[0][0]))


def test_a_cached_sample_does_not_depend_on_who_made_it_nor_when(tmp_path: Path) -> None:
    made: list[int] = []

    def make(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        made.append(int(rng.integers(1000)))
        return torch.rand(2, 3), torch.tensor(made[-1])

    def draw(seed: int) -> tuple[Tensor, ...]:
        torch.manual_seed(seed)
        return draw_cached(tmp_path / "samples", 1, 7, make, np.random.default_rng(seed))

    first, again = draw(1), draw(2)
    (path,) = (tmp_path / "samples").iterdir()
    whole = path.read_bytes()
    path.unlink()  # the tensors lie in it
    path.write_bytes(whole[:-1])  # as a broken disk leaves it
    anew = draw(3)
    assert len(made) == 2 and made[0] == made[1]
    for planes in zip(first, again, anew, strict=True):
        assert all(torch.equal(planes[0], plane) for plane in planes)
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["00000000.safetensors"]


def test_dropout_takes_all_a_clip_is_told_of_at_once(pipeline: StereoInpaintPipeline) -> None:
    _, told = condition(pipeline, make_batch(clips=16))
    torch.manual_seed(0)
    dropped = drop(told, 0.3)
    gone = [~part.flatten(1).any(dim=1) for part in (dropped.latents, dropped.mask, dropped.embedding)]
    assert torch.equal(gone[0], gone[1]) and torch.equal(gone[0], gone[2]) and 1 <= gone[0].sum() <= 9
    assert torch.equal(dropped.time_ids, told.time_ids)
    for before, after in zip(told[:3], dropped[:3], strict=True):
        assert torch.equal(before[~gone[0]], after[~gone[0]])
    assert all(torch.equal(*parts) for parts in zip(drop(told, 0.0)[:4], told[:4], strict=True))
    assert not drop(told, 1.0).embedding.any()


def spy(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[Tensor, Tensor], Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """Have a function of the noisy latents and sigma in the network's place; returns what it was given."""
    seen = []

    def predict_velocity(_: nn.Module, noisy: Tensor, timestep: Tensor, __: Conditions) -> Tensor:
        sigma = (timestep / 0.25).exp().view(-1, 1, 1, 1, 1)
        seen.append((noisy, sigma))
        return answer(noisy, sigma)

    monkeypatch.setattr(velocity, "predict_velocity", predict_velocity)
    return seen


def test_the_true_velocity_has_no_loss(
    pipeline: StereoInpaintPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """v = (noise - sigma * latents) / sqrt(sigma^2 + 1), where x = latents + sigma * noise."""
    batch = make_batch()
    latents, _ = condition(pipeline, batch)

    def velocity(noisy: Tensor, sigma: Tensor) -> Tensor:
        noise = (noisy * (sigma**2 + 1).sqrt() - latents) / sigma
        return (noise - sigma * latents) / (sigma**2 + 1).sqrt()

    spy(monkeypatch, velocity)
    value, parts = velocity_loss(pipeline.unet, pipeline, batch, dropout=0.0)
    assert float(value) < 1e-6 and float(parts["holes"]) < 1e-6
    spy(monkeypatch, lambda noisy, sigma: 1 + velocity(noisy, sigma))
    value, parts = velocity_loss(pipeline.unet, pipeline, batch, dropout=0.0)
    assert float(value) == pytest.approx(1, rel=1e-3) and float(parts["holes"]) == pytest.approx(1, rel=1e-3)


def test_the_loss_is_edms_weighted_error_of_the_latents(
    pipeline: StereoInpaintPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their denoiser is c_skip x + c_out F, its error weighted by 1 / c_out^2; here F is any function."""
    batch = make_batch(clips=4)
    latents, _ = condition(pipeline, batch)
    seen = spy(monkeypatch, lambda noisy, sigma: torch.tanh(3 * noisy))
    value, _ = velocity_loss(pipeline.unet, pipeline, batch, dropout=0.0)
    ((noisy, sigma),) = seen
    x, c_skip, c_out = noisy * (sigma**2 + 1).sqrt(), 1 / (sigma**2 + 1), -sigma / (sigma**2 + 1).sqrt()
    denoised = c_skip * x + c_out * torch.tanh(3 * noisy)
    assert_close(value, ((denoised - latents) ** 2 / c_out**2).mean(), rtol=1e-4, atol=0)


def test_losses_are_told_apart_by_their_noise() -> None:
    found = velocity._by_noise(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0.1, 0.4, 700.0]))
    assert found["loss_low"] == 1.5 and found["loss_high"] == 4 and found["loss_middle"].isnan()


def test_scenes_are_reduced_as_pictures_will_be() -> None:
    scene = store(make_scene(frames=1, height=181, width=190))
    small = to_working_size(scene, make_tiny(2))
    assert small.left.shape == (1, 3, 91, 95) and small.coverage.dtype == torch.uint8
    assert small.coverage.unique().tolist() == [0, 255]
    as_it_was = store(make_scene(frames=1))
    assert to_working_size(as_it_was, make_tiny(2)) is as_it_was


@pytest.mark.slow
@pytest.mark.parametrize("method", ["many_steps", "one_step"])
def test_one_clip_is_learnt_by_heart(tmp_path: Path, method: str) -> None:
    """Its holes are within 2 dB of what the autoencoder can show at all, and above nearest fill."""
    shot = render_shot(seed=5, frames=4, height=64, width=128)
    scene = Scene(shot.left, shot.right, *warp(shot.left, shot.disparity))
    hyperparams = an_optimizer(steps=200, learning_rate=0.002, checkpoint_every=200)
    of = dataclasses.replace(
        settings(method=method), width=128, frames=4, autoencoder=hyperparams, network=hyperparams
    )
    pipeline, run = make_pipeline(of), open_run(tmp_path, "key", "train", of, {})
    for teach in (train_autoencoder, train_network):
        teach(pipeline, run, of, lambda _: scene, lambda _: scene)
    warped = Warped(scene.left, scene.warped, scene.coverage, scene.disparity)
    with torch.no_grad():
        made = {
            "painted": inpaint_warped(pipeline, warped, None, steps=8)[0],
            "coded": round_trip(pipeline, scene.right),
            "nearest": fill_nearest(warped, None)[0],
        }
    hidden = occlusion_mask(scene.coverage).expand_as(scene.right)
    assert 0.02 < hidden.float().mean() < 0.2
    psnr_db = {
        name: -10 * math.log10(float((frames - scene.right)[hidden].square().mean()))
        for name, frames in made.items()
    }
    assert psnr_db["painted"] > max(psnr_db["coded"] - 2, psnr_db["nearest"]), psnr_db
