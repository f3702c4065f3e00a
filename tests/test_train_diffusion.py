"""Training of the diffusion inpainter: losses, conditions, exact continuation, and what svd freezes."""

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
from conftest import load_preset
from safetensors.torch import load_file, save_file
from small_training import an_optimizer
from torch import Tensor, nn
from torch.testing import assert_close
from training_shots import MemoryShot

from secondeye.evaluation.baselines import fill_nearest
from secondeye.imaging.arrays import occlusion_mask
from secondeye.inpaint import Warped, inpaint_shot
from secondeye.inpaint.autoencoder import decode, encode
from secondeye.inpaint.conditions import Conditions, time_ids
from secondeye.inpaint.denoising import predict_velocity
from secondeye.inpaint.diffusion import Diffusion
from secondeye.inpaint.pipeline import StereoInpaintPipeline
from secondeye.inpaint.sampling_config import RELEASE_SAMPLING
from secondeye.inpaint.tiny import make_tiny
from secondeye.inpaint.weights import load_pipeline, load_widened
from secondeye.inpaint.working_size import image_area_px, working_size
from secondeye.params import TrainDiffusion
from secondeye.run_folder import Run, open_run, repeatable
from secondeye.synthetic import render_shot
from secondeye.system.errors import UserError
from secondeye.training import autoencoder, checkpoints, conditioning, diffusion, views
from secondeye.training import v_prediction as velocity
from secondeye.training.autoencoder import (
    Reconstruction,
    fit_autoencoder,
    reconstruction_loss,
    train_autoencoder,
)
from secondeye.training.cached_samples import draw_cached
from secondeye.training.conditioning import (
    ClipBatch,
    drop_conditions,
    encode_conditions,
    replace_first_frames,
    simulate_inpainted,
)
from secondeye.training.diffusion import make_sample, train_diffusion, train_network
from secondeye.training.initial_weights import hash_pretrained, make_pipeline
from secondeye.training.lora import add_lora, merge_lora
from secondeye.training.sample_sheet import write_sample_sheet
from secondeye.training.stereo_shot import ShotPool, StereoShot, dequantize_plane, quantize
from secondeye.training.v_prediction import NOISE_LEVELS, velocity_loss
from secondeye.training.views import reduce_shot, training_size
from secondeye.warp import warp

pytestmark = pytest.mark.usefixtures("one_thread")

PROJECT = Path(__file__).parent.parent


@pytest.fixture
def svd(release: Path) -> Path:
    return release / "stable-video-diffusion-img2vid-xt-1-1"


def make_shot(frames: int = 3, height: int = 64, width: int = 72, seed: int = 0) -> StereoShot:
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.rand(frames, 3, height, width, generator=generator) for _ in range(2))
    coverage = torch.ones(frames, 1, height, width)
    coverage[..., 30:40] = 0
    return StereoShot(left, right, right * coverage, coverage, torch.zeros_like(coverage))


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
        max_stride=1,
        border_hole_percent=5.0,
        mono_share=0.5,
        mono_max_gradient=0.0,
        conditioning="warp",
        first_frames="simulated",
        conditioning_dropout=0.0,
        cached_samples=cached,
        frozen_precision="float32",
        lora_rank=0,
        lora_alpha=16,
        vgg_weights="",
        autoencoder=hyperparams,
        network=hyperparams,
    )


def train(runs: Path, of: TrainDiffusion) -> Run:
    """Train the autoencoder, unless it is pretrained, and then the network, as the stages do."""
    run = open_run(runs, "key", "train_diffusion", of, {})
    pool = ShotPool([MemoryShot(make_shot(seed=1), "film")], [MemoryShot(make_shot(seed=2), "film")])
    train_diffusion(run, pool, autoencoder_for(runs, pool, of), of)
    return run


