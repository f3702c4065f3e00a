"""The diffusion inpainter: the release's arrays, then laws of the loop, the folders and the picture."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conformance.tiny_release import SEEDS, make_network, write_release
from torch import Tensor, nn
from torch.testing import assert_close

from secondeye.inpaint import Inpainter, Warped, make_inpainter
from secondeye.inpaint.diffusion import inpaint_warped, load_diffusion, reduce_warped, reduction
from secondeye.inpaint.pipeline import (
    REFERENCE,
    Painted,
    Sampling,
    StereoInpaintPipeline,
    latent_mask,
    resize_for_clip,
    scaling_factor_of,
    timestep_of,
)
from secondeye.inpaint.time_convolution import flatten_time_convolutions
from secondeye.inpaint.tiny import make_schedule, make_tiny
from secondeye.inpaint.weights import load_pipeline
from secondeye.refusal import Refusal

CONFORMANCE = Path(__file__).parent / "conformance"
STEPS = 2

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    write_release(folder)
    return folder


@pytest.fixture(scope="module")
def released(release: Path) -> StereoInpaintPipeline:
    return load_pipeline(release, "cpu")


@pytest.fixture(scope="module")
def tiny() -> StereoInpaintPipeline:
    torch.manual_seed(3)
    return make_tiny(frames=4)


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


def test_one_chunk_is_the_releases(released: StereoInpaintPipeline) -> None:
    arrays = recorded("sc_single")
    seen: list[Tensor] = []
    hook = released.unet.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
    painted = released(
        arrays["frames"],
        arrays["mask"],
        sampling=REFERENCE,
        generator=torch.Generator(),
        noise=arrays["noise"],
    )
    hook.remove()
    assert len(seen) == 2 * arrays["n_unet_calls"]  # ours are two passes of one, not one of two
    for step in (0, 7):
        given, nothing = seen[2 * step : 2 * step + 2]
        assert_close(torch.stack([nothing, given]), arrays[f"unet_in_step{step}"], atol=1e-3, rtol=0)
    assert_close(painted.latents, arrays["latents"], atol=1e-3, rtol=0)
    difference = (painted.frames.permute(0, 2, 3, 1) - arrays["decoded01"]).abs().max()
    assert difference <= 1 / 255


def test_random_numbers_are_drawn_in_the_releases_order(released: StereoInpaintPipeline) -> None:
    arrays = recorded("sc_generator")
    painted = released(
        arrays["frames"],
        arrays["mask"],
        sampling=replace(REFERENCE, steps=2, noise_share=0.02),
        generator=torch.Generator().manual_seed(int(arrays["seed"])),
    )
    assert_close(painted.latents, arrays["latents"], atol=1e-3, rtol=0)


def test_schedule_is_the_releases() -> None:
    arrays, scheduler = recorded("schedule"), make_schedule()
    for steps in (1, 2, 3, 4, 5, 8, 25):
        scheduler.set_timesteps(steps)
        assert_close(scheduler.sigmas, arrays[f"sigmas{steps}"], atol=1e-4, rtol=1e-5)
        assert_close(scheduler.timesteps, arrays[f"timesteps{steps}"], atol=1e-5, rtol=0)
        # Training tells the network of a sigma as sampling does.
        assert_close(timestep_of(scheduler.sigmas[:-1]), scheduler.timesteps, atol=1e-5, rtol=0)
    assert float(scheduler.init_noise_sigma) == pytest.approx(float(arrays["init_noise_sigma"]))


def test_resize_in_front_of_clip_is_the_releases() -> None:
    arrays = recorded("resize224_128x192")
    assert_close(resize_for_clip(arrays["image"]), arrays["out"], atol=1e-5, rtol=0)


# The loop


def test_guidance_of_one_is_one_pass_a_step(tiny: StereoInpaintPipeline) -> None:
    calls: list[None] = []
    hook = tiny.unet.register_forward_pre_hook(lambda *_: calls.append(None))
    paint(tiny, torch.rand(2, 3, 64, 64), guidance=1.0)
    once = len(calls)
    paint(tiny, torch.rand(2, 3, 64, 64), guidance=1.5)
    hook.remove()
    assert (once, len(calls) - once) == (STEPS, 2 * STEPS)


def paint(pipeline: StereoInpaintPipeline, frames: Tensor, guidance: float = 1.0, seed: int = 0) -> Painted:
    sampling = Sampling(
        steps=STEPS, guidance=guidance, noise_share=0.0, keep_thin_holes=True, decode_frames=2
    )
    generator = torch.Generator().manual_seed(seed)
    return pipeline(frames, torch.zeros_like(frames[:, :1]), sampling=sampling, generator=generator)


def test_the_generator_alone_decides(tiny: StereoInpaintPipeline) -> None:
    frames = torch.rand(1, 3, 64, 64)
    first, again, other = (paint(tiny, frames, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first.frames, again.frames)
    assert not torch.equal(first.frames, other.frames)


def test_pictures_have_their_shapes_and_range(tiny: StereoInpaintPipeline) -> None:
    painted = paint(tiny, torch.rand(3, 3, 64, 128))
    assert painted.frames.shape == (3, 3, 64, 128) and painted.latents.shape == (3, 4, 8, 16)
    assert painted.frames.min() >= 0 and painted.frames.max() <= 1


def test_sides_must_be_multiples(tiny: StereoInpaintPipeline) -> None:
    with pytest.raises(ValueError, match="multiples of 64"):
        paint(tiny, torch.rand(1, 3, 64, 72))


def test_thin_holes_stay_in_our_mask_and_not_in_the_releases() -> None:
    holes = torch.zeros(1, 1, 64, 64)
    holes[0, 0, 3, 5] = 1  # beside the top left pixel of its block
    holes[0, 0, 16, 24] = 0.5
    ours, theirs = latent_mask(holes, keep_thin_holes=True), latent_mask(holes, keep_thin_holes=False)
    assert ours.nonzero()[:, 2:].tolist() == [[0, 0], [2, 3]]
    assert theirs.nonzero()[:, 2:].tolist() == [[2, 3]]


def test_scaled_latents_have_a_deviation_of_one() -> None:
    latents = 3 * torch.randn(2, 4, 16, 16) + 1
    assert float((latents * scaling_factor_of(latents)).std()) == pytest.approx(1, rel=1e-5)
    with pytest.raises(ValueError, match="can not be scaled"):
        scaling_factor_of(torch.zeros(1, 4, 8, 8))


def test_convolutions_over_time_are_the_same() -> None:
    convolution = nn.Conv3d(3, 5, (3, 1, 1), padding=(1, 0, 0))
    array = torch.rand(2, 3, 4, 6, 7)
    expected = convolution(array)
    flatten_time_convolutions(convolution)
    assert type(convolution) is not nn.Conv3d
    assert_close(convolution(array), expected)


# Folders


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    weights, others = one.state_dict(), other.state_dict()
    return weights.keys() == others.keys() and all(
        torch.equal(weights[name], others[name]) for name in weights
    )


def test_a_saved_pipeline_paints_the_same(tiny: StereoInpaintPipeline, folder: Path) -> None:
    again = load_pipeline(folder, "cpu")
    frames = torch.rand(2, 3, 64, 64)
    assert_close(paint(again, frames).frames, paint(tiny, frames).frames, atol=1e-5, rtol=0)
    assert same_weights(again.unet, tiny.unet) and same_weights(again.vae, tiny.vae)
    assert not list(folder.rglob("*.bin"))


def test_a_saved_folder_has_the_released_layout(folder: Path) -> None:
    parts = {"unet", "vae", "image_encoder", "scheduler", "feature_extractor"}
    assert {path.name for path in folder.iterdir()} == parts | {"model_index.json"}
    index = json.loads((folder / "model_index.json").read_text())
    assert {name for name in index if not name.startswith("_")} == parts


def test_diffusers_own_door_opens_a_saved_folder(tiny: StereoInpaintPipeline, folder: Path) -> None:
    again = StereoInpaintPipeline.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    frames = torch.rand(1, 3, 64, 64)
    assert_close(paint(again, frames).frames, paint(tiny, frames).frames, atol=1e-5, rtol=0)


def test_the_network_may_lie_at_the_root(
    release: Path, released: StereoInpaintPipeline, tmp_path: Path
) -> None:
    shutil.copytree(release, tmp_path / "weights")
    network = tmp_path / "weights" / "StereoCrafter" / "unet_diffusers"
    shutil.copytree(network, network.parent, dirs_exist_ok=True)
    shutil.rmtree(network)
    again = load_pipeline(tmp_path / "weights", "cpu")
    assert same_weights(again.unet, released.unet)


def test_a_network_without_the_masks_channel_is_refused(release: Path, tiny: StereoInpaintPipeline) -> None:
    with pytest.raises(Refusal, match="has 8 input channels, stereo inpainting needs 9"):
        load_pipeline(release / "stable-video-diffusion-img2vid-xt-1-1", "cpu")
    with pytest.raises(Refusal, match="has 8 input channels, stereo inpainting needs 9"):
        StereoInpaintPipeline(tiny.vae, tiny.image_encoder, make_network(8, SEEDS["unet"]), tiny.scheduler)


def test_incomplete_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="no model_index"):
        load_pipeline(tmp_path, "cpu")
    with pytest.raises(Refusal, match="needs weights"):
        make_inpainter("diffusion", None, "cpu")
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(Refusal, match=r"vae: diffusion_pytorch_model.safetensors is missing"):
        load_pipeline(broken, "cpu")
    (broken / "unet" / "config.json").unlink()
    with pytest.raises(Refusal, match=r"unet.config.json: there is no such file"):
        load_pipeline(broken, "cpu")


# The picture


@pytest.fixture(scope="module")
def inpainter(folder: Path) -> Inpainter:
    return load_diffusion(folder, "cpu", steps=1)


@pytest.mark.parametrize("size", [(1, 41, 57), (3, 64, 64), (5, 33, 70)])
def test_what_was_seen_stays_bit_for_bit(inpainter: Inpainter, size: tuple[int, int, int]) -> None:
    warped = scene(*size)
    whole, _ = inpainter(warped, None)
    seen = (warped.coverage == 1).expand_as(whole)
    assert whole.shape == warped.frames.shape and whole.dtype == torch.float32
    assert torch.equal(whole[seen], warped.frames[seen])
    assert not torch.equal(whole[~seen], warped.frames[~seen])
    assert whole.min() >= 0 and whole.max() <= 1
    again, _ = inpainter(warped, None)
    assert torch.equal(whole, again)


def test_what_was_half_seen_is_half_painted(tiny: StereoInpaintPipeline) -> None:
    warped = scene(1, 64, 64)
    nothing_seen = warped._replace(coverage=torch.where(warped.coverage < 1, 0.0, 1.0))
    half, _ = inpaint_warped(tiny, warped, None, 1)
    painted, _ = inpaint_warped(tiny, nothing_seen, None, 1)
    edge = (..., slice(16, 17))
    # The network's mask differs there too, so that only the bounds of the blend can be told.
    assert (half[edge] - 0.6 * warped.frames[edge]).abs().max() <= 0.4 + 1e-6
    assert not torch.equal(half[edge], painted[edge])


def test_without_holes_nothing_runs(tiny: StereoInpaintPipeline) -> None:
    warped = scene(2, 64, 64)
    whole, memory = inpaint_warped(tiny, warped._replace(coverage=torch.ones_like(warped.coverage)), None, 0)
    assert torch.equal(whole, warped.frames)
    assert len(memory.frames) == 1


def test_chunks_go_on_from_what_was_painted(
    tiny: StereoInpaintPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network sees 4 frames here: after the first chunk one of them is the last whole picture."""
    given: list[Tensor] = []

    def paint_grey(_: StereoInpaintPipeline, frames: Tensor, holes: Tensor, **__: object) -> Painted:
        given.append(torch.cat([frames, holes], dim=1))
        return Painted(torch.zeros(0), torch.full_like(frames, len(given) / 10))

    monkeypatch.setattr(StereoInpaintPipeline, "__call__", paint_grey)
    warped = scene(9, 64, 64)
    whole, memory = inpaint_warped(tiny, warped, None, 1)
    assert [len(chunk) for chunk in given] == [4, 4, 3]
    assert_close(whole[4:7, :, :, 12], torch.full((3, 3, 64), 0.2))
    assert torch.equal(given[1][0, :3], whole[3]) and torch.equal(given[2][0, :3], whole[6])
    # Its mask is left as it is, and the frames after it are as they came.
    assert torch.equal(given[1][:, 3:], given[0][:, 3:])
    assert torch.equal(given[1][1:, :3], warped.frames[4:7])
    # A window after these begins in the same way.
    inpaint_warped(tiny, warped, memory, 1)
    assert torch.equal(given[3][0, :3], whole[8])


