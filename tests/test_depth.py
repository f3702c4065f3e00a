"""Depth estimators: what every one of them promises, and what each of them is for."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conformance.video_depth_weights import make_tiny_network
from depth_models import METRIC, NETWORKS, write_model
from exported_networks import WRITERS
from fake_hub import serve_silence
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForDepthEstimation

from secondeye.depth import DepthEstimate, DepthEstimator, SmallFrameEstimator
from secondeye.depth.depthcrafter import DepthCrafter, DepthCrafterSettings
from secondeye.depth.depthcrafter.network import DepthNetwork
from secondeye.depth.depthcrafter.pipeline import GROUP_FRAMES, DepthCrafterPipeline
from secondeye.depth.estimators import best_available, choose_best, find_weights, make_depth_estimator
from secondeye.depth.frame_by_frame import frame_by_frame, map_size, one_frame
from secondeye.depth.guided_filter import guided_filter
from secondeye.depth.hub import read_licence
from secondeye.depth.metres import MIN_DEPTH_M
from secondeye.depth.motion import LONG_SIDE_PX, MAX_OFFSET_FRAMES, MAX_THREADS, motion_depth
from secondeye.depth.position_prior import position_prior
from secondeye.depth.preprocessing import margins, read_preprocessing
from secondeye.depth.residual_flow import homography_residual
from secondeye.depth.temporal_smoothing import fit_scale_shift, smooth
from secondeye.depth.video_depth_anything import VideoDepthAnything
from secondeye.depth.video_depth_network import WINDOW_FRAMES
from secondeye.imaging.arrays import frames_from_uint8, frames_to_uint8, resize
from secondeye.inpaint import tiny
from secondeye.system.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


def texture(height: int, width: int, seed: int) -> np.ndarray:  # [height, width, 3] in [0, 1]
    noise = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    coarse = cv2.GaussianBlur(noise, (0, 0), 6) - 0.5
    return np.clip(0.5 + 4 * coarse + 2 * (cv2.GaussianBlur(noise, (0, 0), 2) - 0.5), 0, 1)


def stack(frames: list[np.ndarray]) -> Tensor:  # [T, 3, H, W]
    return torch.from_numpy(np.stack(frames).transpose(0, 3, 1, 2).copy())


def slide(count: int, *, top_px: float, bottom_px: float, height: int = 96, width: int = 160) -> Tensor:
    """Two planes, the upper and the lower half, each sliding to the left by its own px a frame."""
    image = np.vstack([texture(height // 2, 2 * width, 1), texture(height // 2, 2 * width, 2)])
    frames = []
    for index in range(count):
        rows, columns = np.indices((height, width), dtype=np.float32)
        speed = np.where(rows < height // 2, np.float32(top_px), np.float32(bottom_px))
        columns = columns + 20 + index * speed
        frames.append(cv2.remap(image, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
    return stack(frames)


def turn_and_zoom(count: int) -> Tensor:
    """One plane under a camera that turns about its axis and zooms."""
    image, frames = texture(192, 320, 3), []
    for index in range(count):
        camera = cv2.getRotationMatrix2D((160, 96), 0.4 * index, 1.01**index)
        frames.append(cv2.warpAffine(image, camera, (320, 192))[48:144, 80:240])
    return stack(frames)


def pursue(count: int) -> Tensor:
    """A square that stays in the middle while the background rushes past."""
    frames = slide(count, top_px=4, bottom_px=4)
    frames[:, :, 30:96, 55:105] = torch.from_numpy(texture(66, 50, 4).transpose(2, 0, 1).copy())
    return frames


def run(estimator: DepthEstimator, frames: Tensor, window: int = 4) -> tuple[Tensor, list[float]]:
    estimates = list(estimator(frames.split(window)))
    return torch.cat([estimate.depth for estimate in estimates]), [e.confidence for e in estimates]


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's: ties get their mean rank."""
    ranks = []
    for values in (a, b):
        _, place, count = np.unique(values.numpy().ravel(), return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(count) - count / 2)[place.ravel()])
    return float(np.corrcoef(*ranks)[0, 1])


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder in the released layout with a tiny random network of the requested kind."""
    return lambda network: write_model(tmp_path_factory.mktemp(network), network)


class Brightness(torch.nn.Module):
    """A depth network whose answer is known: larger is nearer where the frame is brighter."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(1, keepdim=True) + 1


