import math

import cv2
import pytest
import torch

from secondeye.metrics.depth import edge_f_score, rank_correlation


def step(column: int, height_px: float = 5.0) -> torch.Tensor:
    """A disparity [1, 1, 10, 100] that steps up at this column; more than 0.2 px is an edge."""
    plane = torch.zeros(1, 1, 10, 100)
    plane[..., column:] = height_px
    return plane


def box(column: int) -> torch.Tensor:
    """A square [1, 1, 40, 100] of 20 px nearer than the rest."""
    plane = torch.zeros(1, 1, 40, 100)
    plane[..., 10:30, column : column + 20] = 5
    return plane


@pytest.mark.parametrize(
    ("column", "score"), [(50, 1.0), (52, 1.0), (48, 1.0), (53, 0.0), (47, 0.0)], ids=lambda v: str(v)
)
def test_an_edge_is_found_within_two_pixels(column: int, score: float) -> None:
    assert edge_f_score(step(column), step(50)).tolist() == [score]


def test_edge_f_score_of_a_moved_box_by_hand() -> None:
    assert edge_f_score(box(40), box(40)).tolist() == [1]
    # The outline has 79 px. Moved by 4, 18 px of its top, 18 of its bottom and 5 at the ends of its left side
    # are right; of the true one 19 px of the top, 19 of the bottom and 4 of the right side are found.
    precision, recall = 41 / 79, 42 / 79
    moved = 2 * precision * recall / (precision + recall)
    assert edge_f_score(box(44), box(40)).tolist() == pytest.approx([moved])
    down = (box(44).mT.contiguous(), box(40).mT.contiguous())
    assert edge_f_score(*down).tolist() == pytest.approx([moved])


def test_f_score_by_hand() -> None:
    truth = step(50) + step(20)  # two edges
    assert edge_f_score(step(50), truth).tolist() == pytest.approx([2 / 3]), (
        "all found is right, half is found"
    )
    assert edge_f_score(truth, step(50)).tolist() == pytest.approx([2 / 3])
    where = torch.zeros(1, 1, 10, 100, dtype=torch.bool)
    where[..., 40:60] = True
    assert edge_f_score(step(50), truth, where).tolist() == [1], "the other edge is not selected"
    assert edge_f_score(truth, step(50), where).tolist() == [1]


def test_a_wide_ramp_has_no_edge() -> None:
    ramp = torch.linspace(0, 5, 40).expand(1, 1, 10, 40)
    blurred = torch.cat([torch.zeros(1, 1, 10, 30), ramp, torch.full((1, 1, 10, 30), 5.0)], dim=-1)
    assert edge_f_score(blurred, step(50)).tolist() == [0]
    assert edge_f_score(step(50), blurred).tolist() == [0]
    both = edge_f_score(torch.cat([blurred, blurred]), torch.cat([blurred, step(50)]))
    assert math.isnan(both[0]) and both[1] == 0, "no edges"


def test_more_blur_lowers_the_f_score() -> None:
    planes = [cv2.GaussianBlur(step(50)[0, 0].numpy(), (0, 0), sigma) for sigma in (0.5, 3, 15)]
    scores = [float(edge_f_score(torch.from_numpy(plane)[None, None], step(50))) for plane in planes]
    assert scores[0] == 1 and 0.6 < scores[1] < 0.8 and scores[2] == 0, "exact, partly too wide, none left"


def test_edges_are_invariant_to_offset_and_moderate_scale() -> None:
    truth = step(50)
    assert edge_f_score(truth * 0.5 - 7, truth).tolist() == [1]
    assert edge_f_score(truth * 0.03, truth).tolist() == [0], "0.15 px is below the threshold"


def test_rank_correlation_by_hand() -> None:
    guess = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 4)
    everywhere = torch.ones_like(guess, dtype=torch.bool)
    assert rank_correlation(guess, guess**3, everywhere) == pytest.approx(1)
    assert rank_correlation(guess, -guess, everywhere) == pytest.approx(-1)
    swapped = torch.tensor([1.0, 3.0, 2.0, 4.0]).view(1, 1, 1, 4)
    assert rank_correlation(guess, swapped, everywhere) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert rank_correlation(guess, torch.ones_like(guess), everywhere) == 0
