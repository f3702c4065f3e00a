"""Video Depth Anything: the released code's numbers, its windows, and which files it takes."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conformance.video_depth_weights import (
    SHA256,
    TINY,
    digest,
    make_tiny_network,
    make_weights,
    to_released_names,
)
from safetensors.torch import save_file
from torch import Tensor

from secondeye.cli import main
from secondeye.conversion.provenance import read_record
from secondeye.conversion.shot_depth import estimate_shot
from secondeye.depth import video_depth_anything, video_depth_files
from secondeye.depth.estimators import best_available, find_weights, make_depth_estimator, peak_bytes
from secondeye.depth.metres import MIN_DEPTH_M
from secondeye.depth.progress import OnFrames
from secondeye.depth.video_depth_anything import (
    MAX_LONG_SIDE_PX,
    VideoDepthAnything,
    fit_scale_shift,
    input_size,
    preprocess,
)
from secondeye.depth.video_depth_files import RELEASED, SMALL
from secondeye.depth.video_depth_network import CONFIGURATIONS, VideoDepthNetwork
from secondeye.depth.video_depth_weights import load_weights, read_sizes
from secondeye.imaging.arrays import frames_from_uint8
from secondeye.system.errors import UserError
from secondeye.system.files import hash_file
from secondeye.video.probe import probe

CONFORMANCE = Path(__file__).parent / "conformance"
INPUT_PX = 28  # two patches

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return make_weights()


@pytest.fixture(scope="module")
def small_file(weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "video_depth_anything_vits.pth"
    torch.save(weights, path)
    return path


@pytest.fixture(scope="module")
def tiny() -> VideoDepthNetwork:
    return make_tiny_network()


def shot(count: int, height: int, width: int) -> Tensor:  # uint8 [T, H, W, 3]
    """Smooth noise that drifts and brightens."""
    noise = torch.rand(1, 3, 6, 9 + count // 8, generator=torch.Generator().manual_seed(3))
    wide = F.interpolate(noise, (height, width + count), mode="bicubic").clamp(0, 1)[0]
    frames = [wide[:, :, t : t + width] * (0.6 + 0.4 * t / count) for t in range(count)]
    return (torch.stack(frames) * 255).round().byte().permute(0, 2, 3, 1).contiguous()


def whole_clip(network: VideoDepthNetwork, images: Tensor, *, metric: bool, input_px: int) -> np.ndarray:
    """The released procedure on a clip in memory: windows overwrite their first inputs, maps are a list."""
    count, size = len(images), tuple(images.shape[1:3])
    inputs = [preprocess(frame, input_px) for frame in frames_from_uint8(images)]
    inputs += [inputs[-1]] * ((22 - count % 22) % 22 + 10)
    maps: list[np.ndarray] = []
    window: list[Tensor] = []
    for start in range(0, count, 22):
        before, window = window, inputs[start : start + 32]
        if before:
            window[:10] = [before[key] for key in (0, 12, 24, 25, 26, 27, 28, 29, 30, 31)]
        with torch.no_grad():
            raw = network(torch.stack(window))[:, None]
        here = F.interpolate(raw, size, mode="bilinear", align_corners=True)[:, 0].numpy()
        if not before:
            maps, reference = list(here), [here[0], here[12]]
            continue
        scale, shift = 1.0, 0.0
        if not metric:
            terms = np.stack([here[:2].ravel(), np.ones(here[:2].size)], axis=1)
            scale, shift = np.linalg.lstsq(terms, np.ravel(reference), rcond=None)[0]
        here = np.maximum(here * scale + shift, 0)
        for index in range(8):
            w = index / 7
            maps[index - 8] = maps[index - 8] * (1 - w) + here[2 + index] * w
        maps += list(here[10:])
        reference = [reference[0], here[12]]
    return np.stack(maps[:count])


def stream(estimator: VideoDepthAnything, images: Tensor, window: int) -> np.ndarray:
    return torch.cat([part.depth for part in estimator(images.split(window))])[:, 0].numpy()


def test_stand_in_weights_are_the_recorded_ones(weights: dict[str, Tensor]) -> None:
    assert digest(weights) == SHA256


@pytest.mark.parametrize("clip", ["a", "b"])
def test_depth_equals_that_of_the_released_code(small_file: Path, clip: str) -> None:
    arrays = np.load(CONFORMANCE / "vda_forward.npz")
    network, metric = load_weights(str(small_file))
    assert not metric
    for frames, expected in zip(arrays[f"input_{clip}"], arrays[f"depth_{clip}"], strict=True):
        with torch.no_grad():
            depth = network(torch.from_numpy(frames)).numpy()
        assert expected.std() > 0.1
        np.testing.assert_allclose(depth, expected, rtol=0, atol=1e-4)


def test_preprocessing_equals_that_of_the_released_code() -> None:
    arrays = np.load(CONFORMANCE / "vda_preprocess.npz")
    sizes = [name.removeprefix("frame_") for name in arrays.files if name.startswith("frame_")]
    assert len(sizes) == 5
    for size in sizes:
        frame = frames_from_uint8(torch.from_numpy(arrays[f"frame_{size}"])[None])[0]
        expected = arrays[f"array_{size}"]
        np.testing.assert_allclose(preprocess(frame, 70).numpy(), expected, rtol=0, atol=2e-4)
    for height, width, side, _, *expected in arrays["size_table"].tolist():
        assert input_size(height, width, side) == tuple(expected)


def test_input_has_at_least_one_patch_for_any_aspect() -> None:
    assert input_size(1, 1000, 518)[0] == 14
    assert input_size(1000, 1, 518)[1] == 14
    assert input_size(1, 1, 518) == (518, 518)


@pytest.mark.parametrize(
    ("count", "metric"),
    [(1, False), (12, False), (23, False), (25, True), (46, False), (75, False), (75, True)],
)
def test_stream_equals_the_whole_clip(tiny: VideoDepthNetwork, count: int, metric: bool) -> None:
    images = shot(count, 36, 50)
    expected = whole_clip(tiny, images, metric=metric, input_px=INPUT_PX)
    if metric:
        expected = 1 / np.maximum(expected, MIN_DEPTH_M)
    depth = stream(VideoDepthAnything(tiny, "cpu", INPUT_PX, metric=metric), images, 7)
    assert depth.shape == (count, 36, 50) and depth.std() > 0.02
    np.testing.assert_allclose(depth, expected, rtol=0, atol=1e-4)


@pytest.mark.slow(seconds=10)
def test_stream_of_the_small_network_equals_the_whole_clip(small_file: Path) -> None:
    images, network = shot(75, 64, 112), load_weights(str(small_file)).network
    expected = whole_clip(network, images, metric=False, input_px=70)
    depth = stream(VideoDepthAnything(network, "cpu", 70, metric=False), images, 16)
    np.testing.assert_allclose(depth, expected, rtol=0, atol=1e-4)


def test_a_window_is_computed_once_and_none_without_new_frames(
    tiny: VideoDepthNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    forward = VideoDepthNetwork.forward

    def counted(network: VideoDepthNetwork, frames: Tensor, *reports: OnFrames) -> Tensor:
        lengths.append(len(frames))
        return forward(network, frames, *reports)

    monkeypatch.setattr(VideoDepthNetwork, "forward", counted)
    for count, windows in ((24, 1), (25, 2), (46, 2), (47, 3)):
        lengths.clear()
        stream(VideoDepthAnything(tiny, "cpu", INPUT_PX, metric=False), shot(count, 20, 30), 5)
        assert lengths == [32] * windows


def test_progress_moves_within_a_window_and_ends_with_the_frames(tiny: VideoDepthNetwork) -> None:
    """Also that of a shot which is continued."""
    reports: list[int] = []
    estimator, images = VideoDepthAnything(tiny, "cpu", INPUT_PX, metric=False), shot(50, 20, 30)
    estimates = estimator.reporting(reports.append)([images])
    state = next(estimates).state
    assert len(reports) == 8 + 32 and reports[:4] == [
        1,
        2,
        1,
        2,
    ]  # 24 frames, encoded by fours
    assert sum(reports) == state.next_frame == 24
    list(estimates)
    assert sum(reports) == 50
    reports.clear()
    rest = estimator.reporting(reports.append)([images[state.first_frame :]], state)
    assert sum(len(part.depth) for part in rest) == sum(reports) == 50 - 24


def test_state_does_not_grow_with_the_shot(tiny: VideoDepthNetwork) -> None:
    estimates = VideoDepthAnything(tiny, "cpu", INPUT_PX, metric=False)(shot(110, 20, 30).split(9))
    sizes = [sum(tensor.numel() for tensor in part.state.tensors.values()) for part in estimates]
    assert len(sizes) == 5 and len(set(sizes[:-1])) == 1 and sizes[-1] == 0


def test_large_frames_are_reduced(tiny: VideoDepthNetwork) -> None:
    estimator = VideoDepthAnything(tiny, "cpu", INPUT_PX, metric=False)
    assert estimator.working_size(2160, 3840) == (720, MAX_LONG_SIDE_PX)
    assert estimator.working_size(1920, 1080) == (MAX_LONG_SIDE_PX, 720)
    assert estimator.working_size(720, 1280) == (720, 1280) and estimator.working_size(1, 5000) == (1, 1280)
    (part,) = estimator([torch.zeros(1, 3, 32, 2 * MAX_LONG_SIDE_PX)])
    assert part.depth.shape == (1, 1, 16, MAX_LONG_SIDE_PX)


def test_scale_and_shift_are_those_of_least_squares() -> None:
    depth = torch.rand(2, 9, 7, generator=torch.Generator().manual_seed(0))
    assert fit_scale_shift(depth, 3 * depth - 0.5) == pytest.approx((3, -0.5), abs=1e-6)
    for flat in (torch.zeros(2, 9, 7), torch.full((2, 9, 7), 1.7)):
        assert fit_scale_shift(flat, depth) == (1, 0)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_released_configurations_have_the_counted_weights(name: str) -> None:
    with torch.device("meta"):
        network = VideoDepthNetwork(CONFIGURATIONS[name])
    counted = {"vits": 29_035_137, "vitb": 114_441_409, "vitl": 384_390_337}
    assert sum(weights.numel() for weights in network.parameters()) == counted[name]


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_metric_weights_are_known_by_their_name(
    tiny: VideoDepthNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setitem(CONFIGURATIONS, "tiny", TINY)
    folder = tmp_path / "Metric-Video-Depth-Anything-Tiny"
    folder.mkdir()
    for name, metric in (("metric_tiny", True), ("tiny", False)):
        save = torch.save if suffix == "pth" else save_file
        save(to_released_names(tiny), folder / f"{name}.{suffix}")
        loaded = load_weights(str(folder / f"{name}.{suffix}"))
        assert loaded.metric == metric
        pairs = zip(loaded.network.parameters(), tiny.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    with pytest.raises(UserError, match="2 files of weights"):
        load_weights(str(folder))
    (folder / f"metric_tiny.{suffix}").unlink()
    assert load_weights(str(folder)).metric, "the folder's name says so"


def test_weights_come_from_the_hugging_face_cache(
    tiny: VideoDepthNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONFIGURATIONS, "tiny", TINY)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=rf"{SMALL}: not on this machine .* `hf download {SMALL} video_"):
        make_depth_estimator("video-depth-anything", None, "cpu")
    for repository, (name, licence) in RELEASED.items():
        folder = tmp_path / f"models--{repository.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text("0123")
        snapshot = folder / "snapshots" / "0123"
        snapshot.mkdir(parents=True)
        torch.save(to_released_names(tiny), snapshot / name)
        assert load_weights(repository).metric == ("Metric" in repository)
        assert find_weights(f"video-depth-anything:{repository}") == (hash_file(snapshot / name), licence)
    assert RELEASED[SMALL][1] == "Apache-2.0" and best_available() == "video-depth-anything"
    monkeypatch.setattr(video_depth_anything, "INPUT_PX", INPUT_PX)
    images = shot(2, 20, 30)
    (part,) = make_depth_estimator("video-depth-anything", None, "cpu")([images])
    (same,) = VideoDepthAnything(tiny, "cpu", INPUT_PX, metric=False)([images])
    assert torch.equal(part.depth, same.depth)


def damaged(weights: dict[str, Tensor]) -> Iterator[tuple[object, str]]:
    """Contents of files that are refused, and what the line says."""
    key, other = "head.scratch.output_conv1.bias", "pretrained.blocks.1.attn.qkv.weight"
    yield {name: value for name, value in weights.items() if name != key}, f"{key} is missing"
    yield {name: value for name, value in weights.items() if name != other}, f"{other} is missing"
    yield weights | {key: torch.zeros(7)}, rf"{key} is \[7\], expected \[16\]"
    yield weights | {other: torch.zeros(9, 32)}, rf"{other} is \[9, 32\], expected \[96, 32\]"
    yield weights | {"head.extra": torch.zeros(1)}, "head.extra is not part of the network"
    yield weights | {"pretrained.cls_token": torch.zeros(1, 1, 5)}, r"cls_token is \[1, 1, 5\]"
    yield {"weight": torch.zeros(2)}, "not Video Depth Anything: pretrained.cls_token is missing"
    yield {"model": weights}, "not a plain state dict"
    yield [1, 2], "not a plain state dict"
    yield {"epoch": 3}, "not a plain state dict"


def test_other_weights_are_refused(
    tiny: VideoDepthNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONFIGURATIONS, "tiny", TINY)
    path = tmp_path / "weights.pth"
    for content, expected in damaged(to_released_names(tiny)):
        torch.save(content, path)
        with pytest.raises(UserError, match=expected) as refused:
            load_weights(str(path))
        assert str(path) in str(refused.value) and "\n" not in str(refused.value)


class RunsCode:
    """Its pickle writes a file when it is read without `weights_only`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_damaged_files_and_pickles_with_code_are_refused(tmp_path: Path, suffix: str) -> None:
    path, touched = tmp_path / f"weights.{suffix}", tmp_path / "touched"
    torch.save({"a": torch.zeros(1000), "b": RunsCode(touched)}, path)
    whole = path.read_bytes()
    junk = np.random.default_rng(0).bytes(300)
    for content in (whole, whole[:-200], whole[:100], b"", b"\x80\x02}q\x00.", b"<html>", junk, b"version 1"):
        path.write_bytes(content)
        for read in (load_weights, read_sizes):
            with pytest.raises(UserError, match=r"not a readable file|not Video Depth|not a plain"):
                read(str(path))
    assert not touched.exists()


