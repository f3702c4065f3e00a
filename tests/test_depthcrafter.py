"""DepthCrafter: the release's latents, the stream against a clip computed at once, folders and the door."""

import gc
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel
from test_depth import tiny_crafter
from torch import Tensor
from torch.testing import assert_close

from secondeye.cli import main
from secondeye.conversion.provenance import read_record
from secondeye.conversion.shot_depth import estimate_shot
from secondeye.depth import DepthEstimate, DepthEstimator, DepthOptions, DepthState
from secondeye.depth.depthcrafter import DepthCrafter, DepthCrafterSettings
from secondeye.depth.depthcrafter.pipeline import GROUP_FRAMES, DepthCrafterPipeline
from secondeye.depth.depthcrafter.weights import NETWORK, SVD, identify, load_pipeline
from secondeye.depth.estimators import make_depth_estimator
from secondeye.inpaint.image_embedding import embed
from secondeye.system.errors import UserError
from secondeye.video.probe import probe

CONFORMANCE = Path(__file__).parent / "conformance"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pipeline() -> DepthCrafterPipeline:
    return tiny_crafter()


def clip(frames: int, height: int = 64, width: int = 64) -> Tensor:
    return torch.rand(frames, 3, height, width, generator=torch.Generator().manual_seed(frames))


# What the release returns


def test_latents_are_those_of_the_release(release: Path) -> None:
    with np.load(CONFORMANCE / "dc_single.npz") as file:
        arrays = {name: torch.from_numpy(file[name]) for name in ("video", "window_noise", "latents")}
        generator = torch.Generator().manual_seed(int(file["aug_seed"]))
    frames = arrays["video"].permute(0, 3, 1, 2).contiguous()
    pixel_noise = torch.randn(frames.shape, generator=generator)
    crafter = DepthCrafter(
        load_pipeline(release, "cpu"),
        DepthCrafterSettings(),
        pixel_noise=lambda number, shape: pixel_noise[number],
        window_noise=lambda number, shape: arrays["window_noise"][0, number],
    )
    latents = torch.cat([group.latents for group in crafter.latent_groups(frames.split(2))])
    assert_close(latents, arrays["latents"], atol=1e-3, rtol=0)


class WholeClip:
    """The release's loop over all of a clip at once, on diffusers' own network: windows and noise by hand."""

    def __init__(self, pipeline: DepthCrafterPipeline, settings: DepthCrafterSettings) -> None:
        self.vae, self.scheduler, self.settings = pipeline.vae, pipeline.scheduler, settings
        self.image_encoder = pipeline.image_encoder
        self.network = UNetSpatioTemporalConditionModel.from_config(pipeline.unet.config).eval()
        self.network.load_state_dict(pipeline.unet.state_dict())
        for part in self.network.modules():
            if isinstance(part, TransformerSpatioTemporalModel):
                part.register_forward_pre_hook(self._give_embeddings, with_kwargs=True)

    def _give_embeddings(self, part, inputs, options):  # type: ignore[no-untyped-def]
        """Diffusers repeats one embedding for all frames; here every frame has its own."""
        return inputs, options | {"encoder_hidden_states": self.embeddings[:, None]}

    @torch.no_grad()
    def latents(self, frames: Tensor, pixel_noise: Tensor, window_noise: Tensor) -> Tensor:
        count, settings = len(frames), self.settings
        window, overlap = settings.window_frames, settings.overlap_frames
        if count <= window:
            window, overlap = count, 0
        signed = frames * 2 - 1 + 0.02 * pixel_noise
        patches = torch.pixel_unshuffle(signed, 4)  # of the tiny autoencoder
        video = self.vae.encode(patches).latent_dist.mode()
        embeddings = embed(self.image_encoder, frames)
        self.scheduler.set_timesteps(settings.steps)
        noise = window_noise[:window].clone() * self.scheduler.init_noise_sigma
        result, start = None, 0
        while start < count - overlap:
            stop = min(start + window, count)
            self.scheduler.set_timesteps(settings.steps)
            x = noise[: stop - start].clone()
            noise = torch.cat([noise[window - overlap :], noise[: window - overlap]])
            if result is not None and overlap:
                unit = x[:overlap] / self.scheduler.init_noise_sigma
                x[:overlap] = result[-overlap:] + unit * self.scheduler.sigmas[0]
            x = self._denoise(x, video[start:stop], embeddings[start:stop])
            if result is None:
                result = x
            elif overlap:
                weight = torch.linspace(0, 1, overlap)[:, None, None, None]
                result[-overlap:] = x[:overlap] * weight + result[-overlap:] * (1 - weight)
                result = torch.cat([result, x[overlap:]])
            else:
                result = torch.cat([result, x])
            start += window - overlap
        assert result is not None
        return result

    def _denoise(self, x: Tensor, video: Tensor, embeddings: Tensor) -> Tensor:
        for t in self.scheduler.timesteps:
            scaled = self.scheduler.scale_model_input(x, t)
            velocity = self._predict(scaled, t, video, embeddings)
            if self.settings.guidance > 1:
                unguided = self._predict(scaled, t, torch.zeros_like(video), torch.zeros_like(embeddings))
                velocity = unguided + self.settings.guidance * (velocity - unguided)
            x = self.scheduler.step(velocity, t, x).prev_sample
        return x

    def _predict(self, x: Tensor, t: Tensor, video: Tensor, embeddings: Tensor) -> Tensor:
        self.embeddings = embeddings
        ids = torch.tensor([[7.0, 127.0, 0.02]])
        sample: Tensor = self.network(torch.cat([x, video], 1)[None], t, embeddings[:1, None], ids).sample[0]
        return sample

    @torch.no_grad()
    def depth(self, latents: Tensor) -> Tensor:  # [T, 1, H, W] in [0, 1] over the clip
        groups = (latents / self.vae.config.scaling_factor).split(8)
        decoded = torch.cat([self.vae.decode(group, num_frames=len(group)).sample for group in groups])
        depth = (torch.pixel_shuffle(decoded, 4) / 2 + 0.5).clamp(0, 1).mean(1, keepdim=True)
        return normalised(depth)


