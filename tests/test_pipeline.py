"""The diffusion inpainter: the release's arrays, then laws of the loop, the folders and the picture."""

import json
import math
import resource
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conformance.tiny_release import SEEDS, make_network
from diffusers import DDIMScheduler, UNetSpatioTemporalConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.testing import assert_close

from secondeye import inpaint
from secondeye.inpaint import Warped, make_inpainter
from secondeye.inpaint.autoencoder import decode, encode, scaling_factor
from secondeye.inpaint.conditions import latent_mask
from secondeye.inpaint.denoising import ONE_STEP_SIGMA, sigma_to_timestep
from secondeye.inpaint.image_embedding import resize_for_clip
from secondeye.inpaint.loading import load_module
from secondeye.inpaint.pipeline import InpaintOutput, StereoInpaintPipeline
from secondeye.inpaint.quantization import Int8
from secondeye.inpaint.sampling_config import RELEASE_SAMPLING, SamplingConfig
from secondeye.inpaint.time_convolution import flatten_time_convolutions
from secondeye.inpaint.tiny import make_scheduler, make_tiny
from secondeye.inpaint.weights import load_pipeline, load_widened
from secondeye.system import hub
from secondeye.system.errors import UserError

SVD = "stable-video-diffusion-img2vid-xt-1-1"
CONFORMANCE = Path(__file__).parent / "conformance"
STEPS = 2

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def released(release: Path) -> StereoInpaintPipeline:
    return load_pipeline(release, "cpu")


@pytest.fixture(scope="module")
def tiny() -> StereoInpaintPipeline:
    torch.manual_seed(3)
    return make_tiny(frames=4)


@pytest.fixture(scope="module")
def one_step() -> StereoInpaintPipeline:
    torch.manual_seed(3)
    return make_tiny(frames=4, in_channels=13)


