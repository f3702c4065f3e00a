"""Sliding windows over a clip's frames, and blending of their outputs."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad


def window_starts(
    frames: int,  # of the clip, at least `window`
    window: int,  # frames
    overlap: int,  # smallest number of shared frames; less than `window`
) -> list[int]:
    """Return the first frame of each window; windows cover the clip, and the last one ends with it."""
    return [*range(0, frames - window, window - overlap), frames - window]


def blend(
    outputs: Iterable[Tensor],  # [window, ...] each
    starts: Sequence[int],
    frames: int,  # of the clip
    overlap: int,
) -> Tensor:  # float32 [frames, ...]
    """Return the weighted mean of the windows; weights fall linearly towards the ends, over the overlap."""
    total, weights = None, torch.zeros(frames, dtype=torch.float64)
    for start, output in zip(starts, outputs, strict=True):
        window = len(output)
        position = torch.arange(window, dtype=torch.float64)
        weight = torch.minimum(position + 1, window - position).clamp(max=overlap + 1)
        if total is None:
            total = torch.zeros(frames, *output.shape[1:], dtype=torch.float64)
        total[start : start + window] += output.double() * _broadcast(weight, output)
        weights[start : start + window] += weight
    assert total is not None, "no window"
    return (total / _broadcast(weights, total)).float()


def _broadcast(weight: Tensor, of: Tensor) -> Tensor:
    return weight.view(-1, *[1] * (of.ndim - 1))


def fit_size(
    height: int,
    width: int,
    fixed: tuple[int | None, ...],  # height and width that the network requires, if fixed
    *,
    multiple: int,
    min_size: int,
) -> tuple[int, int]:
    """Return the size to pad to: the fixed one, else the next multiple that is at least `min_size`."""
    free = [max(-(-side // multiple), -(-min_size // multiple)) * multiple for side in (height, width)]
    return fixed[0] or free[0], fixed[1] or free[1]


def pad_frames(
    frames: Tensor,  # [T, 3, H, W]
    height: int,
    width: int,
    *,
    at_least: int,  # frames
) -> Tensor:  # [max(T, at_least), 3, height, width]
    """Pad by repeating the last row, column and frame."""
    missing = max(0, at_least - len(frames))
    frames = torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
    return pad(frames, (0, width - frames.shape[-1], 0, height - frames.shape[-2]), mode="replicate")