def test_windows_of_one_frame(inpainter: Inpainter) -> None:
    memory = None
    for seed in range(2):
        warped = scene(1, 40, 50, seed)
        whole, memory = inpainter(warped, memory)
        assert whole.shape == warped.frames.shape and bool(torch.isfinite(whole).all())


def test_large_pictures_are_painted_smaller_and_stay_sharp(tiny: StereoInpaintPipeline) -> None:
    assert [reduction(tiny, *size) for size in ((128, 224), (176, 177), (256, 448), (1080, 1920))] == [
        1,
        2,
        2,
        9,
    ]
    warped = scene(1, 181, 190)
    whole, memory = inpaint_warped(tiny, warped, None, 1)
    seen = (warped.coverage == 1).expand_as(whole)
    assert torch.equal(whole[seen], warped.frames[seen])
    assert memory.frames.shape == (1, 3, 91, 95)


def test_reducing_darkens_nothing_and_loses_no_hole() -> None:
    coverage = torch.ones(1, 1, 9, 13)
    coverage[0, 0, 4, 6] = 0
    frames = torch.full((1, 3, 9, 13), 0.5) * coverage
    small, holes = reduce_warped(frames, coverage, 2)
    assert_close(small, torch.full((1, 3, 5, 7), 0.5))
    assert holes.shape == (1, 1, 5, 7) and holes[0, 0, 2, 3] == 1 and holes.sum() <= 4


@pytest.mark.parametrize("plane", ["frames", "coverage"])
def test_doors(tiny: StereoInpaintPipeline, plane: str) -> None:
    warped = scene(1, 40, 50)
    with pytest.raises(ValueError):
        inpaint_warped(tiny, warped._replace(**{plane: getattr(warped, plane)[..., :-1]}), None, 1)
    with pytest.raises(ValueError, match="NaN"):
        inpaint_warped(tiny, warped._replace(**{plane: getattr(warped, plane) * float("nan")}), None, 1)
