"""Splat and warp let the same arrays in, whatever the backend."""

import math

import pytest
import torch

from secondeye.splat import splat
from secondeye.warp import warp


@pytest.mark.parametrize("operation", [splat, warp])
@pytest.mark.parametrize("backend", ["reference", "cpu", "triton"])
@pytest.mark.parametrize(
    ("break_frames", "break_disparity", "message"),
    [
        (lambda f: f * math.nan, None, "frames contains NaN"),
        (lambda f: f * math.inf, None, "frames contains NaN or inf"),
        (lambda f: f[0], None, r"frames must be .* got \[3, 4, 6\]"),
        (lambda f: f[:, :2], None, r"got \[2, 2, 4, 6\]"),
        (lambda f: f.half(), None, r"float32 \[.*or uint8 \[.*, got torch.float16"),
        (lambda f: f.numpy(), None, "frames must be a torch tensor, got numpy.ndarray"),
        (None, lambda d: d.numpy(), "disparity must be a torch tensor, got numpy.ndarray"),
        (lambda f: (f * 255).byte(), None, r"uint8 frames must be \[T, H, W, 3\] .* got \[2, 3, 4, 6\]"),
        (lambda f: f.byte().permute(0, 2, 3, 1)[:, 1:], None, r"disparity is .* frames are \[2, 3, 6, 3\]"),
        (lambda f: f.byte().permute(0, 2, 3, 1)[:0], None, "not empty"),
        (None, lambda d: d * math.nan, "disparity contains NaN"),
        (None, lambda d: d * math.inf, "disparity contains NaN or inf"),
        (None, lambda d: d[0], "disparity must be"),
        (None, lambda d: d[..., 1:], r"disparity is \[2, 1, 4, 5\]"),
        (None, lambda d: d[:1], r"disparity is \[1, 1, 4, 6\]"),
        (None, lambda d: d.expand(-1, 3, -1, -1), "disparity must be"),
        (None, lambda d: d.double(), "disparity must be float32"),
    ],
)
def test_arrays_of_the_wrong_kind_are_refused(operation, backend, break_frames, break_disparity, message):
    frames = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(0)) + 0.1
    disparity = torch.ones(2, 1, 4, 6)
    frames = break_frames(frames) if break_frames else frames
    disparity = break_disparity(disparity) if break_disparity else disparity
    with pytest.raises(ValueError, match=message):
        operation(frames, disparity, backend=backend)