@pytest.fixture(scope="module")
def folder(tiny: StereoInpaintPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    tiny.save_pretrained(path)
    return path


def recorded(name: str) -> dict[str, Tensor]:
    with np.load(CONFORMANCE / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def scene(frames: int, height: int, width: int, seed: int = 0) -> Warped:
    """Noise with a hole of 6 columns and soft edges beside it."""
    generator = torch.Generator().manual_seed(seed)
    picture = torch.rand(frames, 3, height, width, generator=generator)
    coverage = torch.ones(frames, 1, height, width)
    coverage[..., 10:16] = 0
    coverage[..., 16] = 0.6
    return Warped(picture, picture * (coverage > 0), coverage, torch.zeros_like(coverage))


# What the release returns


def test_matches_the_release_on_one_chunk(released: StereoInpaintPipeline) -> None:
    arrays = recorded("sc_single")
    seen: list[Tensor] = []
    hook = released.unet.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
    inpainted = released(
        arrays["frames"],
        arrays["mask"],
        sampling=RELEASE_SAMPLING,
        generator=torch.Generator(),
        noise=arrays["noise"],
    )
    hook.remove()
    assert len(seen) == 2 * arrays["n_unet_calls"]  # ours are two passes of one, not one of two
    for step in (0, 7):
        given, nothing = seen[2 * step : 2 * step + 2]
        assert_close(torch.stack([nothing, given]), arrays[f"unet_in_step{step}"], atol=1e-3, rtol=0)
    assert_close(inpainted.latents, arrays["latents"], atol=1e-3, rtol=0)
    difference = (inpainted.frames.permute(0, 2, 3, 1) - arrays["decoded01"]).abs().max()
    assert difference <= 1 / 255


def test_random_draws_follow_the_order_of_the_release(released: StereoInpaintPipeline) -> None:
    arrays = recorded("sc_generator")
    inpainted = released(
        arrays["frames"],
        arrays["mask"],
        sampling=replace(RELEASE_SAMPLING, steps=2, noise_share=0.02),
        generator=torch.Generator().manual_seed(int(arrays["seed"])),
    )
    assert_close(inpainted.latents, arrays["latents"], atol=1e-3, rtol=0)


def test_scheduler_matches_the_release() -> None:
    arrays, scheduler = recorded("schedule"), make_scheduler()
    for steps in (1, 2, 3, 4, 5, 8, 25):
        scheduler.set_timesteps(steps)
        assert_close(scheduler.sigmas, arrays[f"sigmas{steps}"], atol=1e-4, rtol=1e-5)
        assert_close(scheduler.timesteps, arrays[f"timesteps{steps}"], atol=1e-5, rtol=0)
        # Training and sampling encode a sigma in the same way.
        assert_close(sigma_to_timestep(scheduler.sigmas[:-1]), scheduler.timesteps, atol=1e-5, rtol=0)
    assert float(scheduler.init_noise_sigma) == pytest.approx(float(arrays["init_noise_sigma"]))


def test_clip_resize_matches_the_release() -> None:
    arrays = recorded("resize224_128x192")
    assert_close(resize_for_clip(arrays["image"]), arrays["out"], atol=1e-5, rtol=0)


# The loop


def test_guidance_of_one_needs_one_pass_per_step(tiny: StereoInpaintPipeline) -> None:
    calls: list[None] = []
    hook = tiny.unet.register_forward_pre_hook(lambda *_: calls.append(None))
    run_pipeline(tiny, torch.rand(2, 3, 64, 64), guidance=1.0)
    once = len(calls)
    run_pipeline(tiny, torch.rand(2, 3, 64, 64), guidance=1.5)
    hook.remove()
    assert (once, len(calls) - once) == (STEPS, 2 * STEPS)


def run_pipeline(
    pipeline: StereoInpaintPipeline, frames: Tensor, guidance: float = 1.0, seed: int = 0
) -> InpaintOutput:
    sampling = SamplingConfig(
        steps=STEPS, guidance=guidance, noise_share=0.0, keep_thin_holes=True, decode_frames=2
    )
    generator = torch.Generator().manual_seed(seed)
    return pipeline(frames, torch.zeros_like(frames[:, :1]), sampling=sampling, generator=generator)


def test_output_depends_on_the_generator_only(tiny: StereoInpaintPipeline) -> None:
    frames = torch.rand(1, 3, 64, 64)
    first, again, other = (run_pipeline(tiny, frames, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first.frames, again.frames)
    assert not torch.equal(first.frames, other.frames)


def test_outputs_have_the_documented_shape_and_range(tiny: StereoInpaintPipeline) -> None:
    inpainted = run_pipeline(tiny, torch.rand(3, 3, 64, 128))
    assert inpainted.frames.shape == (3, 3, 64, 128) and inpainted.latents.shape == (3, 4, 8, 16)
    assert inpainted.frames.min() >= 0 and inpainted.frames.max() <= 1


def test_sides_must_be_multiples(tiny: StereoInpaintPipeline) -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        run_pipeline(tiny, torch.rand(1, 3, 64, 68))


def test_max_pooled_mask_keeps_thin_holes() -> None:
    holes = torch.zeros(1, 1, 64, 64)
    holes[0, 0, 3, 5] = 1  # beside the top left pixel of its block
    holes[0, 0, 16, 24] = 0.5
    ours, theirs = latent_mask(holes, keep_thin_holes=True), latent_mask(holes, keep_thin_holes=False)
    assert ours.nonzero()[:, 2:].tolist() == [[0, 0], [2, 3]]
    assert theirs.nonzero()[:, 2:].tolist() == [[2, 3]]


def test_scaled_latents_have_a_deviation_of_one() -> None:
    latents = 3 * torch.randn(2, 4, 16, 16) + 1
    assert float((latents * scaling_factor(latents)).std()) == pytest.approx(1, rel=1e-5)
    with pytest.raises(ValueError, match="cannot be scaled"):
        scaling_factor(torch.zeros(1, 4, 8, 8))


def test_time_convolution_equals_conv3d() -> None:
    convolution = nn.Conv3d(3, 5, (3, 1, 1), padding=(1, 0, 0))
    array = torch.rand(2, 3, 4, 6, 7)
    expected = convolution(array)
    flatten_time_convolutions(convolution)
    assert type(convolution) is not nn.Conv3d
    assert_close(convolution(array), expected)


# One step


def run_one_step(pipeline: StereoInpaintPipeline, frames: Tensor, left: Tensor | None) -> InpaintOutput:
    """With every eighth row open, and no generator."""
    sampling = SamplingConfig(steps=8, guidance=1.0, noise_share=0.02, keep_thin_holes=True, decode_frames=2)
    holes = torch.zeros_like(frames[:, :1])
    holes[:, :, ::16] = 1
    return pipeline(frames, holes, sampling=sampling, left=left)


def test_one_step_is_one_negated_pass_from_zeros(one_step: StereoInpaintPipeline) -> None:
    frames, left = (torch.rand(3, 3, 64, 128, generator=torch.Generator().manual_seed(k)) for k in (1, 2))
    seen: list[tuple[Tensor, ...]] = []
    hook = one_step.unet.register_forward_hook(lambda _, given, made: seen.append((*given[:2], made[0])))
    before = torch.get_rng_state()
    inpainted = run_one_step(one_step, frames, left)
    again = run_one_step(one_step, frames, left)
    hook.remove()
    assert torch.equal(before, torch.get_rng_state())  # not a number was drawn
    assert torch.equal(inpainted.frames, again.frames)
    assert len(seen) == 2
    stacked, timestep, velocity = seen[0]
    assert torch.equal(inpainted.latents, -velocity[0])
    assert float(timestep) == pytest.approx(0.25 * math.log(700))
    nothing, of_left, of_given, mask = stacked[0].split((4, 4, 4, 1), dim=1)
    assert not nothing.any()
    with torch.no_grad():
        assert torch.equal(of_left, encode(one_step.vae, 2 * left - 1, 2))
        assert torch.equal(of_given, encode(one_step.vae, 2 * frames - 1, 2))
    assert mask[:, 0, ::2].all() and not mask[:, 0, 1::2].any()
    decoded = decode(one_step.vae, inpainted.latents, 2) / 2 + 0.5
    assert_close(inpainted.frames, decoded.detach().clamp(0, 1))


def test_one_step_sigma_leaves_no_signal() -> None:
    """x0 = x / (s^2 + 1) - s v / sqrt(s^2 + 1) with x = 0, as the schedule has it at its first sigma."""
    scheduler, velocity = make_scheduler(), torch.rand(2, 3)
    scheduler.set_timesteps(1)
    assert float(scheduler.sigmas[0]) == ONE_STEP_SIGMA
    one = scheduler.step(velocity, scheduler.timesteps[0], torch.zeros(2, 3)).pred_original_sample
    assert_close(one, -velocity, atol=2e-6, rtol=0)


def test_one_step_needs_the_left_view_of_the_same_size(
    one_step: StereoInpaintPipeline, tiny: StereoInpaintPipeline
) -> None:
    frames = torch.rand(1, 3, 64, 64)
    with pytest.raises(ValueError, match="left is missing"):
        run_one_step(one_step, frames, None)
    with pytest.raises(ValueError, match=r"left is \[1, 3, 64, 72\], but the frames are"):
        run_one_step(one_step, frames, torch.rand(1, 3, 64, 72))
    with pytest.raises(ValueError, match="NaN"):
        run_one_step(one_step, frames, frames * float("nan"))
    with pytest.raises(ValueError, match="many steps needs a generator"):
        run_one_step(tiny, frames, frames)


def test_one_step_pipeline_survives_save_and_load(one_step: StereoInpaintPipeline, tmp_path: Path) -> None:
    one_step.save_pretrained(tmp_path)
    frames, left = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    inpainted = run_one_step(one_step, frames, left).frames
    again = load_pipeline(tmp_path, "cpu")
    assert again.one_step and same_weights(again.unet, one_step.unet)
    assert_close(run_one_step(again, frames, left).frames, inpainted, atol=1e-5, rtol=0)
    again.enable_model_cpu_offload(device="cpu")
    assert_close(run_one_step(again, frames, left).frames, inpainted, atol=1e-5, rtol=0)
    for options in ({"storage": "int8"}, {"storage": "fp8"}, {"torch_dtype": torch.bfloat16}):
        small = StereoInpaintPipeline.from_pretrained(tmp_path, **options)
        difference = run_one_step(small, frames, left).frames - inpainted
        assert 0 < float((difference**2).mean().sqrt()) < 0.1


def test_widened_network_equals_the_original_for_equal_views(release: Path) -> None:
    """A widened network has what Stable Video Diffusion saw in halves, for the left view and the warped."""
    narrow = load_module(UNetSpatioTemporalConditionModel, release / SVD / "unet", torch.float32)
    wide = load_widened(str(release / SVD), 13).unet
    noisy, given = torch.randn(2, 1, 2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    message = {"added_time_ids": torch.tensor([[6.0, 127.0, 0.0]]), "return_dict": False}
    embedding = torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(2))

    def velocity(network: Any, *views: Tensor) -> Tensor:
        return network(torch.cat([noisy, *views], dim=2), torch.tensor(0.5), embedding, **message)[0]

    with torch.no_grad():
        one = velocity(narrow, given)
        for mask in (torch.zeros(1, 2, 1, 8, 8), torch.ones(1, 2, 1, 8, 8)):
            assert_close(velocity(wide, given, given, mask), one, atol=1e-4, rtol=0)
        swapped = velocity(wide, given, 2 * given, mask) - velocity(wide, 2 * given, given, mask)
        assert_close(swapped, torch.zeros_like(one), atol=1e-4, rtol=0)


# Folders


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    weights, others = one.state_dict(), other.state_dict()
    return weights.keys() == others.keys() and all(
        torch.equal(weights[name], others[name]) for name in weights
    )


def test_saved_pipeline_gives_the_same_output(tiny: StereoInpaintPipeline, folder: Path) -> None:
    again = load_pipeline(folder, "cpu")
    frames = torch.rand(2, 3, 64, 64)
    assert_close(run_pipeline(again, frames).frames, run_pipeline(tiny, frames).frames, atol=1e-5, rtol=0)
    assert same_weights(again.unet, tiny.unet) and same_weights(again.vae, tiny.vae)
    assert not list(folder.rglob("*.bin"))


def test_a_saved_folder_has_the_released_layout(folder: Path) -> None:
    parts = {"unet", "vae", "image_encoder", "scheduler", "feature_extractor"}
    assert {path.name for path in folder.iterdir()} == parts | {"model_index.json"}
    index = json.loads((folder / "model_index.json").read_text())
    assert {name for name in index if not name.startswith("_")} == parts | {"overlap_mask", "conditioning"}


def test_a_full_disk_is_a_user_error(tiny: StereoInpaintPipeline, tmp_path: Path) -> None:
    """Files may not grow beyond 100 kB here, which the system says as it says that a disk is full."""
    limit, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, most))
    try:
        with pytest.raises(UserError, match=r"the weights cannot be written \(.+\); free some disk") as error:
            tiny.save_pretrained(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
    with pytest.raises(UserError, match=r"model_index.json is missing"):
        load_pipeline(tmp_path, "cpu")


def test_diffusers_loads_a_saved_folder(tiny: StereoInpaintPipeline, folder: Path) -> None:
    again = StereoInpaintPipeline.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    frames = torch.rand(1, 3, 64, 64)
    assert_close(run_pipeline(again, frames).frames, run_pipeline(tiny, frames).frames, atol=1e-5, rtol=0)


def test_network_may_be_at_the_root_of_its_folder(
    release: Path, released: StereoInpaintPipeline, tmp_path: Path
) -> None:
    shutil.copytree(release, tmp_path / "weights")
    network = tmp_path / "weights" / "StereoCrafter" / "unet_diffusers"
    shutil.copytree(network, network.parent, dirs_exist_ok=True)
    shutil.rmtree(network)
    again = load_pipeline(tmp_path / "weights", "cpu")
    assert same_weights(again.unet, released.unet)


def test_network_without_a_mask_channel_is_refused(release: Path, tiny: StereoInpaintPipeline) -> None:
    with pytest.raises(
        UserError, match="has 8 input channels, stereo inpainting needs 9, or 13 for one step"
    ):
        load_pipeline(release / "stable-video-diffusion-img2vid-xt-1-1", "cpu")
    with pytest.raises(
        UserError, match="has 8 input channels, stereo inpainting needs 9, or 13 for one step"
    ):
        StereoInpaintPipeline(tiny.vae, tiny.image_encoder, make_network(8, SEEDS["unet"]), tiny.scheduler)


def test_load_pipeline_takes_the_released_pair(release: Path, released: StereoInpaintPipeline) -> None:
    network = release / "StereoCrafter"
    for unet in (network, str(network / "unet_diffusers"), make_network(9, SEEDS["inpainting"])):
        again = StereoInpaintPipeline.from_pretrained(str(release / SVD), unet=unet, variant="fp16")
        assert same_weights(again.unet, released.unet)
    assert (again.config.overlap_mask, again.config.conditioning) == ("kept", "splat")
    half = StereoInpaintPipeline.from_pretrained(release / SVD, unet=network, torch_dtype=torch.bfloat16)
    assert (half.unet.dtype, half.image_encoder.dtype) == (torch.bfloat16, torch.bfloat16)
    assert half.vae.dtype == torch.float32


def test_package_exports_the_pipeline() -> None:
    assert inpaint.StereoInpaintPipeline is StereoInpaintPipeline
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = inpaint.Nonsense


def test_hub_downloads_only_files_that_are_read(
    release: Path, released: StereoInpaintPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def download(source: str, **options: Any) -> str:
        asked[source] = options
        return str(release / {"owner/svd": SVD, "owner/network": "StereoCrafter"}[source])

    monkeypatch.setattr(hub, "snapshot_download", download)
    monkeypatch.setattr(hub, "why_unavailable", lambda *model, **options: "")
    again = StereoInpaintPipeline.from_pretrained("owner/svd", unet="owner/network", revision="v1")
    assert same_weights(again.unet, released.unet)
    assert asked["owner/svd"]["ignore_patterns"] == ["unet/*"]
    assert {options["revision"] for options in asked.values()} == {"v1"}


@pytest.mark.parametrize(("storage", "share", "error"), [("int8", 0.3, 0.03), ("fp8", 0.35, 0.1)])
def test_quantized_weights_give_nearly_the_same_output(
    release: Path, released: StereoInpaintPipeline, storage: str, share: float, error: float
) -> None:
    small = StereoInpaintPipeline.from_pretrained(
        release / SVD, unet=release / "StereoCrafter", storage=storage
    )
    before, after = (
        sum(weights.numel() * weights.element_size() for weights in pipeline.unet.parameters())
        for pipeline in (released, small)
    )
    assert after < share * before
    frames = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    difference = run_pipeline(small, frames).frames - run_pipeline(released, frames).frames
    assert 0 < float((difference**2).mean().sqrt()) < error
    with pytest.raises(ValueError, match="stored in 8 bits"):
        small.save_pretrained(release / "never")


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1.0, 1e-3])
def test_int8_error_is_less_than_a_step(kind: torch.dtype, size: float) -> None:
    weights = size * torch.randn(500, 20, 3, generator=torch.Generator().manual_seed(0))
    weights[0] = 0
    weights = weights.to(kind)
    stored = Int8()(*Int8().right_inverse(weights))
    step = weights.double().abs().amax((1, 2), keepdim=True) / 127
    assert stored.dtype == kind
    assert bool(((stored.double() - weights.double()).abs() <= step).all())


def test_model_cpu_offload_gives_the_same_output(folder: Path, tiny: StereoInpaintPipeline) -> None:
    waiting = StereoInpaintPipeline.from_pretrained(folder)
    waiting.enable_model_cpu_offload(device="cpu")
    frames = torch.rand(1, 3, 64, 64)
    for _ in range(2):
        assert_close(
            run_pipeline(waiting, frames).frames, run_pipeline(tiny, frames).frames, atol=1e-5, rtol=0
        )


def test_push_to_hub_uploads_a_complete_folder(
    tiny: StereoInpaintPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed: list[str] = []

    def upload(_: object, folder: str, repo_id: str, **__: object) -> None:
        StereoInpaintPipeline.from_pretrained(folder)
        pushed.extend([repo_id, *(path.name for path in Path(folder).iterdir())])

    monkeypatch.setattr(StereoInpaintPipeline, "_upload_folder", upload)
    hub = "diffusers.utils.hub_utils"
    monkeypatch.setattr(f"{hub}.create_repo", lambda name, **_: SimpleNamespace(repo_id=name))
    card = SimpleNamespace(save=lambda _: None)
    monkeypatch.setattr(f"{hub}.load_or_create_model_card", lambda *_, **__: card)
    monkeypatch.setattr(f"{hub}.populate_model_card", lambda made: made)
    tiny.push_to_hub("owner/name")
    assert {"owner/name", "model_index.json", "feature_extractor", "unet"} <= set(pushed)
    with pytest.raises(ValueError, match="call push_to_hub"):
        tiny.save_pretrained("nowhere", push_to_hub=True)


@pytest.mark.parametrize(
    ("key", "value", "choices"),
    [("overlap_mask", "cleared", "kept, cleared"), ("conditioning", "splat", "warp, splat")],
)
def test_how_a_network_was_trained_is_saved(
    tiny: StereoInpaintPipeline, tmp_path: Path, key: str, value: str, choices: str
) -> None:
    parts = {name: tiny.components[name] for name in ("vae", "image_encoder", "unet", "scheduler")}
    StereoInpaintPipeline(**parts, **{key: value}).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "model_index.json").read_text())[key] == value
    assert load_pipeline(tmp_path, "cpu").config[key] == value
    assert StereoInpaintPipeline.from_pretrained(tmp_path).config[key] == value
    with pytest.raises(UserError, match=f"{key} must be one of {choices}, got 'gone'"):
        StereoInpaintPipeline(**parts, **{key: "gone"})