def normalised(depth: Tensor) -> Tensor:
    return (depth - depth.min()) / (depth.max() - depth.min())


@pytest.mark.parametrize(
    ("frames", "window", "overlap", "guidance"),
    [
        (1, 5, 2, 1.0),
        (5, 5, 2, 1.2),  # exactly one window
        (6, 5, 2, 1.0),  # one frame more
        (8, 5, 2, 1.0),  # exactly two windows
        (10, 5, 2, 1.2),
        (8, 5, 4, 1.0),  # windows that overlap those before the last
        (6, 3, 0, 1.0),  # which the release cannot do
    ],
)
def test_stream_equals_the_clip_computed_at_once(
    pipeline: DepthCrafterPipeline, frames: int, window: int, overlap: int, guidance: float
) -> None:
    settings = DepthCrafterSettings(2, guidance, window, overlap)
    generator = torch.Generator().manual_seed(frames)
    video, pixel_noise = clip(frames), torch.randn(frames, 3, 64, 64, generator=generator)
    window_noise = torch.randn(window, 4, 8, 8, generator=generator)
    crafter = DepthCrafter(
        pipeline,
        settings,
        pixel_noise=lambda number, shape: pixel_noise[number],
        window_noise=lambda number, shape: window_noise[number],
    )
    whole = WholeClip(pipeline, settings)
    expected = whole.latents(video, pixel_noise, window_noise)
    latents = torch.cat([group.latents for group in crafter.latent_groups(video.split(3))])
    assert_close(latents, expected, atol=1e-3, rtol=0)
    depth = torch.cat([estimate.depth for estimate in crafter(video.split(4))])
    assert (normalised(depth) - whole.depth(expected)).abs().max() < 1 / 255


