import math

import pytest
import torch

from secondeye.metrics import psnr_db


def test_psnr_by_hand_and_only_where_asked() -> None:
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
def test_what_is_no_number_is_infinitely_wrong_and_only_where_it_counts(value: float) -> None:
    truth = torch.zeros(1, 3, 2, 2)
    frames = truth.clone()
    frames[0, 0, 0, 0] = value
    there = torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    there[..., 0, :] = True
    assert psnr_db(frames, truth, there) == -math.inf
    assert psnr_db(frames + 0.1, truth, ~there) == pytest.approx(20.0, abs=1e-5)
