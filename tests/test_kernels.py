"""Choice of backend, compilation of the Triton kernels for GPUs, and large frames on a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from secondeye.imaging import backends
from secondeye.imaging.arrays import frames_to_uint8
from secondeye.imaging.backends import choose_backend
from secondeye.splat import splat
from secondeye.warp import warp

pytest.importorskip("triton", reason="Triton is not installed: it is for Linux on x86_64 only")

AVAILABLE = ("reference", "cpu", "triton")
TESTS = Path(__file__).parent


@pytest.fixture
def gpu() -> str:
    """Return the CUDA device, or skip the test."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return "cuda"


def arrays(count: int, height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return random frames and a layered disparity with noise."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.rand(count, 3, height, width, generator=generator)
    noise = torch.rand(count, 1, height, width, generator=generator)
    layers = torch.where((torch.arange(width) // 60) % 3 == 0, 0.02 * width, -0.01 * width)
    return frames, layers + noise


def test_auto_follows_the_device(monkeypatch):
    array = torch.zeros(1)
    on_gpu = torch.zeros(1, device="meta")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert choose_backend("auto", AVAILABLE, array, array) == "cpu"
    assert choose_backend("auto", AVAILABLE, on_gpu, on_gpu) == "reference"  # neither a CPU nor a CUDA device
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert choose_backend("auto", AVAILABLE, array, array) == "triton"
    assert choose_backend("triton", AVAILABLE, array, array) == "triton"
    monkeypatch.setattr(backends, "has_triton", lambda: False)
    assert choose_backend("auto", AVAILABLE, array, array) == "cpu"
    with pytest.raises(ValueError, match="needs Triton, which is not installed"):
        choose_backend("triton", AVAILABLE, array, array)


@pytest.mark.parametrize("operation", [splat, warp])
def test_triton_rejects_cpu_arrays_without_the_interpreter(operation, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    frames, disparity = arrays(1, 2, 3)
    with pytest.raises(ValueError, match="backend triton needs arrays on a GPU, but these are on the CPU"):
        operation(frames, disparity, backend="triton")


@pytest.mark.parametrize(("operation", "kernel"), [(splat, "_add_integers"), (warp, "_gather")])
def test_auto_launches_the_kernel_and_agrees_with_cpu(operation, kernel, launches):
    frames, disparity = arrays(1, 4, 41)
    made, expected = operation(frames, disparity), operation(frames, disparity, backend="cpu")
    assert launches[kernel] == 1
    assert_close(list(made), list(expected), rtol=1e-5, atol=2e-5)


def test_a_gradient_is_computed_by_the_reference_even_in_the_interpreter(launches):
    frames, disparity = arrays(1, 4, 41)
    splat(frames.requires_grad_(), disparity).warped.sum().backward()
    assert frames.grad is not None and not launches


def test_arrays_must_be_on_the_backend_device():
    here, there = torch.zeros(1), torch.zeros(1, device="meta")
    with pytest.raises(ValueError, match="frames are on cpu, but disparity is on meta"):
        choose_backend("auto", AVAILABLE, here, there)
    with pytest.raises(ValueError, match="backend cpu needs arrays on the CPU, but these are on meta"):
        choose_backend("cpu", AVAILABLE, there, there)


@pytest.mark.slow(seconds=16)
def test_kernels_compile_for_three_gpus_without_spills(tmp_path):
    """Run in a separate process: modules imported with TRITON_INTERPRET cannot be compiled."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    command = [sys.executable, str(TESTS / "compile_kernels.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    for device in ("cuda 80", "cuda 90", "hip gfx942"):
        for module in ("splat", "warp"):
            assert any(f"{module}.kernel" in line and device in line for line in done.stdout.splitlines())


@pytest.mark.parametrize("form", [torch.clone, frames_to_uint8])
@pytest.mark.parametrize(
    ("operation", "backend"), [(splat, "triton"), (splat, "triton_nondeterministic"), (warp, "triton")]
)
def test_bands_of_rows_do_not_change_the_result(operation, form, backend, interpreter, monkeypatch):
    from secondeye.splat import kernel as splat_kernel
    from secondeye.warp import kernel as warp_kernel

    frames, disparity = arrays(3, 5, 41)
    whole = operation(form(frames), disparity, backend=backend)
    monkeypatch.setattr(splat_kernel, "SUMS_BYTES", 41 * 44 * 4)  # four rows
    monkeypatch.setattr(warp_kernel, "BAND_BYTES", 41 * 12 * 4)
    again = operation(form(frames), disparity, backend=backend)
    assert all(torch.equal(a, b) for a, b in zip(again, whole, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("size", [(2, 1080, 1920), (1, 2160, 3840), (1, 33, 7681), (90, 64, 64)])
@pytest.mark.parametrize("form", [torch.clone, frames_to_uint8])
@pytest.mark.parametrize("operation", [splat, warp])
def test_gpu_agrees_with_cpu_on_large_frames_and_is_reproducible(operation, form, size, gpu):
    frames, disparity = arrays(*size)
    frames = form(frames)
    expected = operation(frames, disparity, backend="cpu")
    made = operation(frames.to(gpu), disparity.to(gpu), backend="triton")
    again = operation(frames.to(gpu), disparity.to(gpu), backend="triton")
    assert all(torch.equal(a, b) for a, b in zip(made, again, strict=True))
    for wanted, got in zip(expected, made, strict=True):
        if wanted.dtype == torch.uint8:
            assert (wanted.int() - got.cpu().int()).abs().max() <= 1
        else:
            assert_close(got.cpu(), wanted, rtol=1e-5, atol=2e-5)


@pytest.mark.gpu
def test_nondeterministic_splat_agrees_on_a_gpu(gpu):
    frames, disparity = arrays(2, 1080, 1920)
    expected = splat(frames, disparity, backend="cpu")
    made = splat(frames.to(gpu), disparity.to(gpu), backend="triton_nondeterministic")
    assert_close([array.cpu() for array in made], list(expected), rtol=1e-4, atol=1e-5)


def test_cpu_scratch_is_below_one_frame_per_thread():
    """Run in a separate process, whose peak memory is not affected by other tests."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peaks of memory are read from Linux's /proc")
    script = """
import re, numba, torch
from pathlib import Path
from secondeye.splat import splat
from secondeye.warp import warp

def kilobytes(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

frames, disparity = torch.ones(1, 2160, 3840, 3, dtype=torch.uint8), torch.ones(1, 1, 2160, 3840)
kept = []
for move in (splat, warp):
    move(frames[:, :4, :8], disparity[:, :, :4, :8])  # compiles
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = kilobytes("VmRSS")
    kept.append(move(frames, disparity))
    scratch = 1024 * (kilobytes("VmHWM") - before) - sum(array.nbytes for array in kept[-1])
    print(scratch / frames.nbytes / numba.get_num_threads())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    shares = [float(line) for line in done.stdout.split()]
    assert len(shares) == 2 and max(shares) < 1, "splat, warp"
