import math

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from secondeye.metrics.image_quality import (
    decibels,
    luma,
    mean_where,
    ms_ssim,
    psnr_db,
    squared_error,
    ssim_map,
)


def textured(height: int, width: int, seed: int, frames: int = 1) -> tuple[Tensor, Tensor]:
    """Return a noisy and a clean image with detail at several scales."""
    generator = torch.Generator().manual_seed(seed)
    planes = [
        torch.nn.functional.interpolate(
            torch.rand(frames, 3, -(-height // px), -(-width // px), generator=generator), scale_factor=px
        )[..., :height, :width]
        for px in (1, 4, 16)
    ]
    truth = torch.stack(planes).mean(0)
    noise = torch.randn(truth.shape, generator=generator)
    return (truth + 0.1 * noise).clamp(0, 1), truth


def test_psnr_by_hand_over_selected_pixels() -> None:
    truth = torch.zeros(1, 3, 2, 2)
    frames = truth.clone()
    frames[..., 0, 0] = 0.1  # squared error 0.01 at one of four pixels
    everywhere = torch.ones(1, 1, 2, 2, dtype=torch.bool)
    assert psnr_db(frames, truth, everywhere) == pytest.approx(10 * math.log10(4 / 0.01))
    there = everywhere.clone()
    there[..., 1, :], there[..., 0, 1] = False, False
    assert psnr_db(frames, truth, there) == pytest.approx(20.0, abs=1e-5)
    assert psnr_db(frames, truth, ~there) == 100.0
    assert math.isnan(psnr_db(frames, truth, everywhere & False))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_psnr_of_selected_nonfinite_pixels_is_minus_infinity(value: float) -> None:
    truth = torch.zeros(1, 3, 2, 2)
    frames = truth.clone()
    frames[0, 0, 0, 0] = value
    there = torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    there[..., 0, :] = True
    assert psnr_db(frames, truth, there) == -math.inf
    assert psnr_db(frames + 0.1, truth, ~there) == pytest.approx(20.0, abs=1e-5)


def test_squared_error_is_the_mean_over_colours() -> None:
    frames = torch.tensor([0.5, 0.25, 0.0])[None, :, None, None]
    error = squared_error(frames, torch.zeros(1, 3, 1, 1))
    assert error.shape == (1, 1, 1, 1) and error.dtype == torch.float64
    assert error.item() == (0.25 + 0.0625) / 3


def test_decibels_are_capped_at_100_and_keep_nan() -> None:
    assert decibels(0.001) == pytest.approx(30.0)
    assert decibels(0.0) == 100.0
    assert decibels(math.inf) == -math.inf
    assert math.isnan(decibels(math.nan))


def test_ssim_matches_skimage() -> None:
    from skimage.metrics import structural_similarity

    frames, truth = textured(37, 53, seed=1, frames=2)
    for here, there, found in zip(luma(frames), luma(truth), ssim_map(frames, truth), strict=True):
        expected = structural_similarity(
            here,
            there,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )[1]
        np.testing.assert_allclose(found[0].numpy(), expected, rtol=0, atol=1e-10)


def test_ssim_of_equal_images_is_exactly_one() -> None:
    _, truth = textured(64, 64, seed=2)
    everywhere = torch.ones(1, 1, 64, 64, dtype=torch.bool)
    assert ssim_map(truth, truth).eq(1).all()
    assert ms_ssim(truth, truth, {"": everywhere})[""].item() == 1


@pytest.mark.slow(seconds=6)
def test_ms_ssim_matches_torchmetrics_except_at_borders() -> None:
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    for noisy, truth in (textured(256, 448, seed=3), textured(512, 512, seed=4)):
        for frames in (noisy, torch.nn.functional.avg_pool2d(noisy, 5, 1, 2, False, False), 0.7 * truth):
            there, here = (torch.from_numpy(luma(x))[:, None] for x in (truth, frames))
            expected = multiscale_structural_similarity_index_measure(here, there, data_range=1.0)
            everywhere = torch.ones_like(here, dtype=torch.bool)
            # torchmetrics crops 5 px at the borders of each scale; ours mirrors.
            found = ms_ssim(frames, truth, {"": everywhere})[""].item()
            assert found == pytest.approx(float(expected), abs=1e-3)


def test_ms_ssim_of_flat_images_is_the_luminance_of_the_coarsest_scale() -> None:
    truth, frames = torch.full((1, 3, 176, 180), 0.4), torch.full((1, 3, 176, 180), 0.6)
    everywhere = torch.ones(1, 1, 176, 180, dtype=torch.bool)
    luminance = (2 * 0.4 * 0.6 + 1e-4) / (0.4**2 + 0.6**2 + 1e-4)
    found = ms_ssim(frames, truth, {"": everywhere})[""].item()
    assert found == pytest.approx(luminance ** (0.1333 / 1.0001), abs=1e-7)
    four = ms_ssim(frames[..., 1:, :], truth[..., 1:, :], {"": everywhere[..., 1:, :]})[""].item()
    assert four == pytest.approx(luminance ** (0.2363 / 0.8668), abs=1e-7)


def test_ms_ssim_weights_coarse_pixels_by_their_selected_share() -> None:
    from scipy.ndimage import gaussian_filter

    # Brighter by a constant: only the luminance term at the coarsest scale differs.
    truth = torch.linspace(0.1, 0.7, 32).expand(1, 3, 32, 32).contiguous()
    where = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    where[..., 4, 6] = True  # a quarter of the coarse pixel (2, 3)
    where[..., 20:22, 24:26] = True  # all of (10, 12)
    coarse = luma(truth)[0].reshape(16, 2, 16, 2).mean((1, 3))
    means = [gaussian_filter(plane, 1.5, truncate=3.5, mode="reflect") for plane in (coarse, coarse + 0.2)]
    luminance = (2 * means[0] * means[1] + 1e-4) / (means[0] ** 2 + means[1] ** 2 + 1e-4)
    expected = (0.25 * luminance[2, 3] + luminance[10, 12]) / 1.25
    found = ms_ssim(truth + 0.2, truth, {"": where})[""].item()
    assert found == pytest.approx(expected ** (0.2856 / 0.3304), abs=1e-6)


def test_ms_ssim_is_per_region_and_frame_and_nan_for_an_empty_region() -> None:
    frames, truth = textured(176, 352, seed=5, frames=3)
    frames[1] = truth[1]
    frames[:, ..., 176:] = truth[:, ..., 176:]
    left = torch.zeros(3, 1, 176, 352, dtype=torch.bool)
    left[:2, ..., :176] = True
    right = torch.zeros_like(left)
    right[..., 346:] = True
    found = ms_ssim(frames, truth, {"left": left, "right": right})
    assert found["left"][0] < 0.97 and found["left"][1] == 1 and found["left"][2].isnan()
    assert found["right"][0] > 0.999 and found["right"][1:].gt(0.999).all()


def test_ms_ssim_of_inverted_images_is_zero() -> None:
    _, truth = textured(176, 176, seed=6)
    everywhere = torch.ones(1, 1, 176, 176, dtype=torch.bool)
    assert ms_ssim(1 - truth, truth, {"": everywhere})[""].item() == 0


def test_ms_ssim_includes_the_last_row_of_odd_heights() -> None:
    frames, truth = textured(185, 185, seed=7)
    where = torch.zeros(1, 1, 185, 185, dtype=torch.bool)
    where[..., -1, :] = True
    assert 0 < ms_ssim(frames, truth, {"": where})[""].item() < 1


def test_scores_are_bit_identical_for_any_number_of_threads() -> None:
    frames, truth = textured(256, 448, seed=8, frames=2)
    where = truth[:, :1] > 0.5
    before, found = (torch.get_num_threads(), cv2.getNumThreads()), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads), cv2.setNumThreads(threads)
        similarity = ssim_map(frames, truth)
        scores = [psnr_db(frames, truth, where), mean_where(similarity, where)]
        found.append([*scores, *ms_ssim(frames, truth, {"": where})[""].tolist()])
    torch.set_num_threads(before[0]), cv2.setNumThreads(before[1])
    assert found[0] == found[1] == found[2]
