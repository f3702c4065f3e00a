"""Laws of the edge steps: what they may change and what they may not."""

from collections.abc import Callable

import cv2
import numba
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from secondeye.depth import ramps_torch
from secondeye.depth.edges import Backend, dilate, measure_blur, sharpen, snap, upsample
from secondeye.imaging.arrays import frames_to_uint8, occlusion_mask
from secondeye.warp import warp

HEIGHT, WIDTH, STEP_AT = 31, 65, 30


def step(low: float, high: float, *, channels: int = 1) -> Tensor:  # [2, channels, H, W]
    image = torch.full((2, channels, HEIGHT, WIDTH), float(low))
    image[..., STEP_AT:] = high
    return image


def blur(plane: Tensor, sigma: float) -> Tensor:
    blurred = [torch.from_numpy(cv2.GaussianBlur(p, (0, 0), sigma)) for p in plane[:, 0].contiguous().numpy()]
    return torch.stack(blurred)[:, None]


def test_snap_leaves_flat_maps_and_gentle_slopes_alone() -> None:
    frames = torch.rand(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    slope = torch.linspace(0, 9, WIDTH).expand(2, 1, HEIGHT, WIDTH).contiguous()
    for plane in (torch.full_like(slope, 3.7), slope):
        assert torch.equal(snap(plane, frames, reach_px=24, bound_px=2.0), plane)


def test_snap_restores_a_blurred_step() -> None:
    ideal, frames = step(5, 25), step(0.2, 0.8, channels=3)
    blurred = blur(ideal, 2)
    snapped = snap(blurred, frames, reach_px=24, bound_px=2.0)
    aside = (torch.arange(WIDTH) - STEP_AT + 0.5).abs() > 1
    assert (blurred - ideal).abs()[..., aside].max() > 4
    assert (snapped - ideal).abs()[..., aside].max() < 1


def test_snap_follows_the_image_where_depth_lies_beside_its_edge() -> None:
    frames = step(0.2, 0.8, channels=3)
    beside = blur(torch.roll(step(5, 25), 1, dims=3), 2)
    gray = torch.full_like(frames, 0.5)
    ideal = step(5, 25)
    guided, blind = (snap(beside, f, reach_px=24, bound_px=2.0) for f in (frames, gray))
    columns = slice(STEP_AT - 6, STEP_AT + 6)
    assert (guided - ideal)[..., columns].abs().mean() < 0.5 * (blind - ideal)[..., columns].abs().mean()


def test_snap_decides_by_value_where_colours_are_alike() -> None:
    frames = torch.full((2, 3, HEIGHT, WIDTH), 0.5)
    snapped = snap(blur(step(5, 25), 2), frames, reach_px=24, bound_px=2.0)
    assert snapped[..., STEP_AT - 2].max() < 7 and snapped[..., STEP_AT + 1].min() > 23


def test_snap_keeps_a_surface_between_two_others() -> None:
    plane = step(5, 25)
    plane[..., STEP_AT - 3 : STEP_AT + 3] = 15
    frames = plane.expand(-1, 3, -1, -1) / 25
    snapped = snap(plane, frames, reach_px=24, bound_px=2.0)
    assert torch.equal(snapped[..., STEP_AT - 2 : STEP_AT + 2], plane[..., STEP_AT - 2 : STEP_AT + 2])


def test_snap_has_the_same_bits_for_any_number_of_threads() -> None:
    generator = torch.Generator().manual_seed(2)
    frames, plane = (torch.rand(1, channels, 67, 91, generator=generator) for channels in (3, 1))
    before = numba.get_num_threads()
    results = []
    for threads in {1, before}:
        numba.set_num_threads(threads)
        results.append(snap(plane * 30, frames, reach_px=7, bound_px=2.0))
    numba.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)
    assert not torch.equal(results[0], plane * 30)


def test_dilate_grows_the_near_side_by_its_radius() -> None:
    grown = dilate(step(5, 25), radius_px=3)
    assert (grown[..., : STEP_AT - 3] == 5).all() and (grown[..., STEP_AT - 3 :] == 25).all()
    assert torch.equal(dilate(step(25, 5), radius_px=0), step(25, 5))


