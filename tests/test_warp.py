"""The sharp warp: exact laws, image quality (no cracks, sharp, clean edges), agreement of the backends."""

import math

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
from secondeye.splat import splat
from secondeye.warp import warp as warp_on_one_device

warp = on_any_backend(warp_on_one_device)
BACKENDS = ["cpu", "triton"]
SIZES = [(1, 1), (1, 7), (3, 1), (2, 2), (3, 37), (2, 64)]  # Triton's interpreter takes time by the row
KINDS = ["smooth", "layered", "noise"]

every_backend = pytest.mark.parametrize("backend", ["reference", *BACKENDS])
every_kernel = pytest.mark.parametrize("kernel", ["lanczos3", "bilinear"])


def make_frames(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def constant(frames: Tensor, disparity: float) -> Tensor:
    return torch.full_like(frames[:, :1], disparity)


def slanted(height: int, width: int, slope: float) -> Tensor:
    return (slope * (torch.arange(width) - width / 2 + 0.3)).expand(1, 1, height, width).float()


def every_disparity(height: int, width: int) -> Tensor:
    """Return one frame of each kind."""
    return torch.cat([disparities(kind, 1, height, width) for kind in KINDS])


def disparities(kind: str, count: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    noise = torch.rand(count, 1, height, width, generator=generator)
    x = torch.arange(width).expand(count, 1, height, width)
    match kind:
        case "smooth":
            return 5 * torch.sin(x / 3 + noise[..., :1]) - 1.3  # slopes past 1: folds
        case "layered":
            return torch.where((x // 6) % 3 == 0, 11.7, -4.2) + noise
        case _:
            return (noise - 0.5) * 40


def sees(frames: Tensor, disparity: Tensor, sign: int) -> tuple[Tensor, Tensor]:
    """What an eye at x + sign * disparity sees of whole disparities: colour, and the nearest or -inf."""
    seen, nearest = torch.zeros_like(frames), torch.full_like(disparity, -math.inf)
    count, _, height, width = frames.shape
    for t, y, x in torch.cartesian_prod(
        torch.arange(count), torch.arange(height), torch.arange(width)
    ).tolist():
        target = x + sign * int(disparity[t, 0, y, x])
        if 0 <= target < width and disparity[t, 0, y, x] > nearest[t, 0, y, target]:
            nearest[t, 0, y, target] = disparity[t, 0, y, x]
            seen[t, :, y, target] = frames[t, :, y, x]
    return seen, nearest


# ---- laws


@every_backend
@every_kernel
@pytest.mark.parametrize("size", SIZES)
def test_zero_disparity_is_the_identity(backend, kernel, size):
    frames = make_frames(2, *size).round(
        decimals=1
    )  # with exact zeros and ones: nothing of a neighbour may leak
    warped = warp(frames, constant(frames, 0), kernel=kernel, backend=backend)
    assert torch.equal(warped.frames, frames)
    assert torch.equal(warped.coverage, constant(frames, 1))
    assert torch.equal(warped.disparity, constant(frames, 0))
    same = warp(frames_to_uint8(frames), constant(frames, 0), kernel=kernel, backend=backend).frames
    assert torch.equal(same, frames_to_uint8(frames))


@every_backend
@every_kernel
@pytest.mark.parametrize("shift", [1, 4, -1, -5])
def test_constant_integer_disparity_shifts_and_leaves_a_hole(backend, kernel, shift):
    frames = make_frames(2, 5, 37)
    warped = warp(frames, constant(frames, shift), kernel=kernel, backend=backend)
    landed = slice(None, -shift) if shift > 0 else slice(-shift, None)
    source = slice(shift, None) if shift > 0 else slice(None, shift)
    expected, reached = torch.zeros_like(frames), constant(frames, 0)
    expected[..., landed], reached[..., landed] = frames[..., source], 1
    assert torch.equal(warped.frames, expected)
    assert torch.equal(warped.coverage, reached)
    assert torch.equal(warped.disparity, reached * shift)


@every_backend
def test_a_surface_ends_half_a_pixel_beyond_its_last_pixel(backend):
    frames = make_frames(1, 2, 9)
    warped = warp(frames, constant(frames, 2.25), backend=backend)
    assert_close(warped.coverage[0, 0, 0], torch.tensor([1.0] * 6 + [0.75, 0, 0]), rtol=0, atol=0)
    warped = warp(frames, constant(frames, -2.25), backend=backend)
    assert_close(warped.coverage[0, 0, 0], torch.tensor([0, 0, 0.75] + [1.0] * 6), rtol=0, atol=0)
    # Less than half of the pixel is covered, its centre is not: it still has the colour of what covers it.
    warped = warp(frames, constant(frames, 2.75), backend=backend)
    assert_close(warped.coverage[0, 0, 0], torch.tensor([1.0] * 6 + [0.25, 0, 0]), rtol=0, atol=0)
    assert_close(warped.frames[..., 6], frames[..., 8])
    assert_close(warped.disparity[..., :7], torch.full((1, 1, 2, 7), 2.75))


@every_backend
@pytest.mark.parametrize("sign", [-1, 1])
def test_near_surfaces_hide_far_ones_in_both_views(backend, sign):
    generator = torch.Generator().manual_seed(5)
    frames = make_frames(2, 4, 48)
    disparity = torch.randint(-3, 4, (2, 1, 4, 48), generator=generator).float() * 5
    seen, nearest = sees(frames, disparity, sign)
    if sign < 0:
        warped = warp(frames, disparity, backend=backend)
    else:  # the other eye is the mirror image of this one
        warped = warp(*(array.flip(-1) for array in (frames, disparity)), backend=backend)
        warped = type(warped)(*(array.flip(-1) for array in warped))
    assert torch.equal(warped.frames, seen)
    assert torch.equal(warped.coverage, nearest.isfinite().float())
    assert torch.equal(warped.disparity, torch.where(nearest.isfinite(), nearest, 0))


@every_backend
@every_kernel
def test_mirrored_negated_disparity_gives_the_mirrored_view(backend, kernel):
    """Negation also swaps near and far, so use only slopes and holes, where nothing is hidden."""
    x, row = torch.arange(64), torch.rand(6, 1, generator=torch.Generator().manual_seed(2))
    disparity = (9 - 4.3 * (x // 16) + 1.6 * torch.sin(x / 5) + row)[None, None]
    frames = make_frames(1, 6, 64)
    right = warp(frames, disparity, kernel=kernel, backend=backend)
    left = warp(frames.flip(-1), -disparity.flip(-1), kernel=kernel, backend=backend)
    assert (right.coverage == 0).any() and ((right.coverage > 0) & (right.coverage < 1)).any()
    assert_close(left.frames.flip(-1), right.frames, rtol=0, atol=1e-5)
    assert_close(left.coverage.flip(-1), right.coverage, rtol=0, atol=2e-5)
    assert_close(-left.disparity.flip(-1), right.disparity, rtol=0, atol=1e-5)


@every_backend
def test_frames_are_independent(backend):
    frames, disparity = make_frames(3, 4, 21), disparities("noise", 3, 4, 21)
    together = warp(frames, disparity, backend=backend)
    for t in range(3):
        alone = warp(frames[t : t + 1], disparity[t : t + 1], backend=backend)
        assert all(torch.equal(whole[t], part[0]) for whole, part in zip(together, alone, strict=True))


@every_backend
def test_isolated_pixel_covers_one_pixel_width(backend):
    frames, disparity = torch.zeros(1, 3, 1, 30), torch.zeros(1, 1, 1, 30)
    frames[..., 20], disparity[..., 20] = 1, 10.3
    warped = warp(frames, disparity, backend=backend)
    expected = torch.zeros(30)
    expected[9], expected[10] = 0.3, 0.7
    assert_close(warped.frames, expected.expand(1, 3, 1, 30))
    assert warped.coverage[0, 0, 0].tolist() == [1.0] * 20 + [0.0] + [1.0] * 9
    alone = warp(frames[..., 20:21], disparity[..., 20:21] - 10, backend=backend)
    assert_close(alone.coverage, torch.full((1, 1, 1, 1), 0.7))
    assert_close(alone.frames, torch.ones(1, 3, 1, 1))


@every_backend
@every_kernel
@pytest.mark.parametrize("near_px", [5.25, 5.5, 6.0, 6.875])
def test_silhouette_is_blended_by_its_pixel_share(backend, kernel, near_px):
    frames, disparity = torch.full((1, 3, 2, 40), 0.25), torch.zeros(1, 1, 2, 40)
    frames[..., 20:30], disparity[..., 20:30] = 0.75, near_px
    warped = warp(frames, disparity, kernel=kernel, backend=backend)
    target = torch.arange(20)
    overlap = (29.5 - near_px - (target - 0.5)).clamp(0, 1) - (19.5 - near_px - (target - 0.5)).clamp(0, 1)
    assert_close(warped.frames[..., :20], (0.25 + 0.5 * overlap).expand(1, 3, 2, 20))
    assert_close(warped.coverage[..., :20], torch.ones(1, 1, 2, 20), rtol=0, atol=0)
    nearer = torch.where(overlap >= 0.5, near_px, 0).expand(1, 1, 2, 20)
    assert_close(warped.disparity[..., :20], nearer)


@every_backend
@pytest.mark.parametrize("jump", [300, 1000, -1000])
def test_large_disparity_range_keeps_the_background(backend, jump):
    frames = make_frames(1, 2, 1500)
    moved = torch.arange(1200, 1300) if jump > 0 else torch.arange(100, 200)
    disparity = constant(frames, 0)
    disparity[..., moved] = jump
    warped = warp(frames, disparity, backend=backend)
    expected, reached = frames.clone(), torch.ones_like(disparity)
    expected[..., moved], reached[..., moved] = 0, 0
    if jump > 0:  # with a negative jump the moved columns are the far ones and stay hidden
        expected[..., moved - jump] = frames[..., moved]
    assert torch.equal(warped.frames, expected)
    assert torch.equal(warped.coverage, reached)


@every_backend
@pytest.mark.parametrize("value", [1e5, -1e5, 3e38, -3e38])
def test_pixels_outside_the_frame_are_dropped(backend, value):
    frames = make_frames(1, 3, 8)
    assert not any(array.any() for array in warp(frames, constant(frames, value), backend=backend))


@every_backend
def test_holes_are_black_with_zero_disparity(backend):
    frames, disparity = make_frames(2, 9, 80) + 0.1, disparities("layered", 2, 9, 80)
    warped = warp(frames, disparity, backend=backend)
    hole = warped.coverage == 0
    assert hole.any() and not warped.disparity[hole].any()
    assert torch.equal(hole.expand_as(frames), warped.frames == 0)


@every_backend
def test_coverage_below_one_unit_is_a_hole(backend):
    frames = torch.ones(1, 3, 1, 6)
    warped = warp(frames, constant(frames, -(1 - 1e-6)), backend=backend)
    assert warped.coverage[0, 0, 0, 0] == 0 and not warped.frames[..., 0].any()
    assert warped.coverage[0, 0, 0, 1:].tolist() == [1.0] * 5


@every_backend
def test_overflowing_difference_is_an_edge(backend):
    disparity = torch.tensor([3e38, -3e38, 0, 0]).reshape(1, 1, 1, 4)
    frames = make_frames(1, 1, 4)
    with np.errstate(over="ignore"):  # numpy in Triton's interpreter would warn
        warped = warp(frames, disparity, backend=backend, jump_px=math.inf)
    assert torch.equal(warped.frames[..., 2:], frames[..., 2:]) and not warped.disparity[..., 2:].any()
    assert bool(warped.frames.isfinite().all()) and bool(warped.disparity.isfinite().all())


# ---- image quality


@every_backend
@pytest.mark.parametrize("width", [64, 1921])
@pytest.mark.parametrize("slope", [0.5, -0.25, -1.0, -1.5])
def test_stretched_slanted_plane_has_no_cracks(backend, width, slope):
    frames, disparity = make_frames(1, 1, width), slanted(1, width, slope)
    warped = warp(frames, disparity, backend=backend)
    position = torch.arange(width) - disparity
    first, last = position[..., 0].max().ceil() + 1, position[..., -1].min().floor() - 1
    inside = slice(max(int(first), 0), min(int(last), width - 1) + 1)
    assert torch.equal(warped.coverage[..., inside], torch.ones_like(warped.coverage[..., inside]))


@every_backend
def test_folded_surface_shows_its_nearest_part(backend):
    disparity = 12 * torch.sin(torch.arange(121) / 5)[None, None, None]  # slopes to 2.4 px per px
    seen = warp(make_frames(1, 1, 121), disparity, backend=backend, jump_px=4.0).disparity[0, 0, 0]
    between = torch.linspace(0, 1, 513)[:-1, None]
    fine = (disparity[..., :-1] + between * disparity.diff(dim=-1))[0, 0].flatten()  # the surface, densely
    position = (torch.arange(120) + between).flatten() - fine
    target = torch.arange(121)
    meets = (position[:, None] - target).abs() < 0.02
    nearest = torch.where(meets, fine[:, None], -math.inf).amax(0)
    assert nearest.isfinite().sum() > 100
    assert_close(seen[nearest.isfinite()], nearest[nearest.isfinite()], rtol=0, atol=0.1)


@every_backend
def test_jump_px_separates_slopes_from_edges(backend):
    frames = make_frames(1, 2, 60)
    disparity = constant(frames, 0)
    disparity[..., :30] = 3
    torn = warp(frames, disparity, backend=backend).coverage[..., :50]
    whole = warp(frames, disparity, backend=backend, jump_px=3).coverage[..., :50]
    assert (torn == 0).sum() == 2 * 3 and (whole == 1).all()


@every_backend
@pytest.mark.parametrize(("width", "holes"), [(1000, 3), (2000, 0)])
def test_default_jump_px_grows_with_the_width(backend, width, holes):
    frames = make_frames(1, 1, width)
    disparity = constant(frames, 0)
    disparity[..., : width // 2] = 3
    for images in (frames, frames_to_uint8(frames)):
        assert (warp(images, disparity, backend=backend).coverage[..., :-9] == 0).sum() == holes


@every_backend
def test_disparity_output_matches_the_visible_position_on_a_slope(backend):
    disparity = slanted(2, 80, -0.4)
    warped = warp(make_frames(1, 2, 80), disparity, backend=backend)
    target = torch.arange(80)
    source = (target - 0.4 * (0.3 - 40)) / 1.4  # target = source - disparity(source)
    inside = warped.coverage[0, 0, 0] == 1
    assert_close(warped.disparity[0, 0, 0][inside], (source - target)[inside], rtol=0, atol=1e-4)


@every_backend
@every_kernel
def test_colours_do_not_cross_a_depth_edge(backend, kernel):
    frames, disparity = torch.zeros(1, 3, 3, 60), torch.full((1, 1, 3, 60), -1.4)
    frames[:, 2] = 1
    frames[:, 2, :, 20:40], frames[:, 0, :, 20:40], disparity[..., 20:40] = 0, 1, 7.7
    warped = warp(frames, disparity, kernel=kernel, backend=backend)
    red, blue = warped.frames[:, :1], warped.frames[:, 2:]
    front = warped.disparity > 5
    back = (warped.coverage > 0) & ~front
    assert (front & (warped.coverage > 0.5)).sum() == 3 * 20 and back.any()
    front[..., [12, 32]] = back[..., [12, 32]] = False  # partly covered, so blended with the background
    assert_close(red[front], torch.ones_like(red[front]), rtol=0, atol=1e-6)
    assert_close(blue[back], torch.ones_like(blue[back]), rtol=0, atol=1e-6)
    assert red[back].abs().max() < 1e-6 and blue[front].abs().max() < 1e-6


@every_backend
def test_lanczos3_does_not_ring(backend):
    frames = torch.full((1, 3, 1, 40), 0.2)
    frames[..., 20:] = 0.8
    for fraction in (0.2, 0.5, 0.7):
        row = warp(frames, constant(frames, fraction), backend=backend).frames[0, 0, 0]
        assert row.min() >= 0.2 and row.max() <= 0.8 + 1e-7
        assert (row.diff()[:-1] >= -1e-6).all()


def texture(source: Tensor, seed: int = 0) -> Tensor:
    """Band-limited noise, up to 0.35 cycles per px of the source, at any position: [3, H, W]."""
    generator = torch.Generator().manual_seed(seed)
    frequency = 0.35 * torch.rand(40, 1, 1, generator=generator, dtype=torch.float64)
    phase = 2 * math.pi * torch.rand(3, 40, 1, 1, generator=generator, dtype=torch.float64)
    return 0.5 + torch.sin(2 * math.pi * frequency * source + phase).sum(1) / 30


@every_backend
@pytest.mark.parametrize("slope", [0.0, 0.25, -0.35])
def test_warp_is_sharper_than_splat(backend, slope):
    x = torch.arange(640, dtype=torch.float64)
    shift = torch.linspace(-3.3, 4.1, 4, dtype=torch.float64)[:, None]
    frames = texture(x.expand(4, 640))[None].float()
    disparity = (shift + slope * (x - 320))[None, None].float()
    source = (x + shift - slope * 320) / (1 - slope)  # solves x = source - disparity(source)
    truth = texture(source)
    visible = (source >= 4) & (source <= 635)

    def psnr_db(view: Tensor) -> float:
        return float(-10 * (view[0] - truth)[:, visible].square().mean().log10())

    def gradient_energy(view: Tensor) -> float:
        return float(view.diff(dim=-1)[..., visible[:, 1:] & visible[:, :-1]].square().sum())

    warped, splatted = warp(frames, disparity, backend=backend).frames, splat(frames, disparity).warped
    assert psnr_db(warped) > psnr_db(splatted) + 6
    assert gradient_energy(warped[0]) > 0.88 * gradient_energy(truth)


# ---- backends


@every_kernel
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("jump_px", [None, 0.5, math.inf])
@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_agree(backend, kernel, size, jump_px):
    frames, disparity = make_frames(3, *size), every_disparity(*size)
    expected = warp(frames, disparity, kernel=kernel, jump_px=jump_px, backend="reference")
    actual = warp(frames, disparity, kernel=kernel, jump_px=jump_px, backend=backend)
    assert_close(actual, expected, rtol=0, atol=1e-5)
    assert torch.equal(actual.coverage, expected.coverage)


@every_kernel
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_uint8_is_the_rounded_float_result(backend, kernel, size):
    frames, disparity = frames_to_uint8(make_frames(3, *size)), every_disparity(*size)
    planes = warp(frames.permute(0, 3, 1, 2).float(), disparity, kernel=kernel, backend="reference")
    expected = planes.frames.permute(0, 2, 3, 1)
    for name in ("reference", backend):
        actual = warp(frames, disparity, kernel=kernel, backend=name)
        assert actual.frames.dtype == torch.uint8 and actual.frames.shape == frames.shape
        assert (actual.frames - expected).abs().max() <= 0.501
        assert torch.equal(actual.coverage, planes.coverage)
        assert_close(actual.disparity, planes.disparity, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(deadline=None, derandomize=True, max_examples=30)
@given(quarters=st.lists(st.integers(-60, 60), min_size=1, max_size=12))
def test_backends_agree_on_exact_ties(backend, quarters):
    disparity = torch.tensor(quarters).reshape(1, 1, 1, -1) / 4
    frames = make_frames(1, 1, len(quarters))
    expected = warp(frames, disparity, backend="reference")
    actual = warp(frames, disparity, backend=backend)
    assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", [make_frames, lambda *size: frames_to_uint8(make_frames(*size))])
def test_cpu_backend_is_bit_identical_for_any_thread_count_and_chunk(form):
    frames, disparity = form(4, 33, 129), disparities("noise", 4, 33, 129)
    whole = warp(frames, disparity, backend="cpu")
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        single = warp(frames, disparity, backend="cpu")
    finally:
        numba.set_num_threads(threads)
    chunks = [warp(f, d, backend="cpu") for f, d in zip(frames.split(1), disparity.split(1), strict=True)]
    chunked = [torch.cat(part) for part in zip(*chunks, strict=True)]
    for name, again in [("one thread", single), ("chunks", chunked)]:
        assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True)), name


def test_strided_arguments_are_accepted_and_not_modified():
    frames, disparity = make_frames(2, 12, 30), disparities("layered", 2, 12, 30)
    before = frames.clone(), disparity.clone()
    expected = warp(frames[..., ::2, ::2].clone(), disparity[..., ::2, ::2].clone(), backend="cpu")
    strided = warp(frames[..., ::2, ::2], disparity[..., ::2, ::2], backend="cpu")
    assert all(torch.equal(a, b) for a, b in zip(strided, expected, strict=True))
    assert torch.equal(frames, before[0]) and torch.equal(disparity, before[1])


# ---- argument checks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "gpu"}, "backend must be auto, reference, cpu, triton"),
        ({"kernel": "cubic"}, "lanczos3 or bilinear"),
        ({"jump_px": -1.0}, "jump_px"),
        ({"jump_px": math.nan}, "jump_px"),
    ],
)
def test_invalid_options_raise(options, message):
    frames = make_frames(1, 2, 3)
    with pytest.raises(ValueError, match=message):
        warp(frames, constant(frames, 0), **options)


def test_too_wide_arrays_raise():
    frames = make_frames(1, 1, 32768)
    with pytest.raises(ValueError, match="at most 32767, got 32768"):
        warp(frames, constant(frames, 0))
