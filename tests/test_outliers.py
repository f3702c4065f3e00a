"""Outliers of inpainted regions: one bad block, and colours that the surroundings lack."""

import math

import pytest
import torch
from torch import Tensor

from secondeye.metrics.outliers import BLOCK_PX, chroma_blocks, error_blocks, largest


def everywhere(frames: Tensor) -> Tensor:
    return torch.ones_like(frames[:, :1], dtype=torch.bool)


def tinted(frames: Tensor, *tint: float) -> Tensor:
    return frames + torch.tensor(tint)[:, None, None]


def worst_block(*given: Tensor) -> float:
    return largest(error_blocks(*given))


def chroma_excess(*given: Tensor) -> float:
    return largest(chroma_blocks(*given))


def test_every_block_has_its_own_value() -> None:
    truth = torch.full((2, 3, 130, 200), 0.5)
    made, where = truth.clone(), everywhere(truth)
    made[1, :, 64:128, 128:192] += 0.2
    where[..., 128:, :] = False
    blocks = error_blocks(made, truth, where)
    assert blocks.shape == (2, 3, 4) and bool(blocks[:, 2].isnan().all())
    assert blocks.nan_to_num().nonzero().tolist() == [[1, 1, 2]]
    assert float(blocks[1, 1, 2]) == pytest.approx(0.2 / (8 / 255))
    assert chroma_blocks(made, truth, where).nan_to_num().abs().max() < 1e-6


def test_the_error_of_a_block_is_relative_to_the_contrast_around_it() -> None:
    truth = torch.full((2, 3, 100, 320), 0.5)
    truth[..., ::2] += 0.1  # contrast 0.05
    truth[..., 256:] = 0.5  # none, but the block beside has some
    made = truth.clone()
    made[1, :, 64:, 10:30] += 0.2  # 36 x 20 px
    where = torch.zeros(2, 1, 100, 320, dtype=torch.bool)
    where[1, :, 64:, 10:30] = True
    assert worst_block(made, truth, where) == pytest.approx(0.2 / (0.05 + 8 / 255), rel=1e-3)
    assert worst_block(made[:1], truth[:1], everywhere(truth)[:1]) == 0
    where[1, :, 64:, 30:50] = True  # as many pixels without an error
    assert worst_block(made, truth, where) == pytest.approx(0.2 / math.sqrt(2) / (0.05 + 8 / 255), rel=1e-3)
    flat = torch.full_like(truth, 0.5)
    assert worst_block(flat + 0.1, flat, everywhere(flat)) == pytest.approx(0.1 / (8 / 255), rel=1e-3)


@pytest.mark.parametrize("score", [worst_block, chroma_excess])
def test_a_block_needs_enough_pixels(score) -> None:  # type: ignore[no-untyped-def]
    truth = torch.full((1, 3, 128, 128), 0.5)
    made, where = tinted(truth, 0.2, 0.0, 0.0), torch.zeros(1, 1, 128, 128, dtype=torch.bool)
    assert math.isnan(score(made, truth, where))
    where[..., :7, 60:69] = True  # 63 px in two blocks
    assert math.isnan(score(made, truth, where))
    where[..., :64, :1] = True
    assert score(made, truth, where) > 0.1


def test_chroma_of_the_surroundings_is_no_excess() -> None:
    truth = torch.rand(2, 3, 70, 200, generator=torch.Generator().manual_seed(0))
    gray = truth.mean(1, keepdim=True).expand_as(truth)
    assert chroma_excess(truth, truth, everywhere(truth)) == 0
    middle = everywhere(truth)
    middle[..., :64], middle[..., 128:] = False, False
    assert chroma_excess(truth.flip(-1, -2), truth, middle) == 0, "copied from beside"
    assert chroma_excess(gray, truth, everywhere(truth)) == 0, "less colour"
    assert chroma_excess(gray + 0.3, gray, everywhere(truth)) < 1e-6, "brightness is no chroma"


def test_a_tint_of_a_gray_film_counts_in_full() -> None:
    gray = torch.linspace(0.2, 0.8, BLOCK_PX * 4).expand(1, 3, 80, -1)
    made = tinted(gray, 0.1, 0.0, -0.15)
    assert chroma_excess(made, gray, everywhere(gray)) == pytest.approx(0.15)
    coloured, second, third = gray.clone(), everywhere(gray), everywhere(gray)
    coloured[:, 0, :, :BLOCK_PX] += 0.1  # in the first block: the second may have it, too
    second[..., 2 * BLOCK_PX :], third[..., : 2 * BLOCK_PX] = False, False
    made = tinted(gray, 0.1, 0.0, 0.0)
    assert chroma_excess(made, coloured, second) < 1e-6
    assert chroma_excess(made, coloured, third) == pytest.approx(0.1)
