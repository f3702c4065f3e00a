"""Depth estimators: what every one of them promises, and what each of them is for."""

import json
from collections.abc import Callable, Iterator
from itertools import accumulate, islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conformance.video_depth_weights import make_tiny_network
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForDepthEstimation, DepthAnythingConfig, DepthAnythingForDepthEstimation

from secondeye.depth import (
    DepthEstimate,
    DepthEstimator,
    SmallFrameEstimator,
    best_available,
    make_depth_estimator,
)
from secondeye.depth.depth_anything import BATCH_FRAMES, load_depth_anything
from secondeye.depth.depthcrafter import DepthCrafter, DepthCrafterSettings
from secondeye.depth.depthcrafter.network import DepthNetwork
from secondeye.depth.depthcrafter.pipeline import GROUP_FRAMES, DepthCrafterPipeline
from secondeye.depth.guided_filter import guided_filter
from secondeye.depth.motion import LONG_SIDE_PX, MAX_OFFSET_FRAMES, MAX_THREADS, motion_depth
from secondeye.depth.position_prior import position_prior
from secondeye.depth.residual_flow import homography_residual
from secondeye.depth.temporal_smoothing import fit_scale_shift, smooth
from secondeye.depth.video_depth_anything import VideoDepthAnything
from secondeye.depth.video_depth_network import WINDOW_FRAMES
from secondeye.imaging.arrays import frames_from_uint8, frames_to_uint8
from secondeye.inpaint import tiny
from secondeye.system.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


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
    """Folder in the released layout with a tiny random Depth Anything of the kind asked for."""

    def make(kind: str) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        torch.manual_seed(7)
        config = DepthAnythingConfig(
            backbone_config={
                "model_type": "dinov2",
                "hidden_size": 16,
                "num_hidden_layers": 4,
                "num_attention_heads": 2,
                "image_size": 56,
                "patch_size": 14,
                "out_indices": [1, 2, 3, 4],
                "apply_layernorm": True,
                "reshape_hidden_states": False,
            },
            reassemble_hidden_size=16,
            neck_hidden_sizes=[8, 8, 8, 8],
            fusion_hidden_size=8,
            head_hidden_size=4,
            depth_estimation_type=kind,
            max_depth=20,
        )
        model = DepthAnythingForDepthEstimation(config)
        for weights in model.head.parameters():  # as initialised it gives one value everywhere
            torch.nn.init.normal_(weights, std=0.5)
        torch.nn.init.constant_(model.head.conv3.bias, 1.0)  # keeps the last ReLU open
        model.save_pretrained(folder)
        size = {"height": 56, "width": 56}
        values = {"size": size, "ensure_multiple_of": 14, "image_mean": MEAN, "image_std": STD}
        (folder / "preprocessor_config.json").write_text(json.dumps(values))
        return folder

    return make


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


@pytest.fixture(
    scope="session",
    params=[
        "motion",
        "depth-anything-v2",
        "depth-anything-v2-metric",
        "depthcrafter",
        "video-depth-anything",
    ],
)
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
    kind = "metric" if request.param.endswith("metric") else "relative"
    return load_depth_anything(str(tiny_folder(kind))), BATCH_FRAMES


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


@pytest.mark.parametrize("kind", ["relative", "metric"])
def test_depth_anything_equals_the_model_itself(tiny_folder: Callable[[str], Path], kind: str) -> None:
    folder = tiny_folder(kind)
    frame = torch.rand(1, 3, 70, 140, generator=torch.Generator().manual_seed(5))
    network = AutoModelForDepthEstimation.from_pretrained(folder).eval()
    resized = torch.nn.functional.interpolate(frame, (56, 112), mode="bicubic", antialias=True)
    pixels = (resized - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    with torch.inference_mode():
        expected = network(pixels).predicted_depth[:, None]
    depth, confidence = run(load_depth_anything(str(folder)), frame)
    assert expected.std() > 0.01 and confidence == [1.0]
    torch.testing.assert_close(depth, 1 / expected if kind == "metric" else expected)


def test_depth_anything_does_not_depend_on_batches(tiny_folder: Callable[[str], Path]) -> None:
    frames = slide(1, top_px=0, bottom_px=0).expand(2 * BATCH_FRAMES + 1, -1, -1, -1)
    depth, _ = run(load_depth_anything(str(tiny_folder("relative"))), frames, 2 * BATCH_FRAMES + 1)
    torch.testing.assert_close(depth, depth[:1].expand_as(depth))


def test_missing_weights_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert best_available() == "motion"
    with pytest.raises(UserError, match=r"hf download .*motion"):
        make_depth_estimator("depth-anything-v2", None, "cpu")
    (tmp_path / "config.json").touch()
    with pytest.raises(UserError, match=r"missing preprocessor_config.json, model.safetensors"):
        load_depth_anything(str(tmp_path))


def test_weights_in_the_cache_are_found(
    tiny_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models--depth-anything--Depth-Anything-V2-Small-hf"
    (repository / "snapshots").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    (repository / "snapshots" / "0123").symlink_to(tiny_folder("relative"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert best_available() == "depth-anything-v2"
    depth, _ = run(make_depth_estimator("depth-anything-v2", None, "cpu"), torch.rand(1, 3, 64, 96))
    assert depth.shape == (1, 1, 56, 84)


def test_weights_that_do_not_fit_are_refused(tiny_folder: Callable[[str], Path]) -> None:
    folder = tiny_folder("relative")
    weights = load_file(folder / "model.safetensors")
    del weights["head.conv2.bias"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"does not fit config.json, missing .*head.conv2.bias"):
        load_depth_anything(str(folder))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be one of motion, student, .*, got 'midas'"):
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
