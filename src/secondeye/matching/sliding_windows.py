"""Clips cut into windows of a fixed number of frames, and their answers blended into one."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad


def window_starts(
    frames: int,  # of the clip, at least `window`
    window: int,  # frames
    overlap: int,  # frames that two windows share at least; less than `window`
) -> list[int]:
    """Where windows begin. Together they hold every frame; the last is moved back to end with the clip."""
    return [*range(0, frames - window, window - overlap), frames - window]


def blend(
    answers: Iterable[Tensor],  # [window, ...] each
    starts: Sequence[int],
    frames: int,  # of the clip
    overlap: int,
) -> Tensor:  # float32 [frames, ...]
    """The weighted mean of the windows; a window counts linearly less towards its ends, over the overlap."""
    total, weights = None, torch.zeros(frames, dtype=torch.float64)
    for start, answer in zip(starts, answers, strict=True):
        window = len(answer)
        place = torch.arange(window, dtype=torch.float64)
        weight = torch.minimum(place + 1, window - place).clamp(max=overlap + 1)
        if total is None:
            total = torch.zeros(frames, *answer.shape[1:], dtype=torch.float64)
        total[start : start + window] += answer.double() * _over_frames(weight, answer)
        weights[start : start + window] += weight
    assert total is not None, "no window"
    return (total / _over_frames(weights, total)).float()


def _over_frames(weight: Tensor, of: Tensor) -> Tensor:
    return weight.view(-1, *[1] * (of.ndim - 1))


def fit_size(
    height: int,
    width: int,
    fixed: tuple[int | None, ...],  # height and width that a network only takes, if so
    *,
    multiple: int,
    least: int,
) -> tuple[int, int]:
    """The size to pad to: the fixed one, else the next multiple that is at least `least`."""
    free = [max(-(-side // multiple), -(-least // multiple)) * multiple for side in (height, width)]
    return fixed[0] or free[0], fixed[1] or free[1]


def pad_frames(
    frames: Tensor,  # [T, 3, H, W]
    height: int,
    width: int,
    *,
    at_least: int,  # frames
) -> Tensor:  # [max(T, at_least), 3, height, width]
    """Repeat the last row, column and frame."""
    more = max(0, at_least - len(frames))
    frames = torch.cat([frames, frames[-1:].expand(more, -1, -1, -1)])
    return pad(frames, (0, width - frames.shape[-1], 0, height - frames.shape[-2]), mode="replicate")