def write_exported(
    folder: Path, kind: str = "pt2", network: torch.nn.Module | None = None, **said: Any
) -> Path:
    """Write an exported depth network of any size, with a file beside it that describes it."""
    sides = {2: torch.export.Dim("h", min=2, max=4096), 3: torch.export.Dim("w", min=2, max=4096)}
    example = (torch.zeros(1, 3, 32, 64),)
    program = torch.export.export((network or Brightness()).eval(), example, dynamic_shapes=(sides,))
    path = WRITERS[kind](folder / f"network.{kind}", program)
    if said:
        path.with_name(f"{path.name}.json").write_text(json.dumps(said))
    return path


def tiny_crafter() -> DepthCrafterPipeline:
    """DepthCrafter with the blocks of the tiny inpainter, of random weights."""
    torch.manual_seed(3)
    config = tiny.make_network(5, 8, (64, 64), sample_size=22).config
    return DepthCrafterPipeline(
        tiny.make_autoencoder(4, (64, 128)),
        tiny.make_image_encoder(),
        DepthNetwork.from_config(config).eval(),
        tiny.make_scheduler(),
    )


# DPT with DINOv2 has a head of 256 channels, which cannot be made smaller: it has tests of its own.
EVERYWHERE = [
    *("motion", "depthcrafter", "video-depth-anything"),
    *(name for name in NETWORKS if name != "dpt-dinov2"),
    *WRITERS,
]


@pytest.fixture(scope="session", params=EVERYWHERE)
def backend(
    request: pytest.FixtureRequest,
    tiny_folder: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[DepthEstimator, int]:
    """Estimator, and how many frames beyond its current window it may read."""
    if request.param == "motion":
        return make_depth_estimator("motion", None, "cpu"), MAX_OFFSET_FRAMES + MAX_THREADS
    if request.param == "video-depth-anything":
        return VideoDepthAnything(make_tiny_network(), "cpu", 28, metric=False), WINDOW_FRAMES
    if request.param == "depthcrafter":
        settings = DepthCrafterSettings(steps=1, window_frames=5, overlap_frames=2)
        return DepthCrafter(tiny_crafter(), settings), settings.window_frames + 2 * GROUP_FRAMES
    if request.param in WRITERS:
        folder = tmp_path_factory.mktemp(request.param)
        path = write_exported(folder, request.param, larger_is="nearer", short_side=32, multiple=8)
        return make_depth_estimator(f"exported:{path}", None, "cpu"), 1
    return make_depth_estimator(f"hf:{tiny_folder(request.param)}", None, "cpu"), 1


@pytest.mark.parametrize(
    ("count", "height", "width", "window"),
    [
        (1, 64, 96, 4),
        (2, 61, 99, 1),
        (7, 64, 96, 5),
        (3, 96, 54, 3),
        (3, 5, 7, 2),
        (2, 16, 16, 2),
        (1, 1, 1, 1),
    ],
)
def test_every_backend_covers_the_frames(
    backend: tuple[DepthEstimator, int], count: int, height: int, width: int, window: int
) -> None:
    frames = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))
    depth, confidence = run(backend[0], frames, window)
    assert depth.shape[:2] == (count, 1) and depth.dtype == torch.float32
    assert depth.shape[2] <= height and depth.shape[3] <= width
    assert bool(torch.isfinite(depth).all()) and all(0 <= c <= 1 for c in confidence)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_every_backend_takes_frames_without_content(
    backend: tuple[DepthEstimator, int], level: float
) -> None:
    depth, _ = run(backend[0], torch.full((3, 3, 48, 64), level))
    assert bool(torch.isfinite(depth).all())


def test_every_backend_gives_the_same_for_any_windows(backend: tuple[DepthEstimator, int]) -> None:
    frames = slide(7, top_px=1, bottom_px=3)
    whole, _ = run(backend[0], frames, 7)
    for window in (1, 3):
        assert torch.equal(run(backend[0], frames, window)[0], whole)