@pytest.mark.parametrize(
    ("class_name", "conditioning"),
    [("StereoInpaintPipeline", "warp"), ("StableVideoDiffusionPipeline", "splat")],
)
def test_an_older_folder_of_ours_is_conditioned_on_the_warp_and_a_released_one_on_the_splat(
    folder: Path, tmp_path: Path, class_name: str, conditioning: str
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "model_index.json"
    index = json.loads(path.read_text())
    del index["conditioning"]
    path.write_text(json.dumps({**index, "_class_name": class_name}))
    assert load_pipeline(tmp_path, "cpu").config.conditioning == conditioning


def test_schedulers_of_another_type_are_refused(
    tiny: StereoInpaintPipeline, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="the scheduler: _class_name is DDIMScheduler"):
        StereoInpaintPipeline(tiny.vae, tiny.image_encoder, tiny.unet, DDIMScheduler())
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    # Its times would not be those that the network knows.
    config = tmp_path / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("continuous", "discrete"))
    with pytest.raises(UserError, match=r"config.json: timestep_type is discrete; the network needs"):
        load_pipeline(tmp_path, "cpu")
    DDIMScheduler().save_pretrained(tmp_path / "scheduler")
    with pytest.raises(UserError, match=r"_class_name is DDIMScheduler, .* the network needs"):
        load_pipeline(tmp_path, "cpu")


