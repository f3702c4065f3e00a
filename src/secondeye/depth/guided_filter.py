"""Smooth a map along a picture's edges: the guided filter (He et al., TPAMI 2013), grey guide."""

import cv2
import numpy as np


def guided_filter(
    plane: np.ndarray,  # [h, w]
    guide: np.ndarray,  # [h, w] in [0, 1]
    *,
    radius_px: int,
    contrast: float,  # edges of the guide much lower than this (in [0, 1]) are smoothed over
) -> np.ndarray:  # [h, w]
    """`plane` as a locally linear function of `guide`: edges stay only where the guide has them."""
    mean_guide, mean_plane = box(guide, radius_px), box(plane, radius_px)
    variance = box(guide * guide, radius_px) - mean_guide**2
    covariance = box(guide * plane, radius_px) - mean_guide * mean_plane
    slope = covariance / (np.maximum(variance, 0) + np.float32(contrast**2))
    return box(mean_plane - slope * mean_guide, radius_px) + box(slope, radius_px) * guide


def box(
    plane: np.ndarray,  # [h, w]
    radius_px: int,
) -> np.ndarray:  # [h, w]
    """Mean over a square window."""
    side = 2 * radius_px + 1
    return cv2.blur(plane, (side, side), borderType=cv2.BORDER_REPLICATE)
