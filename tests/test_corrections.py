"""Each correction of a clip does exactly what its column says."""

import pytest
import torch
from conftest import a_shift
from torch import Tensor

from secondeye.dataset.corrections import apply_corrections, apply_vertical


@pytest.fixture
def views() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randint(0, 256, (2, 2, 3, 24, 40), generator=generator).float() / 255
    return left, right


def test_without_corrections_views_are_unchanged(views: tuple[Tensor, Tensor]) -> None:
    left, right = apply_corrections(*views, a_shift("a"))
    assert torch.equal(left, views[0]) and torch.equal(right, views[1])


def test_swapped_views_are_exchanged(views: tuple[Tensor, Tensor]) -> None:
    left, right = apply_corrections(*views, a_shift("a", swapped=True))
    assert torch.equal(left, views[1]) and torch.equal(right, views[0])


def test_colours_apply_to_the_right_view_and_are_clamped(views: tuple[Tensor, Tensor]) -> None:
    left, right = apply_corrections(*views, a_shift("a", red_gain=1.5, blue_offset=-0.25))
    assert torch.equal(left, views[0]) and torch.equal(right[:, 1], views[1][:, 1])
    assert torch.equal(right[:, 0], (views[1][:, 0] * 1.5).clamp(max=1))
    assert torch.equal(right[:, 2], (views[1][:, 2] - 0.25).clamp(min=0))
    assert right.min() == 0 and right.max() == 1


@pytest.mark.parametrize("vertical_px", [-5, 0, 7])
def test_the_right_view_moves_down_and_common_rows_remain(vertical_px: int) -> None:
    scene = torch.rand(1, 3, 60, 8)
    left, right = scene[..., 10:50, :], scene[..., 10 + vertical_px : 50 + vertical_px, :]
    left, right = apply_vertical(left, right, vertical_px)
    assert torch.equal(left, right) and left.shape == (1, 3, 40 - abs(vertical_px), 8)


def test_views_are_swapped_first_and_shifted_last(views: tuple[Tensor, Tensor]) -> None:
    row = a_shift("a", swapped=True, green_offset=0.5, vertical_px=-3, shift_px=4)
    left, right = apply_corrections(*views, row)
    assert left.shape == right.shape == (2, 3, 21, 36)
    assert torch.equal(left, views[1][..., :21, 4:])
    wanted = views[0][..., 3:, :36].clone()
    wanted[:, 1] = (wanted[:, 1] + 0.5).clamp(max=1)
    assert torch.equal(right, wanted)
