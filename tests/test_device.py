"""What users start runs splat and warp on the device: interpreted Triton kernels here, with cpu's results.

Tests marked `gpu` do the same on a card, and count copies and memory.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from small_dataset import write_small_dataset
from torch import Tensor
from torch.testing import assert_close
from typer.testing import CliRunner

from secondeye.cli import app
from secondeye.conversion.picture import Picture
from secondeye.conversion.render import RenderedWindow, SourceWindow, render
from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import ClipOcclusion, ClipQuality
from secondeye.evaluation.eval_clips import EvalFrames
from secondeye.evaluation.methods import Method, make_right
from secondeye.film.still_parts import NOTHING_STILL
from secondeye.inpaint import Inpainted, Inpainter, Warped
from secondeye.inpaint.fill import fill_shot
from secondeye.video.read import decode_film

SPLAT_KERNELS = ("_find_largest", "_add_integers", "_normalize_integers")
WARP_KERNELS = ("_claim", "_gather")


def run(*command: str) -> None:
    done = CliRunner().invoke(app, list(command))
    assert done.exit_code == 0, done.output


def splat_and_score(data: Path) -> Dataset:
    """Run the stages `splat` and `quality` on a small dataset, as `dvc repro` does."""
    write_small_dataset(data, frames=(2,), height=8, width=48)
    run("stage", "splat", str(data))
    run("stage", "quality", str(data))
    return Dataset(data)


@pytest.fixture
def on_cpu(in_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Return what the stages write without Triton."""
    monkeypatch.setenv("SECONDEYE_WORKERS", "1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        return splat_and_score(tmp_path / "cpu")


def compare(made: Dataset, expected: Dataset) -> None:
    """The written frames may differ by a level in 255 and scores in their last digit; holes are equal."""
    (clip,), (other,) = (dataset.join(ClipOcclusion) for dataset in (made, expected))
    (warped, occlusion), (wanted, holes) = made.splat(clip), expected.splat(other)
    assert torch.equal(occlusion, holes) and holes.any()
    assert_close(warped, wanted, rtol=0, atol=1 / 255 + 1e-6)
    (quality,), (score,) = (dataset.rows(ClipQuality) for dataset in (made, expected))
    assert quality.psnr_db == pytest.approx(score.psnr_db, abs=0.01)
    assert quality.occlusion_share == score.occlusion_share
    assert quality.ssim == pytest.approx(score.ssim, abs=1e-3)


def test_the_stage_splat_launches_the_kernels_and_agrees_with_cpu(
    on_cpu: Dataset, tmp_path: Path, launches: Counter[str]
) -> None:
    made = splat_and_score(tmp_path / "triton")
    assert dict(launches) == dict.fromkeys(SPLAT_KERNELS, 1)  # one clip, by one launch each
    compare(made, on_cpu)


def test_evaluation_warps_with_the_kernels(launches: Counter[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    left, disparity = (torch.rand(1, channels, 4, 32, generator=generator) for channels in (3, 1))
    clip = EvalFrames(left, left, 3 * disparity, torch.zeros(1, 1, 4, 32, dtype=torch.uint8))
    made = make_right(Method("nearest", "baseline"), clip)
    assert dict(launches) == dict.fromkeys(WARP_KERNELS, 1) and made.right.device.type == "cpu"


def read(film: Path) -> np.ndarray:
    return np.stack([frame.rgb for frame in decode_film(film)]).astype(int)


@pytest.mark.slow(seconds=8)
def test_convert_launches_the_kernels_and_agrees_with_cpu(
    make_film: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, launches: Counter[str]
) -> None:
    film = make_film(shots=(3,), height=32, width=64, sound=False)
    options = ["--inpainter", "fill", "--depth", "motion", "--crf", "0"]
    run("convert", str(film), "--output", str(film.with_name("triton.mp4")), *options)
    windows = launches["_gather"]
    assert windows >= 1 and dict(launches) == dict.fromkeys(WARP_KERNELS, windows)
    monkeypatch.delenv("TRITON_INTERPRET")
    run("convert", str(film), "--output", str(film.with_name("cpu.mp4")), *options)
    assert launches["_gather"] == windows
    made, expected = (read(film.with_name(name)) for name in ("triton.mp4", "cpu.mp4"))
    assert np.abs(made - expected).max() <= 1


def window(frames: int, height: int, width: int) -> SourceWindow:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(frames, height, width, 3, generator=generator).mul(255).byte()
    return SourceWindow(images, torch.rand(frames, 1, height // 8, width // 8, generator=generator))


def render_window(given: SourceWindow, inpainter: Inpainter, device: str) -> Iterator[RenderedWindow]:
    whole = Picture(NOTHING_STILL, *given.frames.shape[1:3])
    return render([given], inpainter, picture=whole, strength_percent=3.0, convergence=0.5, device=device)


def render_on(device: str, given: SourceWindow) -> Tensor:  # uint8 [T, H, W, 3], the right view
    (rendered,) = render_window(given, fill_shot, device)
    assert rendered.right.device.type == "cpu" and rendered.disparity.device.type == device
    return rendered.right


def events_on_gpu(work: Callable[[], object]) -> Counter[str]:
    """Return how often each kernel and each kind of copy ran on the GPU."""
    from torch.profiler import ProfilerActivity, profile

    work()  # compiles the kernels
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        work()
        torch.cuda.synchronize()
    kind = torch.autograd.DeviceType.CUDA
    return Counter(event.name for event in profiled.events() if event.device_type == kind)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_stage_splat_runs_on_a_gpu(on_cpu: Dataset, tmp_path: Path) -> None:
    counted = events_on_gpu(lambda: splat_and_score(tmp_path / str(len(list(tmp_path.iterdir())))))
    assert {counted[name] for name in SPLAT_KERNELS} == {1}
    copies = sum(count for name, count in counted.items() if name.startswith("Memcpy DtoH"))
    assert copies >= 2  # the warped view and its holes, and scalars of the checks
    compare(Dataset(max(path for path in tmp_path.iterdir() if path.name != "cpu")), on_cpu)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_window_goes_to_the_gpu_once_and_comes_back_once() -> None:
    given = window(4, 1080, 1920)
    big = given.frames.nbytes // 2
    copies: list[str] = []

    class Counting(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            made = function(*args, **(kwargs or {}))
            moved = function is torch.ops.aten._to_copy.default and made.device != args[0].device
            if moved and made.nbytes >= big:
                copies.append(f"{args[0].device.type} to {made.device.type}")
            return made

    def unchanged(windows: Iterable[Warped], state: object = None) -> Iterator[Inpainted]:
        return (Inpainted(warped.frames, {}) for warped in windows)

    torch.cuda.reset_peak_memory_stats()
    with Counting():
        (rendered,) = render_window(given, unchanged, "cuda")
    assert copies == ["cpu to cuda", "cuda to cpu"] and rendered.right.device.type == "cpu"
    assert torch.cuda.max_memory_allocated() < 40 * given.frames.nbytes
    assert (render_on("cuda", given).int() - render_on("cpu", given).int()).abs().float().mean() < 1