def test_dilate_grows_along_rows_only() -> None:
    point = torch.zeros(1, 1, 15, 15)
    point[..., 7, 7] = 1
    grown = dilate(point, radius_px=4)[0, 0]
    assert (grown[7, 3:12] == 1).all() and grown.sum() == 9


def test_upsample_reaches_the_frames_size_and_keeps_values() -> None:
    frames = torch.rand(2, 3, 37, 53)
    large = upsample(torch.full((2, 1, 9, 13), 0.25), frames)
    torch.testing.assert_close(large, torch.full((2, 1, 37, 53), 0.25))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 2)])
def test_edges_take_the_smallest_maps(size: tuple[int, int]) -> None:
    plane, frames = torch.rand(1, 1, *size), torch.rand(1, 3, *size)
    assert snap(plane, frames, reach_px=9, bound_px=0.1).shape == plane.shape
    assert dilate(plane, radius_px=2).shape == plane.shape


def test_edges_refuse_mismatched_shapes() -> None:
    plane, frames = torch.rand(1, 1, 4, 6), torch.rand(1, 3, 4, 5)
    with pytest.raises(ValueError, match="disparity is"):
        snap(plane, frames, reach_px=3, bound_px=1.0)
    with pytest.raises(ValueError, match="reach_px"):
        snap(plane, torch.rand(1, 3, 4, 6), reach_px=0, bound_px=1.0)
    with pytest.raises(ValueError, match="radius_px"):
        dilate(plane, radius_px=-1)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (23, 41), (64, 96)])
@pytest.mark.parametrize("reach_px", [1, 3, 9, 24])
@pytest.mark.parametrize("form", [torch.clone, frames_to_uint8])
def test_torch_snaps_to_the_same_bits_as_cpu(
    form: Callable[[Tensor], Tensor], size: tuple[int, int], reach_px: int
) -> None:
    generator = torch.Generator().manual_seed(4)
    frames, noise = (torch.rand(2, channels, *size, generator=generator) for channels in (3, 1))
    layers = torch.where((torch.arange(size[1]) // 11) % 2 == 0, 4.0, 17.3)
    plane = blur(layers + 0.7 * noise, 2)
    made, expected = (
        snap(plane, form(frames), reach_px=reach_px, bound_px=2.1, backend=backend)  # type: ignore[arg-type]
        for backend in ("torch", "cpu")
    )
    assert torch.equal(made, expected)
    assert size != (64, 96) or reach_px < 9 or not torch.equal(made, plane)


def test_torch_snaps_places_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(7)
    frames, plane = (torch.rand(2, channels, 13, 29, generator=generator) for channels in (3, 1))
    monkeypatch.setattr(ramps_torch, "VALUES_AT_ONCE", 50)
    made, expected = (
        snap(9 * plane, frames, reach_px=5, bound_px=1.0, backend=backend)  # type: ignore[arg-type]
        for backend in ("torch", "cpu")
    )
    assert torch.equal(made, expected) and (made != 9 * plane).sum() > 100


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("sigma", [1.0, 2.0, 4.0])
def test_measured_blur_is_that_of_a_blurred_step(sigma: float, backend: Backend) -> None:
    assert measure_blur(step(5, 25), reach_px=24, bound_px=2.0, backend=backend) == [0, 0]
    blurred = measure_blur(blur(step(5, 25), sigma), reach_px=24, bound_px=2.0, backend=backend)
    assert blurred == pytest.approx([sigma, sigma], abs=0.25)


def test_flat_maps_and_slopes_have_no_blur() -> None:
    slope = torch.linspace(0, 40, WIDTH).expand(1, 1, HEIGHT, WIDTH).contiguous()
    for plane in (torch.zeros_like(slope), slope, slope.mT.contiguous()):
        assert measure_blur(plane, reach_px=24, bound_px=2.0) == [0]


def scene(height: int = 128, width: int = 480) -> Tensor:  # [1, 1, H, W]
    """Return the disparity of two wide objects and of bars that a blur of 3 px lowers."""
    plane = torch.full((1, 1, height, width), 4.0)
    plane[..., 20:70, 20:80] = plane[..., 60:110, 120:170] = 24
    for column in range(200, 460, 30):
        plane[..., 10:120, column : column + 3] = 24
    return plane


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.0])
def test_sharpening_wins_back_most_of_a_blur(sigma: float, backend: Backend) -> None:
    truth = scene()
    frames = (truth / 30).expand(-1, 3, -1, -1).contiguous()
    blurred = blur(truth, sigma)
    made = sharpen(blurred, frames, backend=backend)
    error, before = ((plane - truth).abs()[..., :185].mean() for plane in (made, blurred))
    assert error < 0.15 * before, "wide objects"
    snapped = snap(blurred, frames, reach_px=19, bound_px=1.7)
    lost, lost_by_snapping = (24 - plane[..., 20:110, 201::30].mean() for plane in (made, snapped))
    assert lost < 0.7 * lost_by_snapping, "thin objects"