@pytest.mark.parametrize(
    ("frame", "resolution", "working", "depth"),
    [
        ((1080, 1920), 1024, (576, 1024), (576, 1024)),
        ((436, 1024), 1024, (448, 1024), (436, 1024)),
        ((768, 1280), 1024, (640, 1024), (614, 1024)),
        ((96, 160), 1024, (128, 128), (77, 128)),  # halves are rounded to even multiples
        ((600, 1050), 1024, (576, 1024), (585, 1024)),
        ((2160, 3840), 640, (384, 640), (360, 640)),
        ((7, 5), 1024, (64, 64), (7, 5)),
        ((60, 2000), 1024, (64, 1024), (31, 1024)),
    ],
)
def test_working_size_is_rounded_as_in_the_release(
    frame: tuple[int, int], resolution: int, working: tuple[int, int], depth: tuple[int, int]
) -> None:
    """The depth has the frame's aspect again."""
    settings = DepthCrafterSettings(resolution_px=resolution)
    assert settings.working_size(*frame) == working
    assert settings.depth_size(*frame) == depth


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"window_frames": 25},
        {"overlap_frames": -1},
        {"resolution_px": 1000},
        {"resolution_px": 0},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        DepthCrafterSettings(**wrong)


# The stream


def test_memory_does_not_grow_with_the_shot(pipeline: DepthCrafterPipeline) -> None:
    settings = DepthCrafterSettings(1, 1.0, 4, 1)
    crafter = DepthCrafter(pipeline, settings)
    held: list[int] = []

    def storage(tensor: Tensor) -> tuple[int, int]:
        try:
            return tensor.data_ptr(), tensor.untyped_storage().nbytes()
        except RuntimeError:  # of another test: torch.export leaves tensors without storage behind
            return 0, 0

    def live_bytes() -> int:
        tensors = (thing for thing in gc.get_objects() if issubclass(type(thing), Tensor))
        return sum(dict(map(storage, tensors)).values())

    def windows(frames: int) -> Iterator[Tensor]:
        for _ in range(frames // 4):
            yield torch.rand(4, 3, 64, 64)

    for group in crafter.latent_groups(windows(40)):
        assert len(group.sampled) <= settings.window_frames + 2 * GROUP_FRAMES
        if group.first in (16, 32):
            held.append(live_bytes())
    assert held[1] - held[0] < 4 * 3 * 64 * 64  # not one frame more after 40 than after 24


@pytest.mark.parametrize(("window", "overlap", "frames", "stop"), [(5, 2, 17, 10), (8, 0, 16, 16)])
def test_interrupted_shot_ends_in_the_same_bytes(
    pipeline: DepthCrafterPipeline, tmp_path: Path, window: int, overlap: int, frames: int, stop: int
) -> None:
    """Interrupted in the middle of a group of frames, and when no more frames are to be read."""
    crafter = DepthCrafter(pipeline, DepthCrafterSettings(1, 1.0, window, overlap))
    video, begun = clip(frames), list[int]()

    def windows_from(first: int) -> Iterator[Tensor]:
        begun.append(first)
        yield from video[first:].split(3)

    def estimate(name: str, estimator: DepthEstimator) -> bytes:
        return estimate_shot(windows_from, estimator, tmp_path / name, save_every=1).path.read_bytes()

    def interrupted(windows: Iterable[Tensor], state: DepthState | None = None) -> Iterator[DepthEstimate]:
        yield from islice(crafter(windows, state), stop)
        raise KeyboardInterrupt

    whole = estimate("whole.f32", crafter)
    with pytest.raises(KeyboardInterrupt):
        estimate("parts.f32", interrupted)
    assert estimate("parts.f32", crafter) == whole
    assert begun[:2] == [0, 0] and begun[2] >= 8  # it does not begin at the start again


def test_progress_moves_with_every_step_and_ends_with_the_frames(
    pipeline: DepthCrafterPipeline, tmp_path: Path
) -> None:
    """Also that of a shot which is continued."""
    frames = 10
    crafter, video = DepthCrafter(pipeline, DepthCrafterSettings(2, 1.0, 5, 2)), clip(frames)
    reports: list[int] = []
    estimate_shot(
        lambda first: video[first:].split(3),
        crafter,
        tmp_path / "shot.f32",
        save_every=1,
        on_frames=reports.append,
    )
    assert reports[:2] == [1, 2]  # 5 frames, 2 steps and decoding: 1.67 and 3.33 frames
    assert sum(reports) == frames and min(reports) == 0
    states = [estimate.state for estimate in crafter([video])]
    for state in states[::4]:
        reports.clear()
        rest = list(crafter.reporting(reports.append)([video[state.first_frame :]], state))
        assert sum(reports) == len(rest) == frames - state.next_frame


def test_network_that_returns_nan_is_one_line(pipeline: DepthCrafterPipeline) -> None:
    hook = pipeline.unet.register_forward_hook(lambda *_: (torch.full((1, 3, 4, 8, 8), torch.nan),))
    with pytest.raises(UserError, match="NaN"):
        list(DepthCrafter(pipeline, DepthCrafterSettings())([clip(3)]))
    hook.remove()


def test_modules_that_wait_off_the_device_give_the_same(pipeline: DepthCrafterPipeline) -> None:
    settings = DepthCrafterSettings(1, 1.0, 5, 2)
    expected = [estimate.depth for estimate in DepthCrafter(pipeline, settings)([clip(9)])]
    waiting = tiny_crafter()
    waiting.enable_model_cpu_offload(device="cpu")
    found = [estimate.depth for estimate in DepthCrafter(waiting, settings)([clip(9)])]
    assert torch.equal(torch.cat(found), torch.cat(expected))


def test_half_precision_is_close(pipeline: DepthCrafterPipeline) -> None:
    """As on a GPU: network and image encoder in float16, autoencoder and all latents in float32."""
    settings = DepthCrafterSettings(2, 1.2, 3, 1)
    half = tiny_crafter()
    half.unet.half()
    half.image_encoder.half()
    exact, found = (
        torch.cat([estimate.depth for estimate in DepthCrafter(which, settings)([clip(4)])])
        for which in (pipeline, half)
    )
    assert found.dtype == torch.float32 and not torch.equal(found, exact)
    assert_close(found, exact, atol=0.02, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("offload", [False, True])
def test_a_gpu_gives_nearly_the_same(release: Path, offload: bool) -> None:
    settings = DepthCrafterSettings(2, 1.2, 3, 1)
    estimates = [
        torch.cat([estimate.depth for estimate in DepthCrafter(pipeline, settings)([clip(4)])])
        for pipeline in (load_pipeline(release, "cpu"), load_pipeline(release, "cuda", offload))
    ]
    assert estimates[1].device.type == "cpu"
    assert_close(estimates[1], estimates[0], atol=0.05, rtol=0)


def test_memory_that_does_not_suffice_is_one_line(pipeline: DepthCrafterPipeline) -> None:
    crafter = DepthCrafter(pipeline, DepthCrafterSettings(), DepthOptions(memory_bytes=2**30))
    crafter.require_memory(64, 64)
    with pytest.raises(UserError, match=r"1024x576 needs \d+\.\d GiB .* smaller --depth-resolution"):
        crafter.require_memory(1080, 1920)


# Weights


def test_weights_in_the_cache_are_found(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=rf"hf download {NETWORK}"):
        make_depth_estimator("depthcrafter", None, "cpu")
    for model, folder in ((NETWORK, "DepthCrafter"), (SVD, "stable-video-diffusion-img2vid-xt-1-1")):
        repository = tmp_path / f"models--{model.replace('/', '--')}"
        (repository / "snapshots").mkdir(parents=True)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0123")
        (repository / "snapshots" / "0123").symlink_to(release / folder)
    online = make_depth_estimator("depthcrafter", None, "cpu")
    local = make_depth_estimator(f"depthcrafter:{release}", None, "cpu")
    depths = [torch.cat([e.depth for e in estimator([clip(2)])]) for estimator in (online, local)]
    assert torch.equal(*depths) and depths[0].std() > 0


@pytest.fixture
def copied(release: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(release, tmp_path / "copied"))


def test_config_of_the_release_names_another_class(copied: Path) -> None:
    config = copied / "DepthCrafter" / "config.json"
    name = "DiffusersUNetSpatioTemporalConditionModelDepthCrafter"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"_class_name": name}))
    assert load_pipeline(copied, "cpu").unet.conv_in.in_channels == 8


