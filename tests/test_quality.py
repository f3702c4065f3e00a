"""Scores computed by the stage `quality`, on images with known answers."""

import numpy as np
import pytest
import torch

from secondeye.imaging.optical_flow import MIN_FLOW_SIZE_PX
from secondeye.metrics.image_quality import best_psnr_db, gradient_levels, psnr_db
from secondeye.stages.clip_scores import colour_difference, median_motion_px


def ramp(across: float, down: float) -> torch.Tensor:  # levels a pixel
    rows, columns = torch.meshgrid(torch.arange(10.0), torch.arange(12.0), indexing="ij")
    return ((across * columns + down * rows) / 255).expand(2, 3, 10, 12)


def test_gradient_levels_of_a_ramp_is_its_slope() -> None:
    assert gradient_levels(ramp(3, 4)) == pytest.approx(5)
    assert gradient_levels(ramp(0, 0)) == 0


def test_best_psnr_leaves_the_worst_pixels_out() -> None:
    truth = torch.full((1, 3, 4, 10), 0.5)
    frames = truth + 0.01  # 40 dB
    frames[..., 9] = 1.0  # a tenth of the pixels
    frames[..., 0] = 0.0  # not selected
    where = torch.ones(1, 1, 4, 10, dtype=torch.bool)
    where[..., 0] = False
    assert best_psnr_db(frames, truth, where, 8 / 9) == pytest.approx(40, abs=1e-3)
    assert best_psnr_db(frames, truth, where, 1.0) == pytest.approx(psnr_db(frames, truth, where))
    assert np.isnan(best_psnr_db(frames, truth, ~where & where, 1.0))


def test_colour_difference_is_of_the_worst_channel_and_selected_pixels() -> None:
    truth = torch.full((2, 3, 4, 6), 0.5)
    tinted = truth.clone()
    tinted[:, 1] += 10 / 255
    tinted[:, 2, :, :3] -= 30 / 255  # 15 on average, 30 on the left half
    everywhere = torch.ones(2, 1, 4, 6, dtype=torch.bool)
    right_half = everywhere.clone()
    right_half[..., :3] = False
    assert colour_difference(tinted, truth, everywhere) == pytest.approx(15, abs=1e-4)
    assert colour_difference(tinted, truth, right_half) == pytest.approx(10, abs=1e-4)


def test_median_motion_of_a_translation() -> None:
    rng = np.random.default_rng(0)
    texture = torch.from_numpy(rng.random((1, 3, 24, 60), np.float32))
    texture = torch.nn.functional.interpolate(texture, (96, 240), mode="bicubic").clamp(0, 1)
    moving = torch.cat([texture[..., 3 * t : 3 * t + 200] for t in range(4)])
    assert median_motion_px(moving) == pytest.approx(3, abs=0.3)
    assert median_motion_px(texture.repeat(3, 1, 1, 1)) == pytest.approx(0, abs=0.05)
    assert median_motion_px(texture) == 0, "a single frame"
    assert median_motion_px(moving[..., : MIN_FLOW_SIZE_PX - 1, :]) == 0, "too small for flow"
