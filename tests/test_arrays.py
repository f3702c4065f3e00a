import pytest
import torch

from secondeye.imaging.arrays import depth_to_disparity, require_frames, require_plane, resize_disparity


def test_resize_disparity_scales_the_values() -> None:
    disparity = torch.full((2, 1, 30, 40), 6.0)
    assert torch.equal(resize_disparity(disparity, 15, 20), torch.full((2, 1, 15, 20), 3.0))
    assert torch.equal(resize_disparity(disparity, 30, 80), torch.full((2, 1, 30, 80), 12.0))


def test_depth_to_disparity_reproduces_the_release() -> None:
    depth = torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3).repeat_interleave(400, -1)[..., :1024]
    disparity = depth_to_disparity(depth, strength_percent=200 * 20 / 1024, convergence=0.5)
    assert disparity.unique().tolist() == [-20.0, 0.0, 20.0]


@pytest.mark.parametrize(
    "frames",
    [
        torch.zeros(3, 4, 5),
        torch.zeros(1, 1, 4, 5),
        torch.zeros(0, 3, 4, 5),
        torch.zeros(1, 3, 4, 5, dtype=torch.float64),
        torch.full((1, 3, 4, 5), float("nan")),
    ],
)
def test_require_frames_rejects_other_arrays(frames: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="frames"):
        require_frames(frames)


def test_require_plane_reports_name_and_shape() -> None:
    with pytest.raises(ValueError, match=r"coverage must be .*\[1, 2, 4, 5\]"):
        require_plane(torch.zeros(1, 2, 4, 5), "coverage")