def test_every_backend_continues_after_every_estimate_with_equal_results(
    backend: tuple[DepthEstimator, int], tmp_path: Path
) -> None:
    count = 15 if backend[1] >= MAX_OFFSET_FRAMES else 6
    if isinstance(backend[0], VideoDepthAnything):  # its first estimate has 24 frames
        count = WINDOW_FRAMES + 2
    frames = slide(count, top_px=1, bottom_px=3, height=32, width=48)
    whole = list(backend[0](frames.split(4)))
    frames_done = accumulate(len(estimate.depth) for estimate in whole)
    for number, (estimate, done) in enumerate(zip(whole, frames_done, strict=True), start=1):
        assert estimate.state.next_frame == done
        save_file(dict(estimate.state.tensors), tmp_path / "state")
        saved = estimate.state._replace(tensors=load_file(tmp_path / "state"))
        rest = backend[0](frames[saved.first_frame :].split(3), saved)
        for a, b in zip(islice(rest, 2), whole[number:], strict=False):
            assert torch.equal(a.depth, b.depth) and a.confidence == b.confidence
            assert a.state.tensors.keys() == b.state.tensors.keys() and a.state[:2] == b.state[:2]
            assert all(torch.equal(a.state.tensors[name], b.state.tensors[name]) for name in a.state.tensors)


def test_every_backend_takes_bytes(backend: tuple[DepthEstimator, int]) -> None:
    images = frames_to_uint8(slide(6, top_px=0, bottom_px=2, height=40, width=56))
    pairs = zip(backend[0]([frames_from_uint8(images)]), backend[0](images.split(2)), strict=True)
    assert all(torch.equal(a.depth, b.depth) and a.confidence == b.confidence for a, b in pairs)


def test_motion_does_not_depend_on_threads_and_asks_for_small_frames() -> None:
    frames, threads, depths = (
        slide(18, top_px=0, bottom_px=2, height=48, width=80),
        torch.get_num_threads(),
        [],
    )
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            depths.append(torch.cat([estimate.depth for estimate in motion_depth([frames])]))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*depths)
    estimator = make_depth_estimator("motion", None, "cpu")
    assert isinstance(estimator, SmallFrameEstimator)
    assert estimator.working_size(720, 1280) == (216, LONG_SIDE_PX) and estimator.working_size(48, 80) == (
        48,
        80,
    )


def test_every_backend_reads_a_bounded_number_of_frames_ahead(backend: tuple[DepthEstimator, int]) -> None:
    estimator, ahead = backend
    read, written, count = 0, 0, 24 + ahead

    def windows() -> Iterator[Tensor]:
        nonlocal read
        for window in slide(count, top_px=0, bottom_px=1, height=32, width=48).split(2):
            read += len(window)
            yield window

    for estimate in estimator(windows()):
        assert read <= written + ahead + 2
        written += len(estimate.depth)
    assert written == count


def test_motion_gives_the_faster_plane_the_nearer_depth_wherever_it_is() -> None:
    lower = (torch.arange(96) >= 48).float()[None, None, :, None]
    for top_px, bottom_px in ((4, 1), (1, 4), (3, 0)):
        frames = slide(12, top_px=top_px, bottom_px=bottom_px)
        depth, confidence = run(make_depth_estimator("motion", None, "cpu"), frames)
        truth = (lower if bottom_px > top_px else 1 - lower).expand_as(depth)
        # Ranks against two values can reach only 0.87, two values against two 1.
        middle = depth.flatten(1).median(dim=1).values[:, None, None, None]
        assert rank_correlation((depth > middle).float(), truth) > 0.9
        if bottom_px > top_px:  # elsewhere motion contradicts the prior, or half of the picture stands still
            assert min(confidence) > 0.5


def test_motion_handles_tracking_shots() -> None:
    depth, _ = run(make_depth_estimator("motion", None, "cpu"), pursue(12))
    rows = slice(35, 90)
    assert depth[:, :, rows, 60:100].mean() > depth[:, :, rows, :40].mean() + 0.3


@pytest.mark.parametrize("shot", ["static", "turning"])
def test_motion_falls_back_to_the_prior_without_parallax(shot: str) -> None:
    frames = turn_and_zoom(8) if shot == "turning" else slide(8, top_px=0, bottom_px=0)
    depth, confidence = run(make_depth_estimator("motion", None, "cpu"), frames)
    assert max(confidence) < 0.42
    prior = torch.from_numpy(position_prior(frames[4].permute(1, 2, 0).contiguous().numpy()))
    assert rank_correlation(depth[4, 0], prior) > 0.8


