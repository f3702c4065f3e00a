import math
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from secondeye.metrics.image_quality import luma
from secondeye.metrics.perceptual import haarpsi, vif

Score = Callable[[Tensor, Tensor], Tensor]


def detailed(count: int, height: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    fine = torch.rand(count, 3, height, width, generator=generator)
    coarse = torch.rand(count, 3, -(-height // 8), -(-width // 8), generator=generator)
    return (0.4 * fine + 0.6 * F.interpolate(coarse, scale_factor=8)[..., :height, :width]).float()


def noisy(crops: Tensor, strength: float) -> Tensor:
    generator = torch.Generator().manual_seed(99)
    return (crops + strength * torch.randn(crops.shape, generator=generator)).clamp(0, 1)


def blurred(crops: Tensor, sigma_px: float) -> Tensor:
    images = [cv2.GaussianBlur(crop.permute(1, 2, 0).numpy(), (0, 0), sigma_px) for crop in crops]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def literal_haarpsi(here: Tensor, there: Tensor) -> float:
    """Compute HaarPSI of one pair [3, h, w] literally, with full convolutions."""
    from scipy.signal import convolve2d

    def convolve(plane: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        first = len(kernel) // 2  # as Matlab's "same"
        return convolve2d(plane, kernel)[first:, first:][: plane.shape[0], : plane.shape[1]]

    def planes_of(image: Tensor) -> list[np.ndarray]:
        red, green, blue = 255 * image.double().numpy()
        yiq = (
            0.299 * red + 0.587 * green + 0.114 * blue,
            0.596 * red - 0.274 * green - 0.322 * blue,
            0.211 * red - 0.523 * green + 0.312 * blue,
        )
        return [convolve(plane, np.full((2, 2), 0.25))[::2, ::2] for plane in yiq]

    def haar(plane: np.ndarray, scale: int, transposed: bool) -> np.ndarray:
        kernel = np.full((2**scale, 2**scale), 2.0**-scale)
        kernel[: 2**scale // 2] *= -1
        return np.abs(convolve(plane, kernel.T if transposed else kernel))

    def alike(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (2 * a * b + 30) / (a**2 + b**2 + 30)

    (y, *colours), (other_y, *other_colours) = planes_of(here), planes_of(there)
    similarities, weights = [], []
    for transposed in (False, True):
        scales = [(haar(y, k, transposed), haar(other_y, k, transposed)) for k in (1, 2, 3)]
        similarities.append((alike(*scales[0]) + alike(*scales[1])) / 2)
        weights.append(np.maximum(*scales[2]))
    mean = np.full((2, 2), 0.25)
    chroma = [
        alike(np.abs(convolve(a, mean)), np.abs(convolve(b, mean)))
        for a, b in zip(colours, other_colours, strict=True)
    ]
    similarities.append((chroma[0] + chroma[1]) / 2)
    weights.append((weights[0] + weights[1]) / 2)
    s, w = np.stack(similarities), np.stack(weights)
    p = (w / (1 + np.exp(-4.2 * s))).sum() / w.sum()
    return float((np.log(p / (1 - p)) / 4.2) ** 2)


@pytest.mark.parametrize("score", [haarpsi, vif])
def test_equal_crops_score_one(score: Score) -> None:
    crops = detailed(3, 48, 42, seed=0)
    found = score(crops, crops)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("score", [haarpsi, vif])
@pytest.mark.parametrize("worsen", [noisy, blurred])
def test_more_noise_or_blur_scores_lower(score: Score, worsen: Callable[[Tensor, float], Tensor]) -> None:
    truth = detailed(2, 64, 64, seed=1)
    strengths = (0.02, 0.05, 0.1, 0.2) if worsen is noisy else (0.5, 1.0, 2.0, 4.0)
    found = torch.stack([score(worsen(truth, strength), truth) for strength in strengths])
    assert found[0].lt(1).all() and found.diff(dim=0).lt(0).all() and found[-1].gt(0).all()


@pytest.mark.parametrize("score", [haarpsi, vif])
def test_crops_are_independent_and_an_empty_batch_is_empty(score: Score) -> None:
    truth = detailed(3, 44, 50, seed=2)
    crops = noisy(truth, 0.1)
    alone = torch.cat([score(crops[n : n + 1], truth[n : n + 1]) for n in range(3)])
    torch.testing.assert_close(score(crops, truth), alone, rtol=1e-13, atol=0)
    assert score(crops[:0], truth[:0]).shape == (0,)


@pytest.mark.parametrize("score", [haarpsi, vif])
def test_scores_are_bit_identical_for_any_number_of_threads(score: Score) -> None:
    truth = detailed(40, 64, 64, seed=3)
    before, found = (torch.get_num_threads(), cv2.getNumThreads()), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads), cv2.setNumThreads(threads)
        found.append(score(noisy(truth, 0.1), truth).tolist())
    torch.set_num_threads(before[0]), cv2.setNumThreads(before[1])
    assert found[0] == found[1] == found[2]


def test_haarpsi_matches_the_literal_formulas() -> None:
    truth = detailed(2, 36, 50, seed=4)
    for crops in (noisy(truth, 0.15), blurred(truth, 1.5), truth.flip(1)):
        found = haarpsi(crops, truth).tolist()
        assert found == pytest.approx(
            [literal_haarpsi(*pair) for pair in zip(crops, truth, strict=True)], abs=1e-12
        )


def test_haarpsi_of_a_single_pixel_by_hand() -> None:
    # Gray 100 and 200, halved to one pixel. Beyond it is black, so that a Haar filter of 2**k px finds
    # value / 2**k, each way. Neither has colour: that similarity is 1, and all three weights are equal.
    def alike(a: float, b: float) -> float:
        return (2 * a * b + 30) / (a * a + b * b + 30)

    def logistic(x: float) -> float:
        return 1 / (1 + math.exp(-4.2 * x))

    similarity = (alike(50, 100) + alike(25, 50)) / 2
    mean = (2 * logistic(similarity) + logistic(1)) / 3
    expected = (math.log(mean / (1 - mean)) / 4.2) ** 2
    here, there = torch.full((1, 3, 2, 2), 100 / 255), torch.full((1, 3, 2, 2), 200 / 255)
    assert haarpsi(here, there).item() == pytest.approx(expected, abs=1e-6)


def test_haarpsi_is_symmetric_and_invariant_to_flips() -> None:
    truth = F.pad(detailed(2, 32, 32, seed=5), (16, 16, 16, 16))  # black about them: no border
    crops = F.pad(noisy(truth, 0.1)[..., 16:-16, 16:-16], (16, 16, 16, 16))
    found = haarpsi(crops, truth)
    assert haarpsi(truth, crops).tolist() == found.tolist()
    for turn in (lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.mT):
        torch.testing.assert_close(haarpsi(turn(crops), turn(truth)), found, rtol=1e-12, atol=0)


def test_haarpsi_is_sensitive_to_chroma() -> None:
    truth = detailed(1, 32, 32, seed=6)
    gray = torch.from_numpy(luma(truth)).float()[:, None].expand(1, 3, 32, 32)
    assert haarpsi(gray, truth).item() < 0.9
    assert haarpsi(0.5 * gray + 0.5 * truth, truth) > haarpsi(gray, truth)


def test_haarpsi_of_black_crops() -> None:
    truth = detailed(2, 16, 16, seed=7)
    truth[0] = 0
    found = haarpsi(torch.zeros(2, 3, 16, 16), truth)
    assert found[0] == 1 and found[1] < 0.3


@pytest.mark.parametrize("size", [(64, 64), (41, 41), (41, 70), (55, 43)])
def test_vif_matches_torchmetrics(size: tuple[int, int]) -> None:
    from torchmetrics.functional.image import visual_information_fidelity

    truth = detailed(2, *size, seed=8)
    truth[0, ..., :20, :20] = 0.5  # partly flat
    for crops in (noisy(truth, 0.1), blurred(truth, 1.5), 1 - truth):
        there, here = (torch.from_numpy(255 * luma(x))[:, None] for x in (truth, crops))
        expected = visual_information_fidelity(here, there, reduction="none")
        torch.testing.assert_close(vif(crops, truth), expected, rtol=1e-6, atol=1e-9)


def test_vif_is_above_one_for_higher_contrast_and_nan_for_a_flat_truth() -> None:
    truth = 0.25 + 0.5 * detailed(2, 48, 48, seed=9)
    louder = (truth - 0.5) * 1.5 + 0.5
    truth[1], louder[1] = 0.5, louder[0]
    found = vif(louder, truth)
    assert 1 < found[0] < 1.5 and found[1].isnan()


def test_vif_rejects_small_crops() -> None:
    with pytest.raises(ValueError, match="41"):
        vif(torch.zeros(1, 3, 41, 40), torch.zeros(1, 3, 41, 40))
