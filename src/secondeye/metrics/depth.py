"""Depth metrics: rank correlation and the F-score of depth edges."""

import cv2
import numpy as np
import torch
from torch import Tensor

_EDGE_PERCENT = 0.2  # of the width: slopes stay below, edges blurred by 1 or 2 px above
_TOLERANCE_PX = 2


def rank_correlation(
    estimate: Tensor,  # [T, 1, H, W]
    truth: Tensor,  # [T, 1, H, W]
    where: Tensor,  # bool [T, 1, H, W]: pixels to compare
) -> float:
    """Return Spearman's rank correlation, averaged over frames; 0 for a frame in which either is constant."""
    from scipy.stats import spearmanr

    scores = []
    for e, t, chosen in zip(estimate, truth, where, strict=True):
        estimated, true = e[chosen].numpy(), t[chosen].numpy()
        flat = len(true) < 2 or np.ptp(estimated) == 0 or np.ptp(true) == 0
        scores.append(0.0 if flat else float(spearmanr(estimated, true).statistic))
    return float(np.mean(scores))


def edge_f_score(
    disparity: Tensor,  # [T, 1, H, W] px
    truth: Tensor,  # [T, 1, H, W] px
    where: Tensor | None = None,  # bool [T, 1, H, W]: pixels whose edges count, None for all pixels
) -> Tensor:  # float64 [T] in [0, 1]
    """Return the F1 score of depth edges, matched within 2 px; NaN for a frame in which neither has edges.

    An edge is a step of more than 0.2 % of the width to the pixel on the right or below. Thresholded edges
    follow Hu et al. (WACV 2019), matching by dilation follows DAVIS' contours (Perazzi et al., CVPR 2016).
    """
    kernel = np.ones((2 * _TOLERANCE_PX + 1,) * 2, np.uint8)
    scores = []
    for t, planes in enumerate(zip(disparity[:, 0].numpy(), truth[:, 0].numpy(), strict=True)):
        predicted, true = (_edges(plane) for plane in planes)
        near_predicted, near_true = (
            cv2.dilate(edges.astype(np.uint8), kernel) > 0 for edges in (predicted, true)
        )
        if where is not None:
            predicted, true = predicted & where[t, 0].numpy(), true & where[t, 0].numpy()
        scores.append(_f_score(predicted, near_true, true, near_predicted))
    return torch.tensor(scores, dtype=torch.float64)


def _edges(plane: np.ndarray) -> np.ndarray:  # bool [H, W]
    step_px = _EDGE_PERCENT / 100 * plane.shape[1]
    edges = np.zeros(plane.shape, np.bool_)
    edges[:, :-1] = np.abs(np.diff(plane, axis=1)) > step_px
    edges[:-1] |= np.abs(np.diff(plane, axis=0)) > step_px
    return edges


def _f_score(
    predicted: np.ndarray, near_true: np.ndarray, true: np.ndarray, near_predicted: np.ndarray
) -> float:
    predicted_count, true_count = int(predicted.sum()), int(true.sum())
    if not predicted_count and not true_count:
        return float("nan")
    if not predicted_count or not true_count:
        return 0.0
    precision = int((predicted & near_true).sum()) / predicted_count
    recall = int((true & near_predicted).sum()) / true_count
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
