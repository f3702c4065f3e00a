"""How close two films are."""

import numpy as np
import torch
from torch import Tensor

_LOSSLESS_DB = 100.0  # what equal pictures score, so that averages stay finite


def psnr_db(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    truth: Tensor,  # [T, 3, H, W] in [0, 1]
    where: Tensor,  # bool [T, 1, H, W]: the pixels that count
) -> float:
    """Peak signal-to-noise ratio over the chosen pixels of the whole clip, at most 100 dB.

    NaN where no pixel is chosen, -inf where a chosen one is not finite: that is infinitely wrong. Sums in
    float64, so that the order of summing does not show.
    """
    chosen = where.expand_as(frames)
    if not bool(chosen.any()):
        return float("nan")
    squared = (frames.double() - truth.double())[chosen].square().mean().nan_to_num(torch.inf, torch.inf)
    return min(_LOSSLESS_DB, float(-10 * torch.log10(squared)))


def ssim_map(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    truth: Tensor,  # [T, 3, H, W] in [0, 1]
) -> Tensor:  # float64 [T, 1, H, W]
    """Structural similarity of each pixel's surroundings, of luma (Wang et al. 2004: Gaussian, sigma 1.5).

    Sides are at least 11 px.
    """
    from skimage.metrics import structural_similarity

    maps = [
        structural_similarity(
            here,
            there,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )[1]
        for here, there in zip(_luma(frames), _luma(truth), strict=True)
    ]
    return torch.from_numpy(np.stack(maps))[:, None]


def mean_where(
    plane: Tensor,  # [T, 1, H, W]
    where: Tensor,  # bool [T, 1, H, W]
) -> float:
    """Mean over the chosen pixels; NaN where none is chosen."""
    return float(plane.double()[where].mean()) if bool(where.any()) else float("nan")


def rank_correlation(
    guess: Tensor,  # [T, 1, H, W]
    truth: Tensor,  # [T, 1, H, W]
    where: Tensor,  # bool [T, 1, H, W]: the pixels that count
) -> float:
    """Spearman's rank correlation of each frame, their mean; 0 for a frame where one of both is flat."""
    from scipy.stats import spearmanr

    figures = []
    for g, t, chosen in zip(guess, truth, where, strict=True):
        here, there = g[chosen].numpy(), t[chosen].numpy()
        flat = len(here) < 2 or np.ptp(here) == 0 or np.ptp(there) == 0
        figures.append(0.0 if flat else float(spearmanr(here, there).statistic))
    return float(np.mean(figures))


def _luma(frames: Tensor) -> np.ndarray:
    """BT.601 luma [T, H, W]."""
    return (frames.double() * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1).numpy()
