import cv2
import pytest
import torch

from secondeye.metrics.holes import gradient_energy, hole_boundary, seam_energy, temporal_error


def everywhere(frames: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(frames[:, :1], dtype=torch.bool)


def blurred(frames: torch.Tensor) -> torch.Tensor:
    images = [cv2.GaussianBlur(frame.permute(1, 2, 0).numpy(), (0, 0), 1.0) for frame in frames]
    return torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in images])


def mean(sums: tuple[float, float]) -> float:
    return sums[0] / sums[1]


def test_gradient_energy_by_hand() -> None:
    frames = torch.zeros(1, 3, 2, 3)
    frames[0, 0] = torch.tensor([[0.0, 0.3, 0.3], [0.0, 0.3, 0.9]])
    # of red, to the right: 0.3 0 0.3 0.6; below: 0 0 0.6. Green and blue have none: a third of the sum.
    assert gradient_energy(frames) == (pytest.approx((0.09 + 0.09 + 0.36 + 0.36) / 3), 7)
    assert gradient_energy(frames, everywhere(frames)) == gradient_energy(frames)
    there = everywhere(frames)
    there[..., 1, 2] = False  # three differences are left to the right, two below
    assert gradient_energy(frames, there) == (pytest.approx((0.09 + 0.09) / 3), 5)
    assert gradient_energy(frames, there & False) == (0, 0)


def test_blur_lowers_and_grain_raises_gradient_energy() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(2, 3, 40, 50, generator=generator)
    holes = torch.zeros(2, 1, 40, 50, dtype=torch.bool)
    holes[..., 10:30, 20:40] = True
    sharp = mean(gradient_energy(truth, holes))
    grainy = truth + 0.3 * torch.randn(truth.shape, generator=generator)
    assert mean(gradient_energy(blurred(truth), holes)) < 0.2 * sharp
    assert mean(gradient_energy(grainy, holes)) > 1.5 * sharp
    outside = torch.where(holes, truth, 0)
    assert mean(gradient_energy(outside, holes)) == sharp, "pixels outside the hole are ignored"


def test_temporal_error_by_hand() -> None:
    truth = torch.tensor([0.1, 0.2, 0.4]).view(3, 1, 1, 1).expand(3, 3, 1, 2)
    frames = truth.clone()
    frames[1, :, 0, 0] += 0.3  # there and back: 0.3 twice
    assert temporal_error(frames, truth, everywhere(truth)) == (pytest.approx(0.18), 4)
    assert temporal_error(frames, truth, everywhere(truth) & False) == (0, 0)
    there = everywhere(truth)
    there[2, :, 0, 0] = False  # the way back is not counted
    assert temporal_error(frames, truth, there) == (pytest.approx(0.09), 3)
    assert temporal_error(frames, truth, there.flip(0)) == (pytest.approx(0.09), 3)


def test_temporal_error_ignores_constant_errors_and_counts_flicker() -> None:
    truth = torch.rand(4, 3, 5, 6)
    flicker = torch.tensor([0.1, -0.1, 0.1, -0.1]).view(4, 1, 1, 1)
    assert mean(temporal_error(truth + 0.1, truth, everywhere(truth))) == pytest.approx(0, abs=1e-12)
    assert mean(temporal_error(truth + flicker, truth, everywhere(truth))) == pytest.approx(0.04)


def test_windows_that_share_a_frame_add_up() -> None:
    truth, frames = torch.rand(5, 3, 8, 9), torch.rand(5, 3, 8, 9)
    where = torch.rand(5, 1, 8, 9) > 0.3
    whole = temporal_error(frames, truth, where)
    parts = [temporal_error(frames[cut], truth[cut], where[cut]) for cut in (slice(0, 3), slice(2, 5))]
    assert whole == (pytest.approx(parts[0][0] + parts[1][0]), parts[0][1] + parts[1][1])
    whole = gradient_energy(frames, where)
    parts = [gradient_energy(frames[cut], where[cut]) for cut in (slice(0, 3), slice(3, 5))]
    assert whole == (pytest.approx(parts[0][0] + parts[1][0]), parts[0][1] + parts[1][1])


def test_the_hole_boundary_covers_both_sides() -> None:
    holes = torch.zeros(1, 1, 8, 9, dtype=torch.bool)
    holes[..., 2:6, 2:6] = True
    ring = torch.zeros_like(holes)
    ring[..., 1:7, 1:7] = True
    ring[..., 3:5, 3:5] = False
    assert torch.equal(hole_boundary(holes, 1), ring)
    assert hole_boundary(holes, 2).sum() == 8 * 8, "2 px to both sides cover the whole hole"
    assert not hole_boundary(holes & False, 1).any() and not hole_boundary(holes | True, 1).any()


def test_seam_energy_by_hand() -> None:
    holes = torch.zeros(1, 1, 10, 10, dtype=torch.bool)
    holes[..., 3:7, 3:7] = True
    frames = torch.where(holes, 0.7, 0.5).expand(1, 3, 10, 10).clone()
    # The ring is 6 x 6 without its middle 2 x 2: 24 differences in each direction, 8 of them cross.
    assert seam_energy(frames, holes) == (pytest.approx(16 * 0.04), 48)
    assert mean(seam_energy(frames, holes, radius_px=2)) < mean(seam_energy(frames, holes))
    assert seam_energy(torch.full_like(frames, 0.5), holes) == (0, 48)


def test_a_seam_in_texture_raises_seam_energy() -> None:
    truth = blurred(torch.rand(2, 3, 60, 80, generator=torch.Generator().manual_seed(3)))
    holes = torch.zeros(2, 1, 60, 80, dtype=torch.bool)
    holes[..., 10:50, 30:42] = True
    seam = torch.where(holes, truth + 0.3, truth)
    assert mean(seam_energy(seam, holes)) > 3 * mean(seam_energy(truth, holes))
