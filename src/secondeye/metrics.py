"""How close two films are."""

import torch
from torch import Tensor

_LOSSLESS_DB = 100.0  # what equal pictures score, so that averages stay finite


def psnr_db(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    truth: Tensor,  # [T, 3, H, W] in [0, 1]
    where: Tensor,  # bool [T, 1, H, W]: the pixels that count
) -> float:
    """Peak signal-to-noise ratio over the chosen pixels of the whole clip, at most 100 dB.

    NaN where no pixel is chosen. Sums in float64, so that the order of summing does not show.
    """
    count = int(where.sum()) * frames.shape[1]
    if not count:
        return float("nan")
    squared = ((frames.double() - truth.double()) ** 2 * where).sum() / count
    return min(_LOSSLESS_DB, float(-10 * torch.log10(squared))) if squared > 0 else _LOSSLESS_DB