@pytest.mark.parametrize("factor", [1, 4])
@pytest.mark.parametrize("height_px", [3.0, 6.0, 24.0])
def test_holes_of_sharpened_disparity_have_their_area(height_px: float, factor: int) -> None:
    """Of steps of 0.3 % of the width and more, also if the map is smaller than the frames."""
    truth = torch.zeros(1, 1, 96, 1000)
    for column in range(80, 920, 160):
        truth[..., column : column + 80] = height_px
    frames = (truth / height_px).expand(-1, 3, -1, -1).contiguous()
    blurred = blur(functional.avg_pool2d(truth, factor), 2 if factor == 1 else 1)
    areas = [
        occlusion_mask(warp(frames, disparity).coverage).sum()
        for disparity in (truth, upsample(blurred, frames), sharpen(blurred, frames))
    ]
    assert areas[0] == 96 * 6 * height_px and areas[1] < 0.9 * areas[0]
    assert 0.8 < areas[2] / areas[0] < 1.15


def test_sharpening_does_not_amplify_noise() -> None:
    noise = torch.randn(1, 1, 128, 480, generator=torch.Generator().manual_seed(8))
    noise = 0.1 * noise / blur(noise, 1).std()
    blurred = blur(scene(), 2) + blur(noise, 1)
    made = sharpen(blurred, torch.full((1, 3, 128, 480), 0.5))
    aside = made[..., 20:, :16]  # beside all objects
    assert aside.std() < 1.1 * blurred[..., 20:, :16].std()


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_frames_are_sharpened_one_by_one(backend: Backend) -> None:
    planes = torch.cat([blur(scene(), 2), scene(), blur(scene(), 4)])
    frames = torch.rand(3, 3, 128, 480, generator=torch.Generator().manual_seed(9))
    together = sharpen(planes, frames, backend=backend)
    parts = [sharpen(planes[n : n + 1], frames[n : n + 1], backend=backend) for n in range(3)]
    assert torch.equal(together, torch.cat(parts)) and torch.equal(together, sharpen(planes, frames))


@pytest.mark.parametrize("radius_px", [0, 1, 2, 3, 6, 13])
def test_torch_dilates_to_the_same_bits_as_cpu(radius_px: int) -> None:
    plane = torch.rand(2, 1, 19, 37, generator=torch.Generator().manual_seed(5))
    assert torch.equal(
        dilate(plane, radius_px=radius_px, backend="torch"), dilate(plane, radius_px=radius_px, backend="cpu")
    )


def test_edges_refuse_an_unknown_backend() -> None:
    plane, frames = torch.rand(1, 1, 4, 6), torch.rand(1, 3, 4, 6)
    with pytest.raises(ValueError, match="backend must be auto, cpu or torch"):
        sharpen(plane, frames, backend="gpu")  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_edges_on_a_gpu_are_those_of_the_cpu() -> None:
    generator = torch.Generator().manual_seed(6)
    frames = torch.rand(2, 3, 540, 960, generator=generator)
    plane = blur(30 * (torch.rand(2, 1, 540, 960, generator=generator) > 0.999).float(), 4) * 60
    made = sharpen(plane.cuda(), frames.cuda())
    with pytest.raises(ValueError, match="backend cpu needs arrays on the CPU"):
        dilate(plane.cuda(), radius_px=1, backend="cpu")
    assert made.is_cuda
    different = made.cpu() != sharpen(plane, frames)  # a blur is rounded in another order
    assert different.float().mean() < 1e-3
