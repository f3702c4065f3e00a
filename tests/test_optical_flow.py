import cv2
import numpy as np
import pytest
import torch

from secondeye.imaging.optical_flow import (
    backward_warp_frames,
    dense_flow,
    dense_flow_frames,
    forward_backward_error_frames,
    to_gray,
)


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth noise, uint8 [h, w]."""
    noise = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return np.clip(128 + 60 * smooth / smooth.std(), 0, 255).round().astype(np.uint8)


def to_frames(gray: np.ndarray) -> torch.Tensor:  # [1, 3, H, W]
    return torch.from_numpy(gray).float().div(255).expand(1, 3, *gray.shape)


@pytest.mark.parametrize("fine", [False, True])
def test_dense_flow_finds_a_translation(fine: bool) -> None:
    wide = texture(90, 120)
    # (x, y) moves to (x + 3, y - 2).
    source, target = (np.ascontiguousarray(part) for part in (wide[10:74, 10:106], wide[12:76, 7:103]))
    flow = dense_flow(source, target, fine=fine)
    inside = flow[8:-8, 8:-8].reshape(-1, 2)
    np.testing.assert_allclose(np.median(inside, axis=0), [3, -2], atol=0.1)
    tensor = dense_flow_frames(to_frames(source), to_frames(target), fine=fine)
    assert torch.equal(tensor[0].permute(1, 2, 0), torch.from_numpy(flow))


@pytest.mark.parametrize("fine", [False, True])
def test_dense_flow_is_identical_for_any_thread_count(fine: bool) -> None:
    before = cv2.getNumThreads()
    flows = []
    for threads in (1, 3):
        cv2.setNumThreads(threads)
        flows.append(dense_flow(texture(120, 200, 1), texture(120, 200, 2), fine=fine))
    cv2.setNumThreads(before)
    assert np.array_equal(*flows)


def test_to_gray_is_rounded_luma() -> None:
    frames = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)
    assert to_gray(frames).tolist() == [[[151]]]  # 255 * (0.299 + 0.587 / 2) = 151.1
    assert to_gray(frames * 9).tolist() == [[[255]]]


def test_images_too_small_for_flow_give_nan() -> None:
    small = torch.rand(2, 3, 15, 40)
    flow = dense_flow_frames(small, small)
    assert flow.shape == (2, 2, 15, 40) and bool(flow.isnan().all())
    assert bool(forward_backward_error_frames(flow, flow).isposinf().all())


def test_no_frames_give_empty_flow() -> None:
    none = torch.zeros(0, 3, 20, 30)
    flow = dense_flow_frames(none, none)
    assert flow.shape == (0, 2, 20, 30) and forward_backward_error_frames(flow, flow).shape == (0, 1, 20, 30)
    assert backward_warp_frames(none, flow).shape == (0, 3, 20, 30)


def test_backward_warp_frames_follows_the_flow() -> None:
    frames = torch.rand(2, 3, 6, 9)
    flow = torch.zeros(2, 2, 6, 9)
    flow[1, 0], flow[1, 1] = 2, -1
    warped = backward_warp_frames(frames, flow)
    assert torch.equal(warped[0], frames[0])
    assert torch.equal(warped[1, :, 1:, :-2], frames[1, :, :-1, 2:])
    plane = frames[:, :1]
    assert torch.equal(backward_warp_frames(plane, flow), warped[:, :1])


def test_forward_backward_error_is_the_round_trip_distance() -> None:
    forward, backward = torch.zeros(1, 2, 4, 7), torch.zeros(1, 2, 4, 7)
    forward[:, 0], backward[:, 0] = 2, -2
    backward[..., 4] += torch.tensor([3.0, 4.0])[:, None]  # target of column 2: 5 px off
    error = forward_backward_error_frames(forward, backward)[0, 0]
    assert (error[:, [0, 1, 3, 4]] == 0).all() and (error[:, 2] == 5).all()
    assert error[:, 5:].isposinf().all(), "the last two columns leave the image"