def test_sources_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    for source in (str(tmp_path / "no.pth"), "depth-anything/Depth-Anything-V2-Small-hf"):
        with pytest.raises(UserError, match=f"{source}: no such file or folder, and not one of {SMALL}"):
            make_depth_estimator(f"video-depth-anything:{source}", None, "cpu")
    with pytest.raises(UserError, match="has 0 files of weights"):
        make_depth_estimator(f"video-depth-anything:{tmp_path}", None, "cpu")


def test_convert_uses_weights_of_a_file(
    tiny: VideoDepthNetwork,
    make_film: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(CONFIGURATIONS, "tiny", TINY)
    monkeypatch.setattr(video_depth_anything, "INPUT_PX", INPUT_PX)
    film = make_film(shots=(9, 30), sound=False)
    weights = film.with_name("tiny.pth")
    torch.save(to_released_names(tiny), weights)
    windows: list[tuple[int, ...]] = []
    forward = VideoDepthNetwork.forward

    def counted(network: VideoDepthNetwork, frames: Tensor, *reports: OnFrames) -> Tensor:
        windows.append(tuple(frames.shape))
        return forward(network, frames, *reports)

    monkeypatch.setattr(VideoDepthNetwork, "forward", counted)
    output = film.with_name("out.mp4")
    arguments = ["convert", str(film), "--depth", f"video-depth-anything:{weights}", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["secondeye", *arguments, "--inpainter", "fill"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code, capsys.readouterr().err
    assert windows == [(32, 3, 28, 42)] * 3, "one for the first shot, two for the second"
    assert probe(output).frames == 39
    record = read_record(output)
    assert record is not None and record["depth"] == {
        "name": "video-depth-anything:tiny.pth",
        "weights": hash_file(weights),
        "licences": "not stated",
    }


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_float16_on_a_gpu_is_close(small_file: Path) -> None:
    images, network = shot(40, 64, 112), load_weights(str(small_file)).network
    expected = stream(VideoDepthAnything(network, "cpu", 70, metric=False), images, 16)
    depth = stream(VideoDepthAnything(network.to("cuda"), "cuda", 70, metric=False), images, 16)
    assert np.abs(depth - expected).max() < 0.05 * np.ptp(expected)


def test_only_listed_files_are_weights() -> None:
    assert {Path(name).suffix for name, _ in RELEASED.values()} <= set(video_depth_files.SUFFIXES)


def test_memory_is_estimated_before_the_work(
    tiny: VideoDepthNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONFIGURATIONS, "tiny", TINY)
    path = tmp_path / "tiny.pth"
    torch.save(to_released_names(tiny), path)
    name = f"video-depth-anything:{path}"
    small, large, same = (peak_bytes(name, rows, 16 * rows // 9) for rows in (180, 720, 1440))
    assert path.stat().st_size < small < large == same, "frames are reduced to 720p"


class Killed(Exception):
    pass


def test_depth_pass_continues_wherever_it_was_killed(tiny: VideoDepthNetwork, tmp_path: Path) -> None:
    images, estimator = shot(50, 20, 30), VideoDepthAnything(tiny, "cpu", INPUT_PX, metric=False)
    read: list[int] = []

    def windows_from(first: int) -> Iterator[Tensor]:
        for window in images[first:].split(6) if first < len(images) else ():
            read.append(len(window))
            yield window

    whole = estimate_shot(windows_from, estimator, tmp_path / "whole.f32", save_every=1)
    assert sum(read) == len(images)
    for frames in (24, 46, 50):
        path, done = tmp_path / f"{frames}.f32", 0

        def kill_before_the_save(new: int, last: int = frames) -> None:
            nonlocal done
            done += new
            if done == last:
                raise Killed

        with pytest.raises(Killed):
            estimate_shot(windows_from, estimator, path, save_every=1, on_frames=kill_before_the_save)
        again = estimate_shot(windows_from, estimator, path, save_every=1)
        assert path.read_bytes() == whole.path.read_bytes() and again == replace(whole, path=path)
    whole.path.with_suffix(".json").unlink()  # as if killed after the last state was saved
    read.clear()
    assert estimate_shot(windows_from, estimator, whole.path, save_every=1) == whole and not read
