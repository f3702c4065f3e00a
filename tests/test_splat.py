"""Splatting: exact laws, agreement of the backends, and conformance with arrays of the released code."""

import math
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from conftest import on_any_backend
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from secondeye.imaging.arrays import frames_to_uint8
from secondeye.splat import splat as splat_on_one_device
from secondeye.splat.reference import splat_reference

splat = on_any_backend(splat_on_one_device)
KERNELS = ["cpu", "triton", "triton_nondeterministic"]
SIZES = [(1, 1), (1, 7), (3, 1), (2, 2), (3, 37), (2, 64)]  # Triton's interpreter takes time by the row
KINDS = ["smooth", "layered", "noise"]
CONFORMANCE = Path(__file__).parent / "conformance"
RELEASED_EXPONENT = math.log2(1.414)  # the released code's base is 1.414, not the paper's sqrt(2)

every_backend = pytest.mark.parametrize("backend", ["reference", *KERNELS])
every_kernel = pytest.mark.parametrize("backend", KERNELS)


def make_frames(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def constant(frames: Tensor, disparity: float) -> Tensor:
    return torch.full_like(frames[:, :1], disparity)


def every_disparity(height: int, width: int) -> Tensor:
    """Return one frame of each kind."""
    return torch.cat([disparities(kind, 1, height, width) for kind in KINDS])


def disparities(kind: str, count: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    noise = torch.rand(count, 1, height, width, generator=generator)
    x = torch.arange(width).expand(count, 1, height, width)
    match kind:
        case "smooth":
            return 5 * torch.sin(x / 9 + noise[..., :1]) - 1.3
        case "layered":
            return torch.where((x // 6) % 3 == 0, 11.7, -4.2) + noise
        case _:
            return (noise - 0.5) * 40


# ---- laws


@every_backend
@pytest.mark.parametrize("size", SIZES)
def test_zero_disparity_is_the_identity(backend, size):
    frames = make_frames(2, *size)
    warped, coverage = splat(frames, constant(frames, 0), backend=backend)
    assert torch.equal(warped, frames)
    assert torch.equal(coverage, torch.ones_like(coverage))
    assert torch.equal(
        splat(frames_to_uint8(frames), constant(frames, 0), backend=backend).warped,
        frames_to_uint8(frames),
    )


@every_backend
@pytest.mark.parametrize("shift", [1, 4, -1, -5])
def test_constant_integer_disparity_shifts_and_leaves_a_hole(backend, shift):
    frames = make_frames(2, 5, 37)
    warped, coverage = splat(frames, constant(frames, shift), backend=backend)
    expected, reached = torch.zeros_like(frames), torch.zeros_like(coverage)
    landed = slice(None, -shift) if shift > 0 else slice(-shift, None)
    source = slice(shift, None) if shift > 0 else slice(None, shift)
    expected[..., landed], reached[..., landed] = frames[..., source], 1
    assert torch.equal(warped, expected)
    assert torch.equal(coverage, reached)


@every_backend
def test_fractional_disparity_is_split_and_clipped_per_column(backend):
    frames = torch.ones(1, 3, 2, 9)
    warped, coverage = splat(frames, constant(frames, 0.25), backend=backend)
    assert_close(warped, frames)
    assert_close(coverage[0, 0, 0], torch.tensor([1.0] * 8 + [0.75]))


@every_backend
@pytest.mark.parametrize(("exponent", "expected"), [(0.5, 8 / 9), (1.0, 64 / 65), (0.0, 0.5)])
def test_weight_is_a_power_of_two_of_the_disparity(backend, exponent, expected):
    frames, disparity = torch.zeros(1, 3, 1, 20), torch.zeros(1, 1, 1, 20)
    frames[..., 10], disparity[..., 10] = 1, 6
    warped, coverage = splat(frames, disparity, backend=backend, weight_exponent_per_px=exponent)
    assert_close(warped[0, :, 0, 4], torch.full((3,), expected))
    assert coverage[0, 0, 0, 4] == 1


@every_backend
def test_weight_holds_at_fractional_disparities(backend):
    apart = torch.arange(34, 400, 14) / 16  # px: one row each, where two pixels land on one
    frames, disparity = torch.zeros(1, 3, len(apart), 60), torch.zeros(1, 1, len(apart), 60)
    frames[..., 30] = 1
    disparity[..., 30] = apart
    disparity[..., 29] = apart - 1  # lands on the same column as its neighbour
    warped, coverage = splat(frames, disparity, backend=backend)
    landing = 30 - apart.double()
    rows, columns = torch.arange(len(apart)), landing.floor().long()
    share = 1 - (landing - columns)  # of both pixels in that column; a background pixel covers it whole
    first, second = (share * 2 ** (0.5 * d) for d in (apart.double(), apart.double() - 1))
    expected = (first / (first + second + 1)).float()
    assert (landing == columns).any() and (landing != columns).any()
    assert_close(warped[0, 0, rows, columns], expected, rtol=1e-5, atol=0)
    assert (coverage[0, 0, rows, columns] == 1).all()


@every_backend
def test_frames_are_independent(backend):
    frames, disparity = make_frames(3, 4, 21), disparities("noise", 3, 4, 21)
    disparity[1] *= 50
    together = splat(frames, disparity, backend=backend)
    for t in range(3):
        alone = splat(frames[t : t + 1], disparity[t : t + 1], backend=backend)
        # Not bit-exact: torch rounds exp2 differently in the vectorized body and the tail of an array.
        assert_close([whole[t : t + 1] for whole in together], list(alone), rtol=1e-6, atol=1e-6)


@every_backend
def test_splat_is_linear_in_colour(backend):
    first, second, disparity = (
        make_frames(1, 6, 41, 1),
        make_frames(1, 6, 41, 2),
        disparities("noise", 1, 6, 41),
    )
    mixed = splat(0.3 * first + 0.7 * second, disparity, backend=backend).warped
    parts = [splat(colour, disparity, backend=backend).warped for colour in (first, second)]
    assert_close(mixed, 0.3 * parts[0] + 0.7 * parts[1], rtol=1e-5, atol=1e-6)


@every_backend
def test_adding_a_constant_disparity_only_shifts(backend):
    frames, disparity = make_frames(1, 4, 60), disparities("smooth", 1, 4, 60)
    plain = splat(frames, disparity, backend=backend).warped[..., 20:-20]
    nearer = splat(frames, disparity + 8, backend=backend).warped[..., 12:-28]
    assert_close(plain, nearer, rtol=0, atol=1e-4)  # positions round differently after adding 8


@every_backend
@pytest.mark.parametrize("jump", [300, 1000, -1000])
def test_large_disparity_range_keeps_the_background(backend, jump):
    frames = make_frames(1, 2, 1500)
    moved = torch.arange(1200, 1300) if jump > 0 else torch.arange(100, 200)
    disparity = constant(frames, 0)
    disparity[..., moved] = jump
    warped, coverage = splat(frames, disparity, backend=backend)
    expected, reached = frames.clone(), torch.ones_like(disparity)
    expected[..., moved], reached[..., moved] = 0, 0
    hit = moved - jump
    if jump > 0:  # with a negative jump the moved columns are the far ones and stay hidden
        expected[..., hit] = frames[..., moved]
    assert_close(warped, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(coverage, reached)


@every_backend
@pytest.mark.parametrize("value", [1e5, -1e5, 3e38, -3e38])
def test_pixels_outside_the_frame_are_dropped(backend, value):
    frames = make_frames(1, 3, 8)
    warped, coverage = splat(frames, constant(frames, value), backend=backend)
    assert not warped.any() and not coverage.any()


# ---- backends


@pytest.mark.parametrize("border", ["clip", "released"])
@pytest.mark.parametrize("size", SIZES)
@every_kernel
def test_backends_agree(backend, border, size):
    frames, disparity = make_frames(3, *size), every_disparity(*size)
    expected = splat(frames, disparity, backend="reference", border=border)
    actual = splat(frames, disparity, backend=backend, border=border)
    assert_close(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("border", ["clip", "released"])
@pytest.mark.parametrize("size", SIZES)
@every_kernel
def test_uint8_is_the_rounded_float_result(backend, border, size):
    frames, disparity = frames_to_uint8(make_frames(3, *size)), every_disparity(*size)
    planes = splat(frames.permute(0, 3, 1, 2).float(), disparity, backend="reference", border=border)
    expected = planes.warped.permute(0, 2, 3, 1)
    for name in ("reference", backend):
        actual = splat(frames, disparity, backend=name, border=border)
        assert actual.warped.dtype == torch.uint8 and actual.warped.shape == frames.shape
        assert (actual.warped - expected).abs().max() <= 0.501
        assert_close(actual.coverage, planes.coverage, rtol=1e-5, atol=1e-6)


@every_kernel
@settings(deadline=None, derandomize=True, max_examples=30)
@given(quarters=st.lists(st.integers(-120, 120), min_size=1, max_size=12))
def test_backends_agree_on_exact_ties(backend, quarters):
    disparity = torch.tensor(quarters).reshape(1, 1, 1, -1) / 4
    frames = make_frames(1, 1, len(quarters))
    expected = splat(frames, disparity, backend="reference")
    actual = splat(frames, disparity, backend=backend)
    assert_close(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", [make_frames, lambda *size: frames_to_uint8(make_frames(*size))])
def test_cpu_backend_is_bit_identical_for_any_thread_count_and_chunk(form):
    frames, disparity = form(4, 33, 129), disparities("noise", 4, 33, 129)
    whole = splat(frames, disparity, backend="cpu")
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        single = splat(frames, disparity, backend="cpu")
    finally:
        numba.set_num_threads(threads)
    chunks = [splat(f, d, backend="cpu") for f, d in zip(frames.split(1), disparity.split(1), strict=True)]
    chunked = [torch.cat(part) for part in zip(*chunks, strict=True)]
    for name, again in [("one thread", single), ("chunks", chunked)]:
        assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True)), name


def test_strided_arguments_are_accepted_and_not_modified():
    frames, disparity = make_frames(2, 12, 30), disparities("layered", 2, 12, 30)
    before = frames.clone(), disparity.clone()
    expected = splat(frames[..., ::2, ::2].clone(), disparity[..., ::2, ::2].clone(), backend="cpu")
    strided = splat(frames[..., ::2, ::2], disparity[..., ::2, ::2], backend="cpu")
    assert all(torch.equal(a, b) for a, b in zip(strided, expected, strict=True))
    assert torch.equal(frames, before[0]) and torch.equal(disparity, before[1])


@pytest.mark.parametrize("released", [False, True])
def test_reference_is_differentiable(released):
    generator = torch.Generator().manual_seed(3)
    frames = torch.rand(1, 3, 2, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    whole = torch.randint(-2, 3, (1, 1, 2, 7), generator=generator)
    fraction = torch.rand(1, 1, 2, 7, generator=generator, dtype=torch.float64)
    disparity = (whole + 0.2 + 0.6 * fraction).requires_grad_()  # away from the kinks at whole positions
    assert torch.autograd.gradcheck(lambda f, d: splat_reference(f, d, 0.5, released), (frames, disparity))


def test_auto_selects_the_reference_if_gradients_are_needed():
    frames = make_frames(1, 3, 9)
    disparity = constant(frames, 1.5).requires_grad_()
    splat(frames, disparity).warped.square().sum().backward()
    assert disparity.grad is not None and bool(disparity.grad.any())


def test_auto_selects_the_cpu_backend_under_no_grad():
    frames = make_frames(1, 3, 9).requires_grad_()
    with torch.no_grad():
        made = splat(frames, constant(frames, 1.3))
    assert_close(made, splat(frames, constant(frames, 1.3), backend="cpu"), rtol=0, atol=0)


@every_backend
def test_zero_exponent_handles_extreme_disparities(backend):
    disparity = torch.tensor([3e38, -3e38, 0, 0]).reshape(1, 1, 1, 4)
    with np.errstate(over="ignore"):  # numpy in Triton's interpreter would warn
        made = splat(make_frames(1, 1, 4), disparity, backend=backend, weight_exponent_per_px=0)
    assert made.coverage[0, 0, 0].tolist() == [0, 0, 1, 1] and bool(made.warped.isfinite().all())


# ---- argument checks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "triton2"}, "backend must be auto, reference, cpu, triton, triton_nondeterministic"),
        ({"border": "wrap"}, "clip or released"),
        ({"weight_exponent_per_px": -0.5}, "weight_exponent_per_px"),
        ({"weight_exponent_per_px": math.nan}, "weight_exponent_per_px"),
        ({"weight_exponent_per_px": 1e39}, "weight_exponent_per_px"),
    ],
)
def test_invalid_options_raise(options, message):
    frames = make_frames(1, 2, 3)
    with pytest.raises(ValueError, match=message):
        splat(frames, constant(frames, 0), **options)


# ---- the released code


@every_backend
def test_released_splat_is_reproduced(backend):
    recorded = {name: torch.from_numpy(array) for name, array in np.load(CONFORMANCE / "splat.npz").items()}
    warped, coverage = splat(
        recorded["image"],
        recorded["disp"],
        backend=backend,
        border="released",
        weight_exponent_per_px=RELEASED_EXPONENT,
    )
    assert_close(warped, recorded["right"], rtol=0, atol=1e-5)
    assert_close(1 - coverage, recorded["occlusion"], rtol=0, atol=1e-5)


@every_backend
def test_released_border_drops_the_last_row_and_column(backend):
    recorded = np.load(CONFORMANCE / "splat_zero_disp.npz")
    frames = torch.ones(1, 3, 8, 10)
    warped, coverage = splat(frames, constant(frames, 0), backend=backend, border="released")
    assert torch.equal(warped, torch.from_numpy(recorded["right"]))
    assert torch.equal(1 - coverage, torch.from_numpy(recorded["occlusion"]))