@pytest.mark.parametrize(
    ("module", "key", "value"),
    [
        ("unet", "block_out_channels", [64, 32]),
        ("vae", "latent_channels", 8),
        ("image_encoder", "hidden_size", 64),
    ],
)
def test_weights_of_another_shape_are_refused_in_one_line(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], module: str, key: str, value: Any
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / module / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(UserError, match=rf"{module}: the weights do not fit config.json") as error:
        load_pipeline(tmp_path, "cpu")
    assert "\n" not in str(error.value) and "MISMATCH" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("name", "tensor", "reason"),
    [
        ("unet/diffusion_pytorch_model", "conv_in.weight", r"expected shape .*\[64, 9, 3, 3\]"),
        ("vae/diffusion_pytorch_model", "quant_conv.bias", r"expected shape .*\[8\]"),
        ("image_encoder/model", "visual_projection.weight", r"wrong shape: .* \[1\], expected \[32, 32\]"),
    ],
)
def test_every_tensor_must_be_there_finite_and_known(
    folder: Path, tmp_path: Path, name: str, tensor: str, reason: str
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / f"{name}.safetensors"
    weights = load_file(path)
    rest = {key: value for key, value in weights.items() if key != tensor}
    nothing = torch.full_like(weights[tensor], torch.nan)
    for changed, message in (
        (rest, f"missing: {tensor}; get"),
        (weights | {"further": torch.zeros(1)}, "unexpected: further; get"),
        (weights | {tensor: torch.zeros(1)}, reason),
        (weights | {tensor: nothing}, f"{tensor} of {path.parent.name} has NaN or inf"),
    ):
        save_file(changed, path)
        with pytest.raises(UserError, match=message) as error:
            StereoInpaintPipeline.from_pretrained(tmp_path)
        assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    "name", ["model_index", "unet/config", "vae/config", "image_encoder/config", "scheduler/scheduler_config"]
)
def test_unreadable_configs_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / f"{name}.json"
    for content, message in (
        (b"{", "not JSON"),
        (b"\xff\xfe\0", "not JSON"),
        (b"[]", "must be a JSON object"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"{name}.json: {message}"):
            load_pipeline(tmp_path, "cpu")


@pytest.mark.parametrize(
    ("module", "name"), [("unet", "num_frames"), ("unet", "sample_size"), ("vae", "scaling_factor")]
)
def test_configs_without_sizes_are_refused(folder: Path, tmp_path: Path, module: str, name: str) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / module / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: 0}))
    with pytest.raises(UserError, match=rf"{module}/config.json: {name} must be above 0, got 0"):
        load_pipeline(tmp_path, "cpu")


