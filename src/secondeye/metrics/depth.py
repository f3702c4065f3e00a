"""How close a depth is to the true one."""

import cv2
import numpy as np
import torch
from torch import Tensor

_STEP_PERCENT = 0.2  # of the width: slopes stay below, and an edge blurred by a pixel or two above
_FOUND_WITHIN_PX = 2


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


def edge_f_score(
    disparity: Tensor,  # [T, 1, H, W] px
    truth: Tensor,  # [T, 1, H, W] px
    where: Tensor | None = None,  # bool [T, 1, H, W]: the pixels whose edges count; None for all
) -> Tensor:  # float64 [T] in [0, 1]
    """F1 of the edges of depth, as found within 2 px; NaN for a frame where neither has one.

    An edge is a step of more than 0.2 % of the width from a pixel to the next, to the right or below. Edges
    by a threshold as Hu et al. (WACV 2019), found by dilation as DAVIS' contours (Perazzi et al., CVPR 2016).
    """
    kernel = np.ones((2 * _FOUND_WITHIN_PX + 1,) * 2, np.uint8)
    figures = []
    for t, planes in enumerate(zip(disparity[:, 0].numpy(), truth[:, 0].numpy(), strict=True)):
        found, wanted = (_edges(plane) for plane in planes)
        near_found, near_wanted = (
            cv2.dilate(edges.astype(np.uint8), kernel) > 0 for edges in (found, wanted)
        )
        if where is not None:
            found, wanted = found & where[t, 0].numpy(), wanted & where[t, 0].numpy()
        figures.append(_f_score(found, near_wanted, wanted, near_found))
    return torch.tensor(figures, dtype=torch.float64)


def _edges(plane: np.ndarray) -> np.ndarray:  # bool [H, W]
    step_px = _STEP_PERCENT / 100 * plane.shape[1]
    edges = np.zeros(plane.shape, np.bool_)
    edges[:, :-1] = np.abs(np.diff(plane, axis=1)) > step_px
    edges[:-1] |= np.abs(np.diff(plane, axis=0)) > step_px
    return edges


def _f_score(found: np.ndarray, near_wanted: np.ndarray, wanted: np.ndarray, near_found: np.ndarray) -> float:
    all_found, all_wanted = int(found.sum()), int(wanted.sum())
    if not all_found and not all_wanted:
        return float("nan")
    if not all_found or not all_wanted:
        return 0.0
    precision = int((found & near_wanted).sum()) / all_found
    recall = int((wanted & near_found).sum()) / all_wanted
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