def replace_network(folder: Path) -> None:
    shutil.rmtree(folder / "DepthCrafter")
    shutil.copytree(folder / "StereoCrafter" / "unet_diffusers", folder / "DepthCrafter")


@pytest.mark.parametrize(
    ("break_it", "line"),
    [
        (lambda folder: shutil.rmtree(folder / "DepthCrafter"), "must hold the weights of"),
        (lambda folder: shutil.rmtree(folder / "stable-video-diffusion-img2vid-xt-1-1"), "must hold"),
        (lambda folder: (folder / "DepthCrafter" / "config.json").write_text("{"), "not JSON"),
        (
            lambda folder: (folder / "DepthCrafter" / "diffusion_pytorch_model.safetensors").unlink(),
            "missing",
        ),
        (replace_network, "copied/DepthCrafter: the network has 9 input channels"),
    ],
)
def test_wrong_folders_are_one_line(copied: Path, break_it: Callable[[Path], object], line: str) -> None:
    break_it(copied)
    with pytest.raises(UserError, match=line) as refused:
        make_depth_estimator(f"depthcrafter:{copied}", None, "cpu")
    assert "\n" not in str(refused.value)


def test_offloading_without_a_gpu_is_refused(release: Path) -> None:
    with pytest.raises(UserError, match="offload"):
        make_depth_estimator(f"depthcrafter:{release}", None, "cpu", DepthOptions(offload=True))


