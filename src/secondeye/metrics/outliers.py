"""Outliers of inpainted regions: the error of each block, and colours that its surroundings lack. Ours.

A blotch in one corner hardly changes a mean over a film, but a viewer sees it first. Blocks are the squares
of a grid that starts at the upper left corner; the surroundings of a block are itself and the eight beside
it, in the true right view.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK_PX = 64
_MIN_PIXELS = 64  # selected pixels that a block needs to count
_MIN_CONTRAST = 8 / 255  # added to the contrast of the surroundings: flat ones forgive small errors


def error_blocks(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    truth: Tensor,  # [T, 3, H, W] in [0, 1]
    where: Tensor,  # bool [T, 1, H, W]: pixels to compare
) -> Tensor:  # float64 [T, rows, columns], at least 0
    """Return the root mean square error of every block, relative to the contrast of its surroundings.

    NaN for a block with too few pixels to compare.
    """
    errors = _means((frames - truth).double().square().mean(1, keepdim=True), where).sqrt()
    exact = truth.double()
    areas = _sums_around(_sums(torch.ones_like(exact[:, :1])))
    means, squares = (_sums_around(_sums(plane)) / areas for plane in (exact, exact.square()))
    variances = (squares - means.square()).clamp(min=0).mean(1, keepdim=True)
    return (errors / (variances.sqrt() + _MIN_CONTRAST))[:, 0]


def chroma_blocks(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    truth: Tensor,  # [T, 3, H, W] in [0, 1]
    where: Tensor,  # bool [T, 1, H, W]: pixels to compare
) -> Tensor:  # float64 [T, rows, columns], in [0, 2]
    """Return by how much the chroma of every block exceeds the range that its surroundings have.

    Chroma is R - G and B - G; a pixel's excess is the larger one of the two, a block's is the mean over its
    pixels. NaN for a block with too few pixels to compare.
    """
    chroma, true_chroma = _chroma(frames), _chroma(truth)
    above = chroma - _maxima_around(true_chroma)
    below = -_maxima_around(-true_chroma) - chroma
    excess = above.maximum(below).clamp(min=0).amax(1, keepdim=True)
    return _means(excess.double(), where)[:, 0]


def largest(blocks: Tensor) -> float:
    """Return the largest value of all blocks of all frames; NaN if none has enough pixels to compare."""
    known = blocks[~blocks.isnan()]
    return float(known.max()) if len(known) else math.nan


def _chroma(frames: Tensor) -> Tensor:  # [T, 2, H, W]
    return frames[:, ::2] - frames[:, 1:2]


def _means(plane: Tensor, where: Tensor) -> Tensor:  # [T, 1, rows, columns] of blocks
    """Average the selected pixels of each block; NaN in a block with fewer than _MIN_PIXELS."""
    selected = where.double()
    counts = _sums(selected)
    return torch.where(counts >= _MIN_PIXELS, _sums(plane * selected) / counts, math.nan)


def _sums(planes: Tensor) -> Tensor:
    """Sum over the pixels of each block; those at the lower and right border may be smaller."""
    height, width = planes.shape[-2:]
    padded = F.pad(planes, (0, -width % BLOCK_PX, 0, -height % BLOCK_PX))
    return F.avg_pool2d(padded, BLOCK_PX, divisor_override=1)


def _sums_around(blocks: Tensor) -> Tensor:
    """Sum over each block and the eight beside it."""
    return F.avg_pool2d(blocks, 3, stride=1, padding=1, divisor_override=1)


def _maxima_around(planes: Tensor) -> Tensor:
    """Return for each pixel the maximum over its block and the eight beside it."""
    height, width = planes.shape[-2:]
    blocks = F.max_pool2d(F.max_pool2d(planes, BLOCK_PX, ceil_mode=True), 3, stride=1, padding=1)
    pixels = blocks.repeat_interleave(BLOCK_PX, -2).repeat_interleave(BLOCK_PX, -1)
    return pixels[..., :height, :width]
