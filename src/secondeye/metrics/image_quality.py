"""Image quality per pixel: squared error, PSNR, SSIM, MS-SSIM, sharpness."""

from collections.abc import Mapping

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from secondeye.imaging.optical_flow import LUMA

_MIN_ERROR = 1e-10  # caps PSNR at 100 dB so that averages stay finite
# SSIM (Wang, Bovik, Sheikh, Simoncelli 2004).
_WINDOW_PX, _SIGMA_PX = 11, 1.5
_LUMINANCE, _CONTRAST = 0.01**2, 0.03**2
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # per scale, finest first (Wang et al. 2003)


def squared_error(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    truth: Tensor,  # [T, 3, H, W] in [0, 1]
) -> Tensor:  # float64 [T, 1, H, W]
    """Return the squared error per pixel, averaged over R, G and B."""
    return (frames - truth).double().square().mean(1, keepdim=True)


def decibels(mean_squared_error: float) -> float:
    """Convert a mean squared error to PSNR: at most 100 dB, -inf for inf, NaN for NaN."""
    return float(-10 * np.log10(np.maximum(mean_squared_error, _MIN_ERROR)))


def psnr_db(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    truth: Tensor,  # [T, 3, H, W] in [0, 1]
    where: Tensor,  # bool [T, 1, H, W]: pixels to compare
) -> float:
    """Return the PSNR over the selected pixels of the whole clip, at most 100 dB.

    NaN if no pixel is selected; -inf if a selected pixel is not finite.
    """
    error = squared_error(frames, truth).nan_to_num(torch.inf, torch.inf)
    return decibels(mean_where(error, where))


def best_psnr_db(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    truth: Tensor,  # [T, 3, H, W] in [0, 1]
    where: Tensor,  # bool [T, 1, H, W]: pixels to compare
    share: float,  # (0, 1]
) -> float:
    """Return the PSNR over the share of the selected pixels that agrees best, at most 100 dB.

    NaN if no pixel is selected; -inf if one of that share is not finite.
    """
    error = squared_error(frames, truth).nan_to_num(torch.inf, torch.inf).double().mean(1, keepdim=True)
    ascending = error[where].sort().values
    best = ascending[: max(1, round(share * len(ascending)))]
    return decibels(float(best.mean()))


def ssim_map(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    truth: Tensor,  # [T, 3, H, W] in [0, 1]
) -> Tensor:  # float64 [T, 1, H, W]
    """Return SSIM of luma per pixel (Wang et al. 2004: Gaussian, sigma 1.5); borders are mirrored."""
    luminance, structure = _ssim_terms(luma(frames), luma(truth))
    return torch.from_numpy(luminance * structure)[:, None]


def ms_ssim(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    truth: Tensor,  # [T, 3, H, W] in [0, 1]
    where: Mapping[str, Tensor],  # region name -> bool [T, 1, H, W]
) -> dict[str, Tensor]:  # region -> float64 [T], NaN for a frame without it
    """Return MS-SSIM (Wang, Simoncelli, Bovik 2003) per frame and region.

    At coarse scales a pixel is weighted by the share of selected pixels it covers (ours). Frames below 176 px
    use as many scales as leave 11 px on the shorter side, at least one (ours). The weights of the scales sum
    to 1.
    """
    weights = np.array(_WEIGHTS[: _scale_count(min(frames.shape[2:]))])
    image, target = luma(frames), luma(truth)
    shares = {name: chosen[:, 0].double().numpy() for name, chosen in where.items()}
    found = {name: np.ones(len(frames)) for name in where}
    for scale, weight in enumerate(weights / weights.sum(), start=1):
        luminance, structure = _ssim_terms(image, target)
        similarity = luminance * structure if scale == len(weights) else structure
        for name, share in shares.items():
            found[name] *= np.maximum(_weighted_mean(similarity, share), 0) ** weight
        image, target = _downsample(image), _downsample(target)
        shares = {name: _downsample(share) for name, share in shares.items()}
    return {name: torch.from_numpy(values) for name, values in found.items()}


def gradient_levels(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
) -> float:
    """Return the mean gradient magnitude of luma, in levels of 255; a measure of sharpness."""
    gray = luma(frames)
    across, down = np.diff(gray, axis=2)[:, :-1], np.diff(gray, axis=1)[:, :, :-1]
    return float(np.hypot(across, down).mean()) * 255


def mean_where(
    plane: Tensor,  # [T, 1, H, W]
    where: Tensor,  # bool [T, 1, H, W]
) -> float:
    """Return the mean over the selected pixels; NaN if none is selected."""
    chosen = plane.numpy()[where.numpy()]
    return float(chosen.mean(dtype=np.float64)) if len(chosen) else float("nan")


def luma(
    frames: Tensor,  # [T, 3, H, W]
) -> np.ndarray:  # float64 [T, H, W]
    """Return BT.601 luma."""
    red, green, blue = frames.double().numpy().swapaxes(0, 1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def _ssim_terms(image: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return SSIM's luminance term and contrast-structure term per pixel of [T, H, W]."""
    image_mean, target_mean = _blur(image), _blur(target)
    product, squares = image_mean * target_mean, image_mean**2 + target_mean**2
    covariance = _blur(image * target) - product
    variances = _blur(image**2 + target**2) - squares
    luminance = (2 * product + _LUMINANCE) / (squares + _LUMINANCE)
    return luminance, (2 * covariance + _CONTRAST) / (variances + _CONTRAST)


def _blur(planes: np.ndarray) -> np.ndarray:
    size = (_WINDOW_PX, _WINDOW_PX)
    return np.stack(
        [cv2.GaussianBlur(plane, size, _SIGMA_PX, borderType=cv2.BORDER_REFLECT) for plane in planes]
    )


def _downsample(planes: np.ndarray) -> np.ndarray:
    """Average blocks of 2 x 2 pixels; with odd sides the last block is smaller."""
    return F.avg_pool2d(torch.from_numpy(planes), 2, ceil_mode=True).numpy()


def _weighted_mean(planes: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return the weighted mean of each plane; NaN if all weights are 0."""
    with np.errstate(invalid="ignore"):
        return (planes * shares).sum((1, 2)) / shares.sum((1, 2))


def _scale_count(side_px: int) -> int:
    fit = [scale for scale in range(len(_WEIGHTS)) if side_px >= _WINDOW_PX * 2**scale]
    return max(1, len(fit))