# The door


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str, command: str = "convert") -> int:
    monkeypatch.setattr(sys, "argv", ["secondeye", command, *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.slow(seconds=15)
def test_a_film_is_converted_in_several_windows(
    release: Path, make_film: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two shots, one of two windows; the record names the weights."""
    film = make_film(shots=(115, 9), sound=False)
    sampled: list[int] = []
    sample = DepthCrafterPipeline.sample

    def counting(self, encoded, *given, **options):  # type: ignore[no-untyped-def]
        sampled.append(len(encoded.latents))
        return sample(self, encoded, *given, **options)

    monkeypatch.setattr(DepthCrafterPipeline, "sample", counting)
    output = film.with_name("out.mp4")
    options = ["--output", str(output), "--inpainter", "fill", "--depth-resolution", "64"]
    assert run(monkeypatch, str(film), "--depth", f"depthcrafter:{release}", *options) == 0
    assert sampled == [110, 30, 9]
    assert probe(output).frames == 124
    record = read_record(output)
    assert record is not None and record["settings"]["depth_resolution"] == 64
    weights, licences = identify(release)
    assert record["depth"] == {
        "name": f"depthcrafter:{release.name}",
        "weights": weights,
        "licences": licences,
    }


def test_only_weights_that_are_used_have_a_part_in_the_hash(copied: Path) -> None:
    before, _ = identify(copied)
    shutil.rmtree(copied / "StereoCrafter")
    shutil.rmtree(copied / "stable-video-diffusion-img2vid-xt-1-1" / "unet")
    assert identify(copied)[0] == before
    config = copied / "DepthCrafter" / "config.json"
    config.write_text(config.read_text() + " ")
    assert identify(copied)[0] != before


def test_maps_of_a_film_are_written(
    release: Path,
    make_film: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    film = make_film(shots=(1,), sound=False, height=480, width=640)
    options = ["--output", str(film.with_name("maps.npz")), "--depth", f"depthcrafter:{release}"]
    options += ["--max-memory-gb", "1.5"]
    assert run(monkeypatch, str(film), *options, command="depth") == 1
    assert "640x512 needs" in capsys.readouterr().err.splitlines()[-1]
    assert run(monkeypatch, str(film), *options, "--depth-resolution", "64", command="depth") == 0
    assert "1/1" in capsys.readouterr().err
    with np.load(film.with_name("maps.npz")) as maps:
        assert maps["depth"].shape == (1, 48, 64) and np.ptp(maps["depth"]) == 65535


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--depth", "depthcrafter:/nowhere"), "/nowhere: no such folder"),
        (("--depth", "depthcrafter:"), "the source after 'depthcrafter:' is missing"),
        (("--depth-resolution", "1000"), "must be a multiple of 64"),
    ],
)
def test_wrong_options_are_one_line(
    make_film: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    line: str,
) -> None:
    assert run(monkeypatch, str(make_film(shots=(2,), sound=False)), *options) == 1
    errors = capsys.readouterr().err.splitlines()
    assert line in errors[-1] and not any("Traceback" in error for error in errors)
