import math

import numpy as np
import pytest
import torch
from conftest import moving_images

from secondeye.metrics.temporal import colour_difference, colour_steps, flow_to_next, warping_error


def film(frames: int = 4, height: int = 64, width: int = 96) -> torch.Tensor:
    """A texture that drifts 2 px to the left from frame to frame."""
    images = moving_images(frames, height, width, seed=5)
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def test_flow_to_next_is_unreliable_where_pixels_leave_the_frame() -> None:
    flow, reliable = flow_to_next(film())
    assert flow.shape == (3, 2, 64, 96) and reliable.shape == (3, 1, 64, 96)
    assert reliable.double().mean() > 0.9 and not reliable[..., 0].any(), "the first column leaves the frame"
    error = (flow - torch.tensor([-2.0, 0.0]).view(1, 2, 1, 1)).abs()
    assert error[reliable.expand_as(error)].median() < 0.05


def test_flow_across_a_cut_is_unreliable() -> None:
    other = torch.from_numpy(moving_images(1, 64, 96, seed=6)).permute(0, 3, 1, 2).float() / 255
    _, reliable = flow_to_next(torch.cat([film(1), other]))
    assert reliable.double().mean() < 0.2


def test_a_single_frame_has_no_flow() -> None:
    frames = film(1)
    flow, reliable = flow_to_next(frames)
    assert flow.shape == (0, 2, 64, 96) and reliable.shape == (0, 1, 64, 96)
    assert warping_error(frames, flow, reliable) == (0, 0)
    assert colour_steps(colour_difference(frames, frames)).shape == (0, 3)


def test_warping_error_by_hand() -> None:
    frames = torch.rand(2, 3, 6, 8)
    flow, reliable = torch.zeros(1, 2, 6, 8), torch.ones(1, 1, 6, 8, dtype=torch.bool)
    flow[:, 0] = 2
    frames[0, :, :, :-2] = frames[1, :, :, 2:]  # exactly what the flow says
    reliable[..., -2:] = False
    assert warping_error(frames, flow, reliable) == (0, 36)
    frames[0, 1, 3, 3] += 0.3  # of green alone: a third
    assert warping_error(frames, flow, reliable) == (pytest.approx(0.03), 36)
    assert warping_error(frames, flow, reliable & False) == (0, 0)


def test_warping_error_counts_flicker_but_not_motion() -> None:
    frames = film()
    flow, reliable = flow_to_next(frames)

    def error(shown: torch.Tensor) -> float:
        total, count = warping_error(shown, flow, reliable)
        return total / count

    flicker = torch.tensor([0.05, -0.05, 0.05, -0.05]).view(4, 1, 1, 1)
    assert error(frames) < 1e-4
    assert error(frames + 0.1) == pytest.approx(error(frames), rel=1e-2)
    assert error(frames + flicker) == pytest.approx(0.01, rel=0.05)
    still = frames[:1].expand_as(frames)
    assert error(still) > 10 * error(frames), "a still image of a moving film is wrong"


def test_windows_that_share_a_frame_add_up() -> None:
    frames, shown = film(5), torch.rand(5, 3, 64, 96)
    whole = warping_error(shown, *flow_to_next(frames))
    parts = [warping_error(shown[cut], *flow_to_next(frames[cut])) for cut in (slice(0, 3), slice(2, 5))]
    assert whole == (pytest.approx(parts[0][0] + parts[1][0]), parts[0][1] + parts[1][1])


def test_warping_error_of_frames_too_small_for_flow_is_empty() -> None:
    frames = torch.rand(3, 3, 8, 12)
    assert warping_error(frames, *flow_to_next(frames)) == (0, 0)


def test_colour_difference_by_hand() -> None:
    other = torch.rand(2, 3, 4, 5)
    frames = other.clone()
    frames[1, 0] += 0.1
    frames[1, 2, 0, 0] -= 0.5  # one of 20 pixels
    wanted = torch.tensor([[0.0, 0.0, 0.0], [25.5, 0.0, -0.025 * 255]]).double()
    found = colour_difference(frames, other)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    there = torch.zeros(2, 1, 4, 5, dtype=torch.bool)
    there[1, 0, 0, 0] = True
    found = colour_difference(frames, other, there)
    assert found[0].isnan().all()
    torch.testing.assert_close(found[1], torch.tensor([25.5, 0, -127.5]).double(), atol=1e-4, rtol=0)


def test_colour_steps_find_a_periodic_tint() -> None:
    other = torch.rand(60, 3, 4, 4)
    frames = other + 0.2  # a constant cast costs nothing
    frames[19::20, 2] += 0.1
    steps = colour_steps(colour_difference(frames, other))
    assert steps.shape == (59, 3)
    assert float(steps.max()) == pytest.approx(25.5, abs=1e-3)
    assert float(steps.mean()) == pytest.approx(25.5 * 5 / (59 * 3), abs=1e-3), (
        "five steps: the last frame has it"
    )
    assert float(steps[:, :2].max()) < 1e-3


def test_colour_steps_of_windows_concatenate() -> None:
    frames, other = torch.rand(5, 3, 4, 4), torch.rand(5, 3, 4, 4)
    whole = colour_steps(colour_difference(frames, other))
    parts = [colour_steps(colour_difference(frames[cut], other[cut])) for cut in (slice(0, 3), slice(2, 5))]
    assert torch.equal(torch.cat(parts), whole) and not math.isnan(float(np.asarray(whole).sum()))