def autoencoder_for(runs: Path, pool: ShotPool, of: TrainDiffusion) -> Path:
    run = open_run(runs, "autoencoder", "train_autoencoder", of, {})
    if run.model.exists():
        return run.model
    if of.size != "svd":
        train_autoencoder(run, pool, of)
    return run.model


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NETWORK_SAMPLES", "SHEET_SAMPLES", "STEPS"):
        monkeypatch.setattr(diffusion, name, 1)
    monkeypatch.setattr(autoencoder, "SAMPLES", 1)


@pytest.mark.parametrize(("method", "cached"), [("many_steps", 0), ("many_steps", 50), ("one_step", 0)])
def test_a_killed_training_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, cached: int
) -> None:
    of = settings(method=method, cached=cached)
    whole = train(tmp_path / "whole", of)
    draw, calls = views.draw_views, [0]

    def fail(*arguments: object) -> StereoShot:
        calls[0] += 1
        if calls[0] in (3, 8):  # once in the training of the autoencoder, once in that of the network
            raise KeyboardInterrupt
        return draw(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(views, "draw_views", fail)
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
    first, second = (Run(tmp_path / name / "autoencoder").metrics() for name in ("whole", "cut"))
    assert repeatable(first) == repeatable(second)


def test_a_trained_pipeline_loads_and_has_scores(tmp_path: Path) -> None:
    of = dataclasses.replace(settings(steps=1), conditioning="splat", first_frames="ground_truth")
    run = train(tmp_path, of)
    pipeline = load_pipeline(run.model, "cpu")
    assert pipeline.unet.config.num_frames == 2 and not pipeline.one_step
    assert (pipeline.config.overlap_mask, pipeline.config.conditioning) == ("cleared", "splat")
    assert pipeline.vae.config.scaling_factor not in (0.18215, 1)  # measured, not the class's own
    assert {path.name for path in run.picture("").iterdir()} == {"diffusion.png"}
    scores = {name for line in run.metrics() for name in line} - {"step"}
    assert {"network/hole_psnr_db", "network/holes"} <= scores
    assert "autoencoder/psnr_db" in Run(tmp_path / "autoencoder").metrics()[-1]
    trained = load_file(tmp_path / "autoencoder" / "model" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(weights, pipeline.vae.state_dict()[name]) for name, weights in trained.items())
    levels = {name for name in scores if name.startswith("network/loss_")}
    assert len(levels) == 1 and levels < {f"network/loss_{level}" for level in NOISE_LEVELS}  # of one clip


def test_every_weight_of_the_autoencoder_that_is_trained_gets_a_gradient() -> None:
    """Or processes would wait for it; DistributedDataParallel ends the training instead."""
    model = Reconstruction(make_tiny(2).vae).train()
    value, _ = reconstruction_loss(model, (torch.rand(1, 2, 3, 64, 64) * 2 - 1,))
    value.backward()
    without = {name for name, weights in model.named_parameters() if weights.grad is None}
    assert without == {name for name, weights in model.named_parameters() if not weights.requires_grad}
    assert 0 < len(without) < 12


def test_a_sheet_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    sheet = np.zeros((4, 4, 3), np.uint8)
    sheet[..., 0] = 255  # red
    write_sample_sheet(tmp_path / "sheet.png", sheet)
    assert cv2.imread(str(tmp_path / "sheet.png"))[0, 0].tolist() == [0, 0, 255]
    with pytest.raises(UserError, match=r"sheet.png: cannot be written; free some disk space"):
        write_sample_sheet(tmp_path / "nowhere" / "sheet.png", sheet)


def test_shots_without_a_hole_have_a_score(tmp_path: Path) -> None:
    whole = make_shot(width=64)._replace(coverage=torch.ones(3, 1, 64, 64))  # nothing to crop: no border
    of = dataclasses.replace(settings(steps=1), mono_share=0.0)
    run, pool = open_run(tmp_path, "k", "train_diffusion", of, {}), ShotPool([MemoryShot(whole)], [])
    train_diffusion(run, pool, autoencoder_for(tmp_path, pool, of), of)
    assert run.metrics()[-1]["network/hole_psnr_db"] == 100


def test_one_step_trains_a_one_step_network(tmp_path: Path) -> None:
    run = train(tmp_path, settings(steps=1, method="one_step"))
    assert load_pipeline(run.model, "cpu").one_step
    assert "network/latents" in run.metrics()[-2] and "network/hole_psnr_db" in run.metrics()[-1]
    with pytest.raises(ValueError, match="conditioning_dropout must be 0 for method one_step"):
        dataclasses.replace(settings(method="one_step"), conditioning_dropout=0.1)
    with pytest.raises(ValueError, match="cached_samples must be 0 for method one_step"):
        settings(method="one_step", cached=1)
    with pytest.raises(ValueError, match="vgg_weights must be empty unless method is one_step"):
        dataclasses.replace(settings(), vgg_weights="timm/vgg16.tv_in1k")


def test_a_run_s_key_depends_on_the_weights_of_lpips(vgg16_folder: Path, tmp_path: Path) -> None:
    def found(weights: Path) -> dict[str, str]:
        return hash_pretrained(dataclasses.replace(settings(method="one_step"), vgg_weights=str(weights)))

    other = tmp_path / "other"
    shutil.copytree(vgg16_folder, other)
    assert found(vgg16_folder) == found(other) and found(other).keys() == {"lpips"}
    weights = load_file(other / "model.safetensors")
    save_file({**weights, "features.0.bias": weights["features.0.bias"] + 1}, other / "model.safetensors")
    assert found(vgg16_folder) != found(other)
    with pytest.raises(UserError, match="nowhere: neither a folder nor a name"):
        found(tmp_path / "nowhere")
    assert hash_pretrained(settings()) == {}


def test_small_has_at_most_twenty_million_weights_and_trains_its_whole_network(tmp_path: Path) -> None:
    of = dataclasses.replace(load_preset("small", tmp_path).train_diffusion, frames=2)
    pipeline = make_pipeline(of)
    modules = (pipeline.vae, pipeline.image_encoder, pipeline.unet)
    assert 15e6 < sum(weights.numel() for module in modules for weights in module.parameters()) <= 20e6
    area_px = image_area_px(pipeline.unet.config.sample_size)
    assert working_size(288, 512, 1, 1, area_px) == (288, 512), "the preset's clips are not reduced"
    value, _ = velocity_loss(pipeline.unet, pipeline, make_batch(clips=1), dropout=0.0)
    value.backward()
    assert all(weights.grad is not None for weights in pipeline.unet.parameters())


# Stable Video Diffusion

# Parts of the names of the release's temporal layers and time embeddings.
FROZEN = (".temporal_", ".time_mixer.", ".time_pos_embed.", "time_embedding.", "add_embedding.")
TRAINED, KEPT = 680, 746  # tensors; 682 and 746 in the release, which widens once more


def test_a_widened_network_ignores_the_mask_at_first(svd: Path) -> None:
    pipeline = load_widened(str(svd))
    assert pipeline.unet.conv_in.in_channels == 9
    assert not pipeline.unet.conv_in.weight[:, 8:].any()
    narrow = load_file(svd / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    for name, value in pipeline.unet.state_dict().items():
        assert torch.equal(value[:, :8] if name == "conv_in.weight" else value, narrow[name])
    noisy, warped = torch.randn(2, 1, 2, 4, 8, 8)
    embedding, ids = torch.randn(1, 1, 32), time_ids(1, RELEASE_SAMPLING, "cpu")

    def velocity(mask: Tensor) -> Tensor:
        return predict_velocity(
            pipeline.unet, noisy, torch.tensor(0.5), Conditions(warped, mask, embedding, ids)
        )

    with torch.no_grad():
        assert torch.equal(velocity(torch.zeros(1, 2, 1, 8, 8)), velocity(torch.ones(1, 2, 1, 8, 8)))


def test_svd_trains_exactly_the_spatial_layers(svd: Path, tmp_path: Path) -> None:
    """Every weight of the real layout is either trained, and moves, or frozen, and keeps its bits."""
    before = load_widened(str(svd))
    run = train(tmp_path, settings("svd", str(svd), steps=2))
    after = load_pipeline(run.model, "cpu")
    for part in ("vae", "image_encoder"):
        old, new = (getattr(pipeline, part).state_dict() for pipeline in (before, after))
        assert all(torch.equal(old[name], new[name]) for name in old)
    assert after.vae.config.scaling_factor == 0.18215
    assert after.unet.config.num_frames == settings("svd", str(svd), steps=2).frames
    old, new = before.unet.state_dict(), after.unet.state_dict()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    frozen = {name for name in old if any(part in name for part in FROZEN)}
    assert changed == old.keys() - frozen
    assert (len(changed), len(frozen)) == (TRAINED, KEPT)
    assert new["conv_in.weight"][:, 8:].any()


def test_half_precision_of_frozen_modules_is_close_and_leaves_their_weights(
    pipeline: StereoInpaintPipeline,
) -> None:
    batch, before = make_batch(), pipeline.vae.state_dict()
    (whole, full), (half, lower) = (encode_conditions(pipeline, batch, p) for p in ("float32", "bfloat16"))
    assert half.dtype == lower.latents.dtype == lower.embedding.dtype == torch.float32
    for exact, rounded in ((whole, half), (full.latents, lower.latents), (full.embedding, lower.embedding)):
        assert 0 < (exact - rounded).abs().max() < 0.05 * exact.abs().max()
    assert torch.equal(full.mask, lower.mask)
    assert all(torch.equal(before[name], value) for name, value in pipeline.vae.state_dict().items())


# LoRA


def with_lora(of: TrainDiffusion) -> TrainDiffusion:
    return dataclasses.replace(of, lora_rank=2, lora_alpha=4)


@pytest.mark.slow(seconds=5)
def test_lora_trains_adapters_of_the_spatial_layers_and_saves_an_ordinary_network(
    svd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen weights keep their bits, checkpoints hold the adapters alone, any door loads the result."""
    stored: set[str] = set()
    save = checkpoints.save_file
    monkeypatch.setattr(
        checkpoints, "save_file", lambda tensors, path: (stored.update(tensors), save(tensors, path))
    )
    before = load_widened(str(svd))
    run = train(tmp_path, with_lora(settings("svd", str(svd), steps=2)))
    after = load_pipeline(run.model, "cpu")
    old, new = before.unet.state_dict(), after.unet.state_dict()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert old.keys() == new.keys()
    assert not any(part in name for name in changed for part in FROZEN)
    weights = {
        name for name, module in before.unet.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)
    }
    adapted = {f"{name}.weight" for name in weights if not any(part in f".{name}." for part in FROZEN)}
    assert changed == adapted | {"conv_in.bias"}
    trained = {name for name in stored if name.startswith("model.")}
    assert trained and all(".lora_" in name or "conv_in" in name for name in trained)


def test_merged_adapters_give_what_the_adapters_give(pipeline: StereoInpaintPipeline) -> None:
    network = pipeline.unet.eval()
    given = torch.randn(1, 2, 9, 8, 8), torch.tensor(0.5), torch.randn(1, 1, 32), torch.rand(1, 3)

    @torch.no_grad()
    def output() -> Tensor:
        return network(*given).sample

    original, names = output(), network.state_dict().keys()
    adapted = add_lora(network, rank=4, alpha=8)
    assert_close(output(), original, atol=1e-5, rtol=1e-4)  # adapters start at zero
    for name, weights in network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.1)
    beside = output()
    merge_lora(adapted)
    assert (beside - original).abs().max() > 0.01
    assert_close(output(), beside, atol=1e-5, rtol=1e-4)
    assert network.state_dict().keys() == names


@pytest.mark.slow(seconds=5)
def test_a_killed_training_of_adapters_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = with_lora(settings(steps=4))
    whole = train(tmp_path / "whole", of)
    make, calls = diffusion.make_sample, [0]

    def fail(shot: StereoShot) -> ClipBatch:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return make(shot)

    monkeypatch.setattr(diffusion, "make_sample", fail)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", of)
    cut = train(tmp_path / "cut", of)
    saved = "unet/diffusion_pytorch_model.safetensors"
    assert (whole.model / saved).read_bytes() == (cut.model / saved).read_bytes()


def test_a_batch_that_cannot_be_divided_is_refused_before_training(tmp_path: Path) -> None:
    wrong = settings("tiny", "", steps=2)
    wrong = replace(wrong, network=replace(wrong.network, batch_size=3, gradient_accumulation_steps=2))
    with pytest.raises(UserError, match=r"network: .* cannot share a batch_size of 3"):
        train(tmp_path, wrong)
    assert not list((tmp_path / "key").rglob("*.safetensors"))


def test_svd_that_cannot_be_loaded_is_refused(svd: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model_index.json is missing; name the folder of a complete model"):
        load_widened(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="nobody/no-such-model: not on this machine"):
        load_widened("nobody/no-such-model")
    make_tiny(2).save_pretrained(tmp_path / "wide")
    with pytest.raises(UserError, match="this one has 9"):
        load_widened(str(tmp_path / "wide"))


def test_a_run_s_key_depends_on_the_pretrained_weights(svd: Path, tmp_path: Path) -> None:
    before = hash_pretrained(settings("svd", str(svd)))
    copy = shutil.copytree(svd, tmp_path / "elsewhere")
    assert before == hash_pretrained(settings("svd", str(copy)))
    config = copy / "unet" / "config.json"
    config.write_text(config.read_text() + " ")
    assert before != hash_pretrained(settings("svd", str(copy)))


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 64"):
        dataclasses.replace(settings(), width=96)


def test_it_is_validated_on_held_out_films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ShotPool([MemoryShot(make_shot(seed=seed), f"film {seed}") for seed in range(20)], [])
    sides: list[tuple[int, int]] = []

    def record(stage: Callable[..., None], *args: Any) -> None:
        *_, draw, draw_held = args
        sides.append((len(draw.windows.pool.stereo), len(draw_held.windows.pool.stereo)))
        stage(*args)

    for module, name in ((autoencoder, "fit_autoencoder"), (diffusion, "train_network")):
        monkeypatch.setattr(module, name, partial(record, getattr(module, name)))
    of, run = settings(steps=1), open_run(tmp_path, "key", "train", settings(), {})
    train_diffusion(run, pool, autoencoder_for(tmp_path, pool, of), of)
    assert sides == [(18, 2), (18, 2)]


# The recipe


@pytest.fixture(scope="module")
def pipeline() -> StereoInpaintPipeline:
    torch.manual_seed(0)
    return make_tiny(2)


def make_batch(clips: int = 2, frames: int = 2) -> ClipBatch:
    shots = [quantize(make_shot(frames=frames, width=64, seed=seed)) for seed in range(clips)]
    samples = zip(*map(make_sample, shots), strict=True)
    return ClipBatch(*(dequantize_plane(torch.stack(planes)) for planes in samples))


def round_trip(pipeline: StereoInpaintPipeline, clip: Tensor) -> Tensor:
    latents = encode(pipeline.vae, clip * 2 - 1) * pipeline.vae.config.scaling_factor
    return (decode(pipeline.vae, latents, 8) / 2 + 0.5).clamp(0, 1)


def test_a_sample_has_the_planes_of_its_shot() -> None:
    stereo = quantize(make_shot())
    truth, warped, holes, left = make_sample(stereo)
    for plane, wanted in ((truth, stereo.right), (warped, stereo.warped), (left, stereo.left)):
        assert torch.equal(plane, wanted)
    assert torch.equal(holes, 255 - stereo.coverage)


def test_the_first_n_of_0_to_all_frames_are_the_ground_truth_and_have_no_holes() -> None:
    torch.manual_seed(0)
    batch = make_batch(clips=60, frames=3)
    given = replace_first_frames(batch)
    counts = []
    planes = (batch.target, batch.warped, given.warped, given.holes)
    for target, before, warped, holes in zip(*planes, strict=True):
        counts.append(int((holes.flatten(1).sum(1) == 0).sum()))
        assert torch.equal(warped, torch.cat([target[: counts[-1]], before[counts[-1] :]]))
    assert set(counts) == {0, 1, 2, 3} and max(map(counts.count, range(4))) < 25
    assert torch.equal(given.target, batch.target) and torch.equal(given.left, batch.left)


@torch.no_grad()
@pytest.mark.parametrize("given", ["warp", "splat"])
def test_inpainted_frames_are_composed_as_in_inference(
    given: str, pipeline: StereoInpaintPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sharply warped where visible, the autoencoder's ground truth elsewhere, and no longer a hole.

    Ground truth stands for the sharp warp if the network is conditioned on the splat.
    """
    monkeypatch.setitem(pipeline.config, "conditioning", given)
    monkeypatch.setattr(conditioning, "MAX_LATENT_NOISE", 0.0)
    monkeypatch.setattr(conditioning, "MAX_COLOUR_SHIFT", 0.0)
    batch = make_batch(clips=6, frames=4)
    torch.manual_seed(1)
    inpainted = simulate_inpainted(pipeline, batch)
    assert inpainted.target is batch.target and inpainted.left is batch.left
    for truth, warped, holes, first, mask in zip(*batch[:3], *inpainted[1:3], strict=True):
        count = next(n for n in range(4) if mask[n].any())  # every frame has a hole
        assert torch.equal(warped[count:], first[count:]) and torch.equal(holes[count:], mask[count:])
        if count:
            wanted = round_trip(pipeline, truth[:count])
            visible = (holes[:count] == 0).expand_as(wanted)
            seen = truth if given == "splat" else warped
            assert torch.equal(first[:count][visible], seen[:count][visible])
            assert_close(first[:count][~visible], wanted[~visible])


@torch.no_grad()
def test_simulated_inpainting_has_noise_and_a_colour_shift(pipeline: StereoInpaintPipeline) -> None:
    batch = make_batch(clips=8, frames=2)
    torch.manual_seed(0)
    inpainted = simulate_inpainted(pipeline, batch)
    begun = [clip for clip in range(8) if not inpainted.holes[clip, 0].any()]
    assert 0 < len(begun) < 8
    for clip in begun:
        off = inpainted.warped[clip, :1] - round_trip(pipeline, batch.target[clip, :1])
        off = off[batch.holes[clip, :1].bool().expand_as(off)]
        assert 1e-3 < off.abs().mean() < 0.1


def test_half_of_all_clips_begin_with_inpainted_frames_and_none_is_inpainted_whole() -> None:
    torch.manual_seed(0)
    counts = [conditioning._draw_count(5) for _ in range(1000)]
    assert 450 < counts.count(0) < 550
    assert all(90 < counts.count(count) < 160 for count in (1, 2, 3, 4)) and max(counts) == 4


def test_conditions_equal_those_of_inference(pipeline: StereoInpaintPipeline) -> None:
    batch = make_batch()
    latents, conditions = encode_conditions(pipeline, batch)
    factor = pipeline.vae.config.scaling_factor
    for clip in range(2):
        with torch.no_grad():
            assert_close(conditions.latents[clip], encode(pipeline.vae, batch.warped[clip] * 2 - 1))
            assert_close(latents[clip], encode(pipeline.vae, batch.target[clip] * 2 - 1) * factor)
    assert conditions.time_ids.tolist() == [[6, 127, 0]] * 2 and conditions.left is None
    assert conditions.mask.shape == (2, 2, 1, 8, 8) and conditions.embedding.shape == (2, 1, 32)
    assert conditions.mask[..., 3:5].all() and conditions.mask.sum() == 2 * 2 * 2 * 8  # pixels 30 to 39


def test_cached_samples_are_made_once_and_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two samples for six steps: each is drawn and encoded once, and gets new noise at every step."""
    of = settings(cached=2)
    of = dataclasses.replace(of, network=dataclasses.replace(of.network, steps=6, learning_rate=0.0))
    drawn, used = 0, []

    def draw(_: int, rng: np.random.Generator) -> StereoShot:
        nonlocal drawn
        drawn += 1
        return quantize(make_shot(frames=2, width=64, seed=int(rng.integers(1000))))

    def learn(_: object, latents: Tensor, conditions: Conditions, *, dropout: float) -> Any:
        used.append((latents, *conditions[:4], torch.rand(())))
        return velocity.velocity_error(pipeline.unet, latents, conditions, dropout=dropout)

    monkeypatch.setattr(diffusion, "velocity_error", learn)
    pipeline, run = make_pipeline(of), open_run(tmp_path, "key", "train", of, {})
    train_network(pipeline, run, of, draw, lambda *_: quantize(make_shot(frames=2, width=64)))
    assert drawn == len(list((run.checkpoints / "samples").iterdir())) == 2 and len(used) == 6
    for sample in used:
        alike = [all(map(torch.equal, sample[:5], other[:5])) for other in used]
        assert 0 < sum(alike) < 6
    assert len({float(chance) for *_, chance in used}) == 6
    assert not torch.equal(used[0][0], torch.zeros_like(used[0][0]))


def test_a_cached_sample_depends_on_its_index_alone(tmp_path: Path) -> None:
    made: list[int] = []

    def make(index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        assert index == 0
        made.append(int(rng.integers(1000)))
        return torch.rand(2, 3), torch.tensor(made[-1])

    def draw(seed: int) -> tuple[Tensor, ...]:
        torch.manual_seed(seed)
        return draw_cached(tmp_path / "samples", 1, 7, make, np.random.default_rng(seed))

    first, again = draw(1), draw(2)
    (path,) = (tmp_path / "samples").iterdir()
    whole = path.read_bytes()
    path.unlink()  # its tensors are mapped from the file
    path.write_bytes(whole[:-1])  # as a broken disk leaves it
    remade = draw(3)
    assert len(made) == 2 and made[0] == made[1]
    for planes in zip(first, again, remade, strict=True):
        assert all(torch.equal(planes[0], plane) for plane in planes)
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["00000000.safetensors"]


def test_dropout_drops_all_conditions_of_a_clip_together(pipeline: StereoInpaintPipeline) -> None:
    _, conditions = encode_conditions(pipeline, make_batch(clips=16))
    torch.manual_seed(0)
    dropped = drop_conditions(conditions, 0.3)
    gone = [~part.flatten(1).any(dim=1) for part in (dropped.latents, dropped.mask, dropped.embedding)]
    assert torch.equal(gone[0], gone[1]) and torch.equal(gone[0], gone[2]) and 1 <= gone[0].sum() <= 9
    assert torch.equal(dropped.time_ids, conditions.time_ids)
    for before, after in zip(conditions[:3], dropped[:3], strict=True):
        assert torch.equal(before[~gone[0]], after[~gone[0]])
    assert all(
        torch.equal(*parts)
        for parts in zip(drop_conditions(conditions, 0.0)[:4], conditions[:4], strict=True)
    )
    assert not drop_conditions(conditions, 1.0).embedding.any()


def spy(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[Tensor, Tensor], Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """Have a function of the noisy latents and sigma in the network's place; returns its inputs."""
    inputs = []

    def predict_velocity(_: nn.Module, noisy: Tensor, timestep: Tensor, __: Conditions) -> Tensor:
        sigma = (timestep / 0.25).exp().view(-1, 1, 1, 1, 1)
        inputs.append((noisy, sigma))
        return answer(noisy, sigma)

    monkeypatch.setattr(velocity, "predict_velocity", predict_velocity)
    return inputs


def test_the_true_velocity_has_no_loss(
    pipeline: StereoInpaintPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """v = (noise - sigma * latents) / sqrt(sigma^2 + 1), where x = latents + sigma * noise."""
    batch = make_batch()
    latents, _ = encode_conditions(pipeline, batch)

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
    latents, _ = encode_conditions(pipeline, batch)
    inputs = spy(monkeypatch, lambda noisy, sigma: torch.tanh(3 * noisy))
    value, _ = velocity_loss(pipeline.unet, pipeline, batch, dropout=0.0)
    ((noisy, sigma),) = inputs
    x, c_skip, c_out = noisy * (sigma**2 + 1).sqrt(), 1 / (sigma**2 + 1), -sigma / (sigma**2 + 1).sqrt()
    denoised = c_skip * x + c_out * torch.tanh(3 * noisy)
    assert_close(value, ((denoised - latents) ** 2 / c_out**2).mean(), rtol=1e-4, atol=0)


def test_losses_are_logged_by_noise_level() -> None:
    found = velocity._by_noise_level(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0.1, 0.4, 700.0]))
    assert found["loss_low"] == 1.5 and found["loss_high"] == 4 and found["loss_middle"].isnan()


def test_shots_are_reduced_to_the_working_size() -> None:
    area_px = image_area_px(make_tiny(2).unet.config.sample_size)
    height, width = training_size(181, 190, 64, 64, area_px)
    assert (height, width) == (172, 181) == working_size(181, 190, 1, 1, area_px)
    small = reduce_shot(quantize(make_shot(frames=1, height=181, width=190)), height=height, width=width)
    assert small.left.shape == (1, 3, 172, 181) and small.coverage.dtype == torch.uint8
    assert small.coverage.unique().tolist() == [0, 255]
    small_enough = quantize(make_shot(frames=1))
    assert reduce_shot(small_enough, height=64, width=72) is small_enough


def test_crops_of_the_network_s_own_size_fit_into_views_of_any_size() -> None:
    """Views of 1152x640 would be reduced to 1030x573, into which 1024x576 does not fit."""
    area_px = image_area_px(96)
    assert area_px == 576 * 1024
    assert working_size(640, 1152, 1, 1, area_px) == (573, 1031)
    assert training_size(640, 1152, 576, 1024, area_px) == (576, 1037)
    assert training_size(1080, 1920, 576, 1024, area_px) == (576, 1024)
    assert training_size(576, 1024, 576, 1024, area_px) == (576, 1024)
    assert training_size(640, 1152, 256, 448, area_px) == (573, 1031)


@pytest.mark.slow(seconds=20)
def test_one_clip_can_be_overfitted(tmp_path: Path) -> None:
    """Its holes are within 2 dB of the autoencoder's reconstruction, and above nearest fill."""
    shot = render_shot(seed=5, frames=4, height=64, width=64)
    stereo = StereoShot(shot.left, shot.right, *warp(shot.left, shot.disparity))
    stored = quantize(stereo)
    hyperparams = an_optimizer(steps=40, learning_rate=0.003, checkpoint_every=40)
    of = dataclasses.replace(settings(), width=64, frames=4, autoencoder=hyperparams, network=hyperparams)
    first = make_pipeline(of)
    run = open_run(tmp_path, "autoencoder", "train", of, {})
    fit_autoencoder(first, run, of, lambda *_: stored, lambda *_: stored)
    warped = Warped(stereo.left, stereo.warped, stereo.coverage, stereo.disparity)
    hidden = occlusion_mask(stereo.coverage).expand_as(stereo.right)
    assert 0.02 < hidden.float().mean() < 0.2

    def psnr_db(frames: Tensor) -> float:
        return -10 * math.log10(float((frames - stereo.right)[hidden].square().mean()))

    with torch.no_grad():
        coded, nearest = round_trip(first, stereo.right), fill_nearest(warped)
    wanted_db = max(psnr_db(coded) - 2, psnr_db(nearest))
    for method in ("many_steps", "one_step"):
        own = replace(of, method=method)
        fresh = make_pipeline(own)
        pipeline = StereoInpaintPipeline(first.vae, fresh.image_encoder, fresh.unet, fresh.scheduler)
        run = open_run(tmp_path, method, "train", own, {})
        train_network(pipeline, run, own, lambda *_: stored, lambda *_: stored)
        with torch.no_grad():
            inpainted = inpaint_shot(Diffusion(pipeline), [warped])
        assert psnr_db(inpainted) > wanted_db, method
