import pytest
import torch

from secondeye.matching import make_matcher
from secondeye.matching.check import fill_from_background, is_consistent, match_both_ways
from secondeye.world import two_cards

NAN = float("nan")


@pytest.mark.parametrize("name", ["block"])
def test_matcher_finds_the_cards(name: str) -> None:
    shot = two_cards(frames=2, height=96, width=192, near_px=16, far_px=3, seed=1)
    matcher = make_matcher(name, 32)
    disparity, consistent = match_both_ways(matcher, shot.left, shot.right, tolerance_px=1.0)
    assert disparity.shape == (2, 1, 96, 192) and disparity.dtype == torch.float32
    error = (disparity - shot.disparity).abs()[consistent]
    assert error.median() <= 1 / 16 and (error > 1).float().mean() < 0.05
    visible = ~shot.left_occlusion
    assert consistent[visible].float().mean() > 0.85
    assert consistent[shot.left_occlusion].float().mean() < 0.35


@pytest.mark.parametrize("name", ["block"])
def test_frames_do_not_see_each_other(name: str) -> None:
    shot = two_cards(frames=2, height=64, width=128, seed=1)
    together = make_matcher(name, 16)(shot.left, shot.right)
    alone = make_matcher(name, 16)(shot.left[1:], shot.right[1:])
    assert torch.equal(together[1:].nan_to_num(-1), alone.nan_to_num(-1))


def test_unknown_matcher_names_the_choices() -> None:
    with pytest.raises(ValueError, match="block"):
        make_matcher("magic", 16)


def row(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(1, 1, 1, -1)


def test_consistency_by_hand() -> None:
    left = row(0, 2, 2, 2, NAN, 1)
    right = row(0, 2, 0, 2, 1, 0)
    # x=0 stays: 0 and 0; x=1 lands outside; x=2 lands on 0: 2 and 0; x=3 on 1: 2 and 2; x=5 on 4: 1 and 1
    assert is_consistent(left, right, 0.5).flatten().tolist() == [True, False, False, True, False, True]


def test_gaps_take_the_farther_end() -> None:
    known = torch.tensor([[False, True, False, False, True, False]]).view(1, 1, 1, 6)
    filled = fill_from_background(row(NAN, 7, NAN, NAN, 3, NAN), known)
    assert filled.flatten().tolist() == [7, 7, 3, 3, 3, 3]


def test_unknown_rows_copy_their_neighbours_and_unknown_frames_are_flat() -> None:
    disparity = torch.full((2, 1, 4, 3), NAN)
    known = torch.zeros(2, 1, 4, 3, dtype=torch.bool)
    disparity[0, 0, 1], known[0, 0, 1] = 5.0, True
    filled = fill_from_background(disparity, known)
    assert (filled[0] == 5).all() and (filled[1] == 0).all()


def test_known_values_are_untouched_and_the_input_too() -> None:
    disparity, known = torch.rand(2, 1, 7, 9), torch.rand(2, 1, 7, 9) > 0.5
    before = disparity.clone()
    filled = fill_from_background(disparity, known)
    assert torch.equal(filled[known], disparity[known]) and torch.equal(disparity, before)
