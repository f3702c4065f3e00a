"""Perceptual similarity of image crops without learned weights: HaarPSI and VIF."""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from secondeye.metrics.image_quality import luma

_LEVELS = 255.0  # both papers define their constants for values in [0, 255]
# HaarPSI (Reisenhofer, Bosse, Kutyniok, Wiegand 2018, section 3).
_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))
_SIMILARITY, _STEEPNESS = 30.0, 4.2  # C and alpha
# VIF (Sheikh, Bovik 2006), over pixels as in the authors' vifp.
_WINDOW_SIZES_PX = (17, 9, 5, 3)  # per scale, finest first; sigma is a fifth of the window
_VISUAL_NOISE = 2.0  # variance of the noise of the visual system
_MIN_VARIANCE = 1e-10  # smaller variances count as 0
MIN_VIF_PX = 41  # the coarsest scale must fit one window


def haarpsi(
    crops: Tensor,  # [N, 3, h, w] in [0, 1]
    truth: Tensor,  # [N, 3, h, w] in [0, 1]
) -> Tensor:  # float64 [N] in (0, 1], 1 for equal images
    """Return HaarPSI in colour: similarity of edges and chroma, weighted by edge strength.

    With odd sides the last row or column is dropped. Two black crops score 1.
    """
    distorted, reference = _yiq(crops), _yiq(truth)
    edges = [
        (_haar_edges(distorted[:, :1], scale), _haar_edges(reference[:, :1], scale)) for scale in (1, 2, 3)
    ]
    structure = (_similarity(*edges[0]) + _similarity(*edges[1])) / 2
    colour = _similarity(_chroma(distorted), _chroma(reference)).mean(1, keepdim=True)
    strongest = torch.maximum(*edges[2])
    importance = torch.cat([strongest, strongest.mean(1, keepdim=True)], 1).flatten(1).numpy()
    similarity = torch.cat([structure, colour], 1).flatten(1).numpy()
    # numpy: its exp and sums are bit-identical for any number of threads.
    logistic = 1 / (1 + np.exp(-_STEEPNESS * similarity))
    with np.errstate(invalid="ignore"):
        mean = (importance * logistic).sum(1) / importance.sum(1)
    score = (np.log(mean / (1 - mean)) / _STEEPNESS) ** 2
    return torch.from_numpy(np.where(importance.any(1), score, 1.0))


def vif(
    crops: Tensor,  # [N, 3, h, w] in [0, 1]
    truth: Tensor,  # [N, 3, h, w] in [0, 1]
) -> Tensor:  # float64 [N], at least 0; 1 for equal images, above 1 for higher contrast
    """Return the visual information fidelity of luma: the share of the truth's information that is preserved.

    NaN if the truth is flat, because it carries no information. Raises ValueError for crops below 41 px.
    """
    if min(crops.shape[2:]) < MIN_VIF_PX:
        raise ValueError(f"crops must be at least {MIN_VIF_PX} px on each side, got {tuple(crops.shape)}")
    distorted, reference = _LEVELS * luma(crops), _LEVELS * luma(truth)
    preserved, total = np.zeros(len(distorted)), np.zeros(len(distorted))
    for window in _WINDOW_SIZES_PX:
        if window < _WINDOW_SIZES_PX[0]:
            distorted, reference = (
                _blur_valid(planes, window)[:, ::2, ::2] for planes in (distorted, reference)
            )
        scale_preserved, scale_total = _information(distorted, reference, window)
        preserved, total = preserved + scale_preserved, total + scale_total
    with np.errstate(invalid="ignore"):
        return torch.from_numpy(preserved / total)


def _yiq(crops: Tensor) -> Tensor:
    """Return YIQ float64 [N, 3, h / 2, w / 2] of 2 x 2 averages, which model the viewing distance."""
    small = F.avg_pool2d(_LEVELS * crops.double(), 2)
    matrix = torch.tensor(_YIQ, dtype=torch.float64)[..., None, None]
    return (small[:, None] * matrix).sum(2)


def _haar_edges(
    planes: Tensor,  # [N, 1, h, w], zero-padded
    scale: int,  # the Haar filter is 2**scale px wide
) -> Tensor:  # [N, 2, h, w]: magnitudes of horizontal and vertical edges
    width, half = 2**scale, 2 ** (scale - 1)
    padded = F.pad(planes, (half - 1, half, half - 1, half))
    wide, tall = (F.avg_pool2d(padded, size, 1) for size in ((half, width), (width, half)))
    steps = wide[..., half:, :] - wide[..., :-half, :], tall[..., half:] - tall[..., :-half]
    return half * torch.cat(steps, 1).abs()


def _chroma(yiq: Tensor) -> Tensor:
    """Return the magnitude of the chroma planes I and Q, [N, 2, h, w]."""
    return F.avg_pool2d(F.pad(yiq[:, 1:], (0, 1, 0, 1)), 2, 1).abs()


def _similarity(distorted: Tensor, reference: Tensor) -> Tensor:
    return (2 * distorted * reference + _SIMILARITY) / (distorted**2 + reference**2 + _SIMILARITY)


def _information(distorted: np.ndarray, reference: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the information [N] about the reference in the distorted crop, and in the reference itself."""
    distorted_mean, reference_mean = _blur_valid(distorted, window), _blur_valid(reference, window)
    distorted_variance = np.maximum(_blur_valid(distorted**2, window) - distorted_mean**2, 0)
    variance = np.maximum(_blur_valid(reference**2, window) - reference_mean**2, 0)
    covariance = _blur_valid(distorted * reference, window) - distorted_mean * reference_mean
    gain = np.maximum(covariance, 0) / (variance + _MIN_VARIANCE)
    distortion = np.maximum(distorted_variance - gain * covariance, _MIN_VARIANCE)
    variance = np.where(variance >= _MIN_VARIANCE, variance, 0)
    preserved = np.log1p(gain**2 * variance / (distortion + _VISUAL_NOISE))
    return preserved.sum((1, 2)), np.log1p(variance / _VISUAL_NOISE).sum((1, 2))


def _blur_valid(planes: np.ndarray, window: int) -> np.ndarray:
    """Blur [N, h, w] with a Gaussian and keep the valid part: [N, h - window + 1, w - window + 1]."""
    edge = window // 2
    tall = np.ascontiguousarray(planes).reshape(-1, planes.shape[-1])  # one tall image; the seams are cropped
    blurred = cv2.GaussianBlur(tall, (window, window), window / 5) if len(tall) else tall
    return blurred.reshape(planes.shape)[:, edge:-edge, edge:-edge]