def test_a_broken_file_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    for module, file in (("unet", "diffusion_pytorch_model"), ("image_encoder", "model")):
        path = tmp_path / module / f"{file}.safetensors"
        whole = path.read_bytes()
        path.write_bytes(whole[:1000])
        with pytest.raises(UserError, match=f"{module}: the weights do not fit"):
            load_pipeline(tmp_path, "cpu")
        path.write_bytes(whole)


def test_a_variant_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"diffusion_pytorch_model.fp16.safetensors is missing; leave out"):
        StereoInpaintPipeline.from_pretrained(folder, variant="fp16")


def test_incomplete_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model_index.json is missing"):
        load_pipeline(tmp_path, "cpu")
    with pytest.raises(UserError, match="needs weights"):
        make_inpainter("diffusion", None, "cpu")
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"vae: diffusion_pytorch_model.safetensors is missing"):
        load_pipeline(broken, "cpu")
    (broken / "unet" / "config.json").unlink()
    with pytest.raises(UserError, match=r"unet.config.json: file not found"):
        load_pipeline(broken, "cpu")


# What the release can be asked for besides its defaults


def test_uneven_decode_groups_leave_the_remainder_to_the_last(tiny: StereoInpaintPipeline) -> None:
    latents = torch.randn(7, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, even = decode(tiny.vae, latents, 3, even=False), decode(tiny.vae, latents, 3)
        scaled = (latents / tiny.vae.config.scaling_factor).split([3, 3, 1])
        parts = [tiny.vae.decode(part, num_frames=len(part)).sample for part in scaled]
    assert_close(whole, nn.functional.pixel_shuffle(torch.cat(parts), whole.shape[-1] // parts[0].shape[-1]))
    assert not torch.allclose(whole, even, atol=1e-3)
    assert not RELEASE_SAMPLING.even_groups


def test_time_ids_hold_rate_and_motion(tiny: StereoInpaintPipeline) -> None:
    message: list[list[float]] = []
    hook = tiny.unet.register_forward_pre_hook(
        lambda _, __, given: message.append(given["added_time_ids"][0].tolist()), with_kwargs=True
    )
    sampling = replace(RELEASE_SAMPLING, steps=1, guidance=1.0, fps=10, motion=60, noise_share=0.25)
    frames = torch.rand(1, 3, 40, 72)  # sides of 8
    made = tiny(frames, frames[:, :1], sampling=sampling, generator=torch.Generator().manual_seed(0))
    hook.remove()
    assert message == [[9.0, 60.0, 0.25]] and made.frames.shape == frames.shape


def test_given_noise_needs_no_generator(tiny: StereoInpaintPipeline) -> None:
    frames, holes = torch.rand(2, 3, 64, 64), torch.ones(2, 1, 64, 64)
    noise = torch.randn(1, 2, 4, 8, 8)
    sampling = replace(RELEASE_SAMPLING, steps=1)
    one = tiny(frames, holes, sampling=sampling, noise=noise)
    two = tiny(frames, holes, sampling=sampling, noise=noise, generator=torch.Generator().manual_seed(0))
    assert torch.equal(one.frames, two.frames)
    with pytest.raises(ValueError, match="needs a generator"):
        tiny(frames, holes, sampling=replace(sampling, noise_share=0.1), noise=noise)
    with pytest.raises(ValueError, match=r"noise must be \[1, 2, 4, 8, 8\], got \[1, 2, 4, 8, 9\]"):
        tiny(frames, holes, sampling=sampling, noise=torch.zeros(1, 2, 4, 8, 9))


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"decode_frames": 0},
        {"noise_share": -1.0},
        {"noise_share": math.nan},
        {"guidance": math.nan},
        {"guidance": (1.0, 2.0, 3.0)},
    ],
)
def test_sampling_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}.* must be"):
        replace(RELEASE_SAMPLING, **wrong)


