import pytest
import torch
from conftest import coarse_cards

from secondeye.parallax import find_shift
from secondeye.views import apply_shift


@pytest.mark.parametrize("offset_px", [-40, -12, 0, 9, 31])
def test_known_shift_is_found_to_a_pixel(offset_px: int) -> None:
    shot = coarse_cards(frames=3, height=128, width=256, near_px=16, far_px=4, card_px=80, seed=3)
    # Roll the right view left by the offset: every disparity grows by it.
    right = torch.roll(shot.right, -offset_px, dims=-1)
    found = find_shift(shot.left, right, max_disparity_percent=25, margin_px=0)
    assert abs(found.shift_px - (4 + offset_px)) <= 1
    assert found.near_px == pytest.approx(12, abs=1.5)
    assert found.support > 0.5
    left, moved = apply_shift(shot.left, right, found.shift_px)
    again = find_shift(left, moved, max_disparity_percent=25, margin_px=0)
    assert abs(again.shift_px) <= 1


def test_unrelated_views_have_no_support() -> None:
    left, right = torch.rand(2, 2, 3, 96, 160, generator=torch.Generator().manual_seed(0))
    assert find_shift(left, right, max_disparity_percent=25, margin_px=1).support < 0.1


def test_blank_views_have_no_support() -> None:
    blank = torch.full((2, 3, 64, 96), 0.5)
    assert find_shift(blank, blank, max_disparity_percent=25, margin_px=1).support < 0.1
