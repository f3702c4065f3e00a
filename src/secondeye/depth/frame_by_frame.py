"""Estimators that see one frame at a time: their depth is smoothed over the shot."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from secondeye.depth.interface import DepthEstimate, DepthEstimator, DepthState
from secondeye.depth.temporal_smoothing import smooth, smoothed_frame
from secondeye.imaging.arrays import resize, to_float_frames
from secondeye.imaging.optical_flow import to_gray

Infer = Callable[[Tensor], Tensor]
"""[t, 3, H, W] in [0, 1] -> [t, 1, h, w], finite, larger is nearer; on the CPU."""

SAME_ASPECT = 0.1  # maps that differ by less from the frame's aspect keep their size
_BATCH = "batch_frames"


def one_frame(frame: Tensor) -> int:  # [1, 3, H, W]
    """Return 1: on the CPU more frames at a time are not faster, and sums would depend on their number."""
    return 1


def frame_by_frame(infer: Infer, frames_at_once: Callable[[Tensor], int]) -> DepthEstimator:
    """Return the estimator that infers every frame alone and smooths the depth over the shot.

    `frames_at_once` is asked with the first frame, [1, 3, H, W], how many fit into memory together. Batches
    are counted from the shot's start, and a state holds their size: results depend neither on the windows
    nor on where a shot was interrupted.
    """

    def estimate(windows: Iterable[Tensor], state: DepthState | None = None) -> Iterator[DepthEstimate]:
        smoothed = None if state is None else smoothed_frame(state.tensors)
        batch = None if state is None else int(state.tensors[_BATCH])
        start, first = (0, 0) if state is None else state[:2]
        for number, depth, gray in _infer_frames(windows, infer, frames_at_once, first, batch):
            if number.frame < start:
                continue
            smoothed = smooth(depth, gray, smoothed)
            tensors = {**smoothed.tensors(), _BATCH: torch.tensor(number.batch)}
            done = number.frame + 1
            after = DepthState(done, done - done % number.batch, tensors)
            yield DepthEstimate(torch.from_numpy(smoothed.depth)[None, None], 1.0, after)

    return estimate


def map_size(
    height: int,  # of the network's output
    width: int,
    frame_height: int,
    frame_width: int,
) -> tuple[int, int]:
    """Return the size of a map: that of the output, with the frame's aspect, at most that of the frame."""
    if height >= frame_height or width >= frame_width:
        return frame_height, frame_width
    stretch = width * frame_height / (height * frame_width)
    if 1 - SAME_ASPECT < stretch < 1 + SAME_ASPECT:
        return height, width
    scale = (height * width / (frame_height * frame_width)) ** 0.5
    return max(1, round(frame_height * scale)), max(1, round(frame_width * scale))


class _Number(NamedTuple):
    frame: int  # counted from the start of the shot
    batch: int  # frames of a batch


def _infer_frames(
    windows: Iterable[Tensor],
    infer: Infer,
    frames_at_once: Callable[[Tensor], int],
    first: int,
    batch: int | None,
) -> Iterator[tuple[_Number, np.ndarray, np.ndarray]]:
    """Yield number, depth and gray image of every frame, both at the size of the map."""
    stream = (frame for window in windows for frame in to_float_frames(window))
    for frame in stream:
        batch = batch or frames_at_once(frame[None])
        frames = torch.stack([frame, *islice(stream, batch - 1)])
        depth = infer(frames)
        size = map_size(*depth.shape[2:], *frames.shape[2:])
        depth, grays = resize(depth, *size).contiguous(), to_gray(resize(frames, *size))
        for index, (plane, gray) in enumerate(zip(depth[:, 0].numpy(), grays, strict=True)):
            yield _Number(first + index, batch), plane, gray
        first += len(frames)