def test_motion_keeps_depth_of_stopped_objects() -> None:
    moving = slide(14, top_px=4, bottom_px=0)
    stopped = torch.cat([moving, moving[-1:].expand(16, -1, -1, -1)])
    (with_past, _), (alone, _) = (
        run(make_depth_estimator("motion", None, "cpu"), shot) for shot in (stopped, stopped[-1:])
    )
    lead = [depth[-1, 0, :40].mean() - depth[-1, 0, 56:].mean() for depth in (with_past, alone)]
    assert lead[0] > lead[1] + 0.1


def test_motion_works_at_a_small_size_and_keeps_the_aspect() -> None:
    depth, _ = run(make_depth_estimator("motion", None, "cpu"), torch.zeros(1, 3, 1000, 500))
    assert depth.shape[2:] == (LONG_SIDE_PX, LONG_SIDE_PX // 2)


def test_motion_has_the_same_bits_for_any_number_of_threads() -> None:
    frames, before, results = slide(6, top_px=5, bottom_px=1), cv2.getNumThreads(), []
    for threads in (1, 2, 3, 2):
        cv2.setNumThreads(threads)
        results.append(run(make_depth_estimator("motion", None, "cpu"), frames)[0])
    cv2.setNumThreads(before)
    assert all(torch.equal(result, results[0]) for result in results)


def test_prior_ranks_low_before_high_and_objects_before_background() -> None:
    image = np.full((60, 80, 3), 0.3, np.float32)
    assert (np.diff(position_prior(image)[:, 40]) > 0).all()
    image[10:30, 30:50] = 0.9
    prior = position_prior(image)
    assert prior[20, 40] > prior[50, 40] > prior[20, 5]


def test_homography_explains_rotation_but_not_parallax() -> None:
    rows, columns = np.indices((64, 96), dtype=np.float32)
    turning = np.stack([0.02 * rows + 1, -0.02 * columns], axis=-1)
    everywhere = np.ones((64, 96), bool)
    assert homography_residual(turning, everywhere).max() < 0.05
    near = turning.copy()
    near[20:40, 30:50] += 3
    left_over = homography_residual(near, everywhere)
    assert left_over[22:38, 32:48].min() > 4 and np.median(left_over) < 0.05
    assert not homography_residual(near, ~everywhere).any()


def test_guided_filter_smooths_noise_and_keeps_the_guides_edges() -> None:
    guide = np.zeros((40, 60), np.float32)
    guide[:, 30:] = 1
    noise = np.random.default_rng(0).normal(0, 0.1, guide.shape).astype(np.float32)
    smooth = guided_filter(3 * guide + noise, guide, radius_px=5, contrast=0.05)
    assert np.abs(smooth - 3 * guide).std() < 0.03
    assert smooth[:, 30].min() - smooth[:, 29].max() > 2.7


PROCESSORS = {
    "relative": "dpt.image_processing_pil_dpt.DPTImageProcessorPil",
    "dpt": "dpt.image_processing_pil_dpt.DPTImageProcessorPil",
    "dpt-dinov2": "dpt.image_processing_pil_dpt.DPTImageProcessorPil",
    "glpn": "glpn.image_processing_pil_glpn.GLPNImageProcessorPil",
    "zoedepth": "zoedepth.image_processing_pil_zoedepth.ZoeDepthImageProcessorPil",
}


@pytest.mark.parametrize("network", PROCESSORS)
@pytest.mark.parametrize(("height", "width"), [(70, 141), (135, 90), (61, 60)])
def test_preprocessing_equals_the_processor_of_transformers(
    tiny_folder: Callable[[str], Path], network: str, height: int, width: int
) -> None:
    pytest.importorskip("PIL")
    folder = tiny_folder(network)
    module, _, name = PROCESSORS[network].rpartition(".")
    processor = getattr(import_module(f"transformers.models.{module}"), name).from_pretrained(folder)
    image = (texture(height, width, 8) * 255).round().astype(np.uint8)
    expected = torch.as_tensor(processor(image, return_tensors="pt")["pixel_values"])
    model_type = json.loads((folder / "config.json").read_text())["model_type"]
    preprocessing = read_preprocessing(folder / "preprocessor_config.json", model_type)
    actual = preprocessing.prepare(frames_from_uint8(torch.from_numpy(image)[None]))
    assert actual.shape == expected.shape
    # Processors round the resized image to 8 bits; a level is 0.02 after the division by std.
    torch.testing.assert_close(actual, expected.float(), rtol=0, atol=0.04)


@pytest.mark.parametrize("network", NETWORKS)
def test_hugging_face_networks_give_inverse_depth(tiny_folder: Callable[[str], Path], network: str) -> None:
    folder = tiny_folder(network)
    frame = torch.from_numpy(texture(70, 140, 6).transpose(2, 0, 1)[None].copy())
    model = AutoModelForDepthEstimation.from_pretrained(folder).eval()
    preprocessing = read_preprocessing(folder / "preprocessor_config.json", model.config.model_type)
    with torch.inference_mode():
        raw = model(preprocessing.prepare(frame)).predicted_depth[:, None]
    depth, confidence = run(make_depth_estimator(f"hf:{folder}", None, "cpu"), frame)
    assert confidence == [1.0] and depth.std() > 0.01 * depth.mean() > 0
    expected = 1 / raw.clamp_min(MIN_DEPTH_M) if network in METRIC else raw
    cropped = resize(preprocessing.crop(expected, 70, 140), *depth.shape[2:])
    torch.testing.assert_close(depth, cropped, rtol=1e-4, atol=1e-5)
    if network in ("relative", "metric"):
        assert torch.equal(depth, expected)  # nothing is resized, as the aspect is kept


def test_zoedepth_loses_its_margin(tiny_folder: Callable[[str], Path]) -> None:
    folder = tiny_folder("zoedepth")
    preprocessing = read_preprocessing(folder / "preprocessor_config.json", "zoedepth")
    vertical, horizontal = margins(90, 160)
    assert (vertical, horizontal) == (20, 26)  # 3 sqrt(H / 2)
    ramp = torch.arange(160 + 2 * horizontal).float().expand(1, 1, 90 + 2 * vertical, -1)
    cropped = preprocessing.crop(resize(ramp, 65, 106), 90, 160)
    assert cropped.shape == (1, 1, 90, 160)
    assert (cropped - torch.arange(horizontal, horizontal + 160)).abs()[..., 1:-1].max() < 0.6


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_results_do_not_depend_on_the_batch_nor_on_an_interruption_in_it(batch: int) -> None:
    frames = slide(7, top_px=0, bottom_px=2, height=40, width=56)
    asked = []

    def at_once(frame: Tensor) -> int:
        asked.append(tuple(frame.shape))
        return batch

    def infer(images: Tensor) -> Tensor:
        assert len(images) <= batch
        return images.mean(1, keepdim=True)[..., ::2, ::2]

    estimator = frame_by_frame(infer, at_once)
    whole = list(estimator(frames.split(5)))
    one = list(
        frame_by_frame(lambda images: images.mean(1, keepdim=True)[..., ::2, ::2], one_frame)([frames])
    )
    assert asked == [(1, 3, 40, 56)]
    assert all(torch.equal(a.depth, b.depth) for a, b in zip(whole, one, strict=True))
    state = whole[4].state
    assert state.first_frame == 5 - 5 % batch and state.next_frame == 5
    rest = frame_by_frame(infer, lambda frame: 1)(frames[state.first_frame :].split(2), state)
    assert [torch.equal(a.depth, b.depth) for a, b in zip(rest, whole[5:], strict=True)] == [True, True]


def test_maps_have_the_frames_aspect_and_at_most_its_size() -> None:
    assert map_size(518, 924, 1080, 1920) == (518, 924)
    assert map_size(384, 384, 1080, 1920) == (288, 512)  # as many pixels as the network's square
    assert map_size(1536, 1536, 1080, 1920) == (1080, 1920)
    assert map_size(56, 84, 5, 7) == (5, 7)


def test_weights_that_are_not_here_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert best_available() == "motion"
    for name in ("depth-anything-v2", "hf:Intel/zoedepth-nyu-kitti"):
        with pytest.raises(UserError, match=r"offline mode.*hf download .*motion"):
            make_depth_estimator(name, None, "cpu")
    with pytest.raises(UserError, match="neither a folder nor a name"):
        make_depth_estimator("hf:not/a/model", None, "cpu")


def write_cache(cache: Path, folder: Path) -> None:
    """Put a model into an empty Hugging Face cache as Depth Anything V2 Small."""
    repository = cache / "models--depth-anything--Depth-Anything-V2-Small-hf"
    (repository / "snapshots").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    (repository / "snapshots" / "0123").symlink_to(folder)


def test_weights_in_the_cache_are_found(
    tiny_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cache(tmp_path, tiny_folder("relative"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert best_available() == "depth-anything-v2"
    assert choose_best(print) == ("depth-anything-v2", "")
    depth, _ = run(make_depth_estimator("depth-anything-v2", None, "cpu"), torch.rand(1, 3, 64, 96))
    assert depth.shape == (1, 1, 56, 84)
    found = find_weights("depth-anything-v2")
    assert found is not None and found.licence == "apache-2.0" and len(found.hash) == 64


@pytest.fixture
def silent_server() -> Iterator[str]:
    with serve_silence() as address:
        yield address


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "http://name.invalid", "http://192.0.2.1", ""])
def test_auto_falls_back_at_once_and_says_what_would_be_better(
    address: str, silent_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens, no such name, no route, and no answer."""
    for name, value in {
        "HF_HUB_CACHE": str(tmp_path),
        "HF_HUB_OFFLINE": False,
        "ENDPOINT": address or silent_server,
    }.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    monkeypatch.setattr("secondeye.system.hub.ANSWER_SECONDS", 0.5)
    lines: list[str] = []
    started = time.monotonic()
    name, better = choose_best(lines.append)
    assert time.monotonic() - started < 4
    assert name == "motion" and not lines and "hf download depth-anything" in better and "\n" not in better


def test_auto_asks_nobody_offline(
    silent_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", silent_server)
    monkeypatch.setattr("secondeye.system.hub.HfApi", None)  # asking would fail
    name, better = choose_best(print)
    assert name == "motion" and "offline mode" in better


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: cc-by-nc-4.0\ntags:\n- a\n---\ntext", "cc-by-nc-4.0"),
        ("---\nlicense: other\nlicense_name: apple-amlr\n---\n", "apple-amlr"),
        ("---\ntags: [a]\nlicense:\n- 'mit'\n---\n", "mit"),
        ("---\ntags: [a]\n---\nlicense: mit\n", "not stated"),
        ("license: mit\n", "not stated"),
        (None, "not stated"),
    ],
)
def test_the_licence_is_that_of_the_model_card(tmp_path: Path, card: str | None, licence: str) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert read_licence(tmp_path) == licence


def spoil_config(**values: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | values))

    return spoil


def spoil_preprocessor(**values: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "preprocessor_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return spoil


def spoil_index(content: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / "model.safetensors.index.json").write_text(json.dumps(content))

    return spoil


def drop_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["head.conv2.bias"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def pickle_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


MISFITS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a weight is missing": (drop_weight, r"do not fit config.json: missing head.conv2.bias"),
    "a wrong size": (spoil_config(head_hidden_size=6), r"head.conv2.bias is \[4\], expected \[6\]"),
    "pickles": (pickle_weights, "pickled weights may run code"),
    "half a download": (
        lambda f: (f / "preprocessor_config.json").unlink(),
        "missing preprocessor_config.json",
    ),
    "a damaged file": (lambda f: (f / "model.safetensors").write_bytes(b"junk"), "do not fit config.json"),
    "damaged JSON": (lambda f: (f / "config.json").write_text("{"), "not a configuration in JSON"),
    "no depth": (spoil_config(model_type="bert"), "a bert model is not a depth network"),
    "prompts": (spoil_config(model_type="prompt_depth_anything"), "needs the depth of a sensor"),
    "trees": (spoil_config(model_type="chmv2"), "height of trees"),
    "another processor": (
        spoil_preprocessor(image_processor_type="ViTImageProcessor"),
        "the processor ViTImageProcessor is not supported",
    ),
    "no size": (
        spoil_preprocessor(size={"shortest_edge": 5}),
        r"r_config.json: .*'height' is missing",
    ),
    "an empty size": (spoil_preprocessor(size={"height": 0, "width": 0}), r"size must be 1 to 8192 px"),
    "a huge size": (spoil_preprocessor(size=10**9), r"size must be 1 to 8192 px"),
    "no spread": (spoil_preprocessor(image_std=[0, 1, 1]), r"image_std must be above 0"),
    "one mean": (spoil_preprocessor(image_mean=[0.5]), r"image_mean must be three numbers"),
    "a list of weights": (spoil_index([]), r"index.json: cannot be read"),
    "numbers for files": (spoil_index({"weight_map": {"head": 3}}), r"weight_map must name files"),
    "another filter": (spoil_preprocessor(resample=1), r"resample must be 2 \(bilinear\) or 3"),
}


@pytest.mark.parametrize("fault", MISFITS)
def test_models_that_do_not_fit_are_refused_in_one_line(
    tiny_folder: Callable[[str], Path], fault: str
) -> None:
    folder = tiny_folder("relative")
    spoil, message = MISFITS[fault]
    spoil(folder)
    with pytest.raises(UserError, match=message) as refusal:
        make_depth_estimator(f"hf:{folder}", None, "cpu")
    assert "\n" not in str(refusal.value)


def test_weights_that_released_dpt_networks_lack_are_not_needed(tiny_folder: Callable[[str], Path]) -> None:
    folder, frame = tiny_folder("dpt"), torch.rand(1, 3, 64, 96)
    before, _ = run(make_depth_estimator(f"hf:{folder}", None, "cpu"), frame)
    weights = load_file(folder / "model.safetensors")
    unused = [name for name in weights if "fusion_stage.layers.0.residual_layer1" in name]
    kept = {name: values for name, values in weights.items() if name not in unused}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    after, _ = run(make_depth_estimator(f"hf:{folder}", None, "cpu"), frame)
    assert len(unused) == 4 and torch.equal(before, after)


@pytest.mark.gpu
@pytest.mark.parametrize("network", [name for name in NETWORKS if name != "dpt-dinov2"])
def test_a_gpu_gives_the_depth_of_the_cpu(tiny_folder: Callable[[str], Path], network: str) -> None:
    folder, frames = tiny_folder(network), slide(6, top_px=1, bottom_px=2)
    cpu, gpu = (
        run(make_depth_estimator(f"hf:{folder}", None, device), frames)[0] for device in ("cpu", "cuda")
    )
    assert rank_correlation(cpu, gpu) > 0.98


def test_weights_in_several_files_are_found(tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tiny_folder("relative")
    model = AutoModelForDepthEstimation.from_pretrained(folder)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    shutil.copy(folder / "preprocessor_config.json", tmp_path)
    frame = torch.rand(1, 3, 64, 96)
    depths = [run(make_depth_estimator(f"hf:{path}", None, "cpu"), frame)[0] for path in (folder, tmp_path)]
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1 and torch.equal(*depths)
    next(tmp_path.glob("model-*.safetensors")).unlink()
    with pytest.raises(UserError, match=r"missing model-0"):
        make_depth_estimator(f"hf:{tmp_path}", None, "cpu")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'midas' is not a depth estimator; choose motion, student"):
        make_depth_estimator("midas", None, "cpu")
    for given in ("motion:folder", "depthcrafter:"):
        with pytest.raises(ValueError, match="source"):
            make_depth_estimator(given, None, "cpu")


def test_fit_is_robust_to_outliers() -> None:
    depth = np.random.default_rng(0).random((20, 30)).astype(np.float32)
    target = 1.7 * depth - 0.4
    target[:5] += 3
    assert fit_scale_shift(depth, target, np.ones(depth.shape, bool)) == pytest.approx((1.7, -0.4), abs=0.02)
    assert fit_scale_shift(np.zeros_like(depth), target, np.ones(depth.shape, bool)) == (1, 0)
    assert fit_scale_shift(depth, -depth, np.ones(depth.shape, bool)) == (1, 0)


def test_smoothing_removes_jumps_of_scale_and_shift() -> None:
    generator = np.random.default_rng(1)
    gray = (texture(64, 96, 5)[..., 0] * 255).astype(np.uint8)
    truth = cv2.GaussianBlur(generator.random((64, 96)).astype(np.float32), (0, 0), 4)
    jumps = [(1.0, 0.0)] + [(generator.uniform(0.8, 1.2), generator.uniform(-0.2, 0.2)) for _ in range(30)]
    shot = [(np.float32(scale) * truth + np.float32(shift), gray) for scale, shift in jumps]
    raw = np.stack([depth for depth, _ in shot])
    smoothed = list(accumulate(shot, lambda before, frame: smooth(*frame, before), initial=None))[1:]
    out = np.stack([frame.depth for frame in smoothed])
    assert np.abs(np.diff(out, axis=0)).mean() < 0.15 * np.abs(np.diff(raw, axis=0)).mean()
    assert np.corrcoef(out[-1].ravel(), truth.ravel())[0, 1] > 0.999


def test_estimates_are_tuples_of_depth_confidence_and_state() -> None:
    assert DepthEstimate._fields == ("depth", "confidence", "state")
