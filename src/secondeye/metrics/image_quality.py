"""How close pictures are to the true ones, pixel by pixel."""

from collections.abc import Mapping

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_LEAST_ERROR = 1e-10  # 100 dB: what equal pictures score, so that averages stay finite
# SSIM (Wang, Bovik, Sheikh, Simoncelli 2004).
_WINDOW_PX, _SIGMA_PX = 11, 1.5
_LUMINANCE, _CONTRAST = 0.01**2, 0.03**2
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, finest first (Wang et al. 2003)


def squared_error(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    truth: Tensor,  # [T, 3, H, W] in [0, 1]
) -> Tensor:  # float64 [T, 1, H, W], the mean over colours
    """Squared error of each pixel."""
    return (frames - truth).double().square().mean(1, keepdim=True)


def decibels(mean_squared_error: float) -> float:
    """Peak signal-to-noise ratio of this error: at most 100 dB, -inf for inf, NaN for NaN."""
    return float(-10 * np.log10(np.maximum(mean_squared_error, _LEAST_ERROR)))


def psnr_db(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    truth: Tensor,  # [T, 3, H, W] in [0, 1]
    where: Tensor,  # bool [T, 1, H, W]: the pixels that count
) -> float:
    """Peak signal-to-noise ratio over the chosen pixels of the whole clip, at most 100 dB.

    NaN where no pixel is chosen, -inf where a chosen one is not finite: that is infinitely wrong.
    """
    error = squared_error(frames, truth).nan_to_num(torch.inf, torch.inf)
    return decibels(mean_where(error, where))


def ssim_map(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    truth: Tensor,  # [T, 3, H, W] in [0, 1]
) -> Tensor:  # float64 [T, 1, H, W]
    """Structural similarity of each pixel's surroundings, of luma (Wang et al. 2004: Gaussian, sigma 1.5).

    Pictures go on mirrored beyond their border.
    """
    luminance, structure = _similarities(luma(frames), luma(truth))
    return torch.from_numpy(luminance * structure)[:, None]


def ms_ssim(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    truth: Tensor,  # [T, 3, H, W] in [0, 1]
    where: Mapping[str, Tensor],  # bool [T, 1, H, W]: the pixels that count, by the name of their region
) -> dict[str, Tensor]:  # float64 [T] of each region; NaN where a frame has none of it
    """Structural similarity over five scales (Wang, Simoncelli, Bovik 2003), of each frame and region.

    A coarse pixel counts as much as the share of chosen pixels below it (ours). Where a side is below 176 px
    there are as many scales as leave it 11 px, at least one (ours). The scales' weights sum to 1.
    """
    weights = np.array(_WEIGHTS[: _count_scales(min(frames.shape[2:]))])
    here, there = luma(frames), luma(truth)
    shares = {name: chosen[:, 0].double().numpy() for name, chosen in where.items()}
    found = {name: np.ones(len(frames)) for name in where}
    for scale, weight in enumerate(weights / weights.sum(), start=1):
        luminance, structure = _similarities(here, there)
        similarity = luminance * structure if scale == len(weights) else structure
        for name, share in shares.items():
            found[name] *= np.maximum(_weighted_mean(similarity, share), 0) ** weight
        here, there = _halve(here), _halve(there)
        shares = {name: _halve(share) for name, share in shares.items()}
    return {name: torch.from_numpy(values) for name, values in found.items()}


def gradient_levels(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
) -> float:
    """Mean length of luma's gradient (differences to the right and below), levels of 255: how sharp it is."""
    grey = luma(frames)
    across, down = np.diff(grey, axis=2)[:, :-1], np.diff(grey, axis=1)[:, :, :-1]
    return float(np.hypot(across, down).mean()) * 255


def mean_where(
    plane: Tensor,  # [T, 1, H, W]
    where: Tensor,  # bool [T, 1, H, W]
) -> float:
    """Mean over the chosen pixels; NaN where none is chosen."""
    chosen = plane.numpy()[where.numpy()]
    return float(chosen.mean(dtype=np.float64)) if len(chosen) else float("nan")


def luma(
    frames: Tensor,  # [T, 3, H, W]
) -> np.ndarray:  # float64 [T, H, W]
    """BT.601 luma."""
    red, green, blue = frames.double().numpy().swapaxes(0, 1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _similarities(here: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How alike are the means, and how alike the contrast and structure, about each pixel of [T, H, W]."""
    mean_here, mean_there = _blur(here), _blur(there)
    both, squares = mean_here * mean_there, mean_here**2 + mean_there**2
    shared = _blur(here * there) - both
    spread = _blur(here**2 + there**2) - squares
    luminance = (2 * both + _LUMINANCE) / (squares + _LUMINANCE)
    return luminance, (2 * shared + _CONTRAST) / (spread + _CONTRAST)


def _blur(planes: np.ndarray) -> np.ndarray:
    size = (_WINDOW_PX, _WINDOW_PX)
    return np.stack(
        [cv2.GaussianBlur(plane, size, _SIGMA_PX, borderType=cv2.BORDER_REFLECT) for plane in planes]
    )


def _halve(planes: np.ndarray) -> np.ndarray:
    """Means of two by two pixels; of those that are there, where a side is odd."""
    return F.avg_pool2d(torch.from_numpy(planes), 2, ceil_mode=True).numpy()


def _weighted_mean(planes: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Of each of T planes; NaN where nothing counts."""
    with np.errstate(invalid="ignore"):
        return (planes * shares).sum((1, 2)) / shares.sum((1, 2))


def _count_scales(side_px: int) -> int:
    fit = [scale for scale in range(len(_WEIGHTS)) if side_px >= _WINDOW_PX * 2**scale]
    return max(1, len(fit))
