"""How alike small pictures look, by measures that people's opinions have tested."""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from secondeye.metrics.image_quality import luma

_LEVELS = 255.0  # both papers' constants are for pictures from 0 to 255
# HaarPSI (Reisenhofer, Bosse, Kutyniok, Wiegand 2018, section 3).
_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))
_SIMILARITY, _STEEPNESS = 30.0, 4.2  # C and alpha
# VIF (Sheikh, Bovik 2006), over pixels as in the authors' vifp.
_WINDOWS_PX = (17, 9, 5, 3)  # of the scales, finest first; sigma is a fifth
_EYE_NOISE = 2.0  # variance of what the eye adds
_NEARLY_NONE = 1e-10  # a variance below is none
SMALLEST_VIF_PX = 41  # leaves the coarsest scale a window


def haarpsi(
    crops: Tensor,  # [N, 3, h, w] in [0, 1]
    truth: Tensor,  # [N, 3, h, w] in [0, 1]
) -> Tensor:  # float64 [N] in (0, 1], 1 for equal pictures
    """HaarPSI in colour: how alike edges and colours are, the more so where an edge of either is strong.

    Of an odd side the last line is left out. Two crops without any light are equal.
    """
    here, there = _yiq(crops), _yiq(truth)
    edges = [(_edges(here[:, :1], scale), _edges(there[:, :1], scale)) for scale in (1, 2, 3)]
    structure = (_alike(*edges[0]) + _alike(*edges[1])) / 2
    colour = _alike(_colours(here), _colours(there)).mean(1, keepdim=True)
    strongest = torch.maximum(*edges[2])
    importance = torch.cat([strongest, strongest.mean(1, keepdim=True)], 1).flatten(1).numpy()
    alike = torch.cat([structure, colour], 1).flatten(1).numpy()
    # numpy, whose exp and sums give the same bits for any number of threads.
    logistic = 1 / (1 + np.exp(-_STEEPNESS * alike))
    with np.errstate(invalid="ignore"):
        mean = (importance * logistic).sum(1) / importance.sum(1)
    score = (np.log(mean / (1 - mean)) / _STEEPNESS) ** 2
    return torch.from_numpy(np.where(importance.any(1), score, 1.0))


def vif(
    crops: Tensor,  # [N, 3, h, w] in [0, 1]
    truth: Tensor,  # [N, 3, h, w] in [0, 1]
) -> Tensor:  # float64 [N], at least 0, 1 for equal pictures, above 1 for more contrast
    """Visual information fidelity of luma: the share of the truth's information that an eye still gets.

    NaN where the truth is flat: it has none. Raises ValueError where a side is below 41 px.
    """
    if min(crops.shape[2:]) < SMALLEST_VIF_PX:
        raise ValueError(f"crops must be at least {SMALLEST_VIF_PX} px a side, got {tuple(crops.shape)}")
    here, there = _LEVELS * luma(crops), _LEVELS * luma(truth)
    kept, whole = np.zeros(len(here)), np.zeros(len(here))
    for window in _WINDOWS_PX:
        if window < _WINDOWS_PX[0]:
            here, there = (_blur_inside(planes, window)[:, ::2, ::2] for planes in (here, there))
        more_kept, more = _information(here, there, window)
        kept, whole = kept + more_kept, whole + more
    with np.errstate(invalid="ignore"):
        return torch.from_numpy(kept / whole)


def _yiq(crops: Tensor) -> Tensor:
    """float64 [N, 3, h / 2, w / 2], of means over two by two pixels: what is seen from afar."""
    small = F.avg_pool2d(_LEVELS * crops.double(), 2)
    matrix = torch.tensor(_YIQ, dtype=torch.float64)[..., None, None]
    return (small[:, None] * matrix).sum(2)


def _edges(
    planes: Tensor,  # [N, 1, h, w], black beyond the border
    scale: int,  # the Haar filter is 2**scale px wide
) -> Tensor:  # [N, 2, h, w]: strength of horizontal and vertical edges
    width, half = 2**scale, 2 ** (scale - 1)
    padded = F.pad(planes, (half - 1, half, half - 1, half))
    lying, standing = (F.avg_pool2d(padded, size, 1) for size in ((half, width), (width, half)))
    steps = lying[..., half:, :] - lying[..., :-half, :], standing[..., half:] - standing[..., :-half]
    return half * torch.cat(steps, 1).abs()


def _colours(yiq: Tensor) -> Tensor:
    """[N, 2, h, w]: strength of both colours."""
    return F.avg_pool2d(F.pad(yiq[:, 1:], (0, 1, 0, 1)), 2, 1).abs()


def _alike(here: Tensor, there: Tensor) -> Tensor:
    return (2 * here * there + _SIMILARITY) / (here**2 + there**2 + _SIMILARITY)


def _information(here: np.ndarray, there: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """[N] each: what an eye gets of the truth from `here`, and what from the truth itself."""
    mean_here, mean_there = _blur_inside(here, window), _blur_inside(there, window)
    variance_here = np.maximum(_blur_inside(here**2, window) - mean_here**2, 0)
    variance = np.maximum(_blur_inside(there**2, window) - mean_there**2, 0)
    shared = _blur_inside(here * there, window) - mean_here * mean_there
    gain = np.maximum(shared, 0) / (variance + _NEARLY_NONE)
    distortion = np.maximum(variance_here - gain * shared, _NEARLY_NONE)
    variance = np.where(variance >= _NEARLY_NONE, variance, 0)
    kept = np.log1p(gain**2 * variance / (distortion + _EYE_NOISE))
    return kept.sum((1, 2)), np.log1p(variance / _EYE_NOISE).sum((1, 2))


def _blur_inside(planes: np.ndarray, window: int) -> np.ndarray:
    """Gaussian of [N, h, w] where its window lies inside the plane: [N, h - window + 1, w - window + 1]."""
    edge = window // 2
    tall = np.ascontiguousarray(planes).reshape(-1, planes.shape[-1])  # one picture; the seams are cut off
    blurred = cv2.GaussianBlur(tall, (window, window), window / 5) if len(tall) else tall
    return blurred.reshape(planes.shape)[:, edge:-edge, edge:-edge]