# Doors


def test_unknown_options_are_refused(folder: Path) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'torch_dtyp'"):
        StereoInpaintPipeline.from_pretrained(folder, torch_dtyp=torch.float16)
    with pytest.raises(ValueError, match=r"must be a torch.dtype, got 'float16'"):
        StereoInpaintPipeline.from_pretrained(folder, torch_dtype="float16")
    with pytest.raises(UserError, match=r"model_index.json is missing; name the folder of a complete model"):
        StereoInpaintPipeline.from_pretrained(folder / "unet")


def test_modules_of_different_models_are_refused(tiny: StereoInpaintPipeline) -> None:
    other: Any = SimpleNamespace(config=SimpleNamespace(projection_dim=48))
    with pytest.raises(UserError, match=r"do not fit each other: 48 dimensions .*, the network needs 32"):
        StereoInpaintPipeline(tiny.vae, other, tiny.unet, tiny.scheduler)


def test_the_autoencoder_stays_in_float32(folder: Path) -> None:
    moved = StereoInpaintPipeline.from_pretrained(folder).to(torch.bfloat16)
    assert (moved.unet.dtype, moved.image_encoder.dtype, moved.vae.dtype) == (
        *(torch.bfloat16, torch.bfloat16),
        torch.float32,
    )
    small = StereoInpaintPipeline.from_pretrained(folder, storage="fp8")
    with pytest.raises(ValueError, match="stored in fp8 keeps the torch_dtype it was loaded with"):
        small.to(torch.bfloat16)


def test_sharded_half_precision_loads_and_pickles_are_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "whole")
    network = load_module(UNetSpatioTemporalConditionModel, folder / "unet", torch.float16)
    shutil.rmtree(tmp_path / "whole" / "unet")
    network.save_pretrained(tmp_path / "whole" / "unet", variant="fp16", max_shard_size="300KB")
    assert len(list((tmp_path / "whole" / "unet").glob("*.safetensors"))) > 1
    again = StereoInpaintPipeline.from_pretrained(tmp_path / "whole")
    assert same_weights(again.unet, network.float())
    for path in (tmp_path / "whole" / "unet").glob("*.safetensors*"):
        path.unlink()
    (tmp_path / "whole" / "unet" / "diffusion_pytorch_model.bin").touch()
    with pytest.raises(UserError, match="pickles may run code; convert them"):
        StereoInpaintPipeline.from_pretrained(tmp_path / "whole")
