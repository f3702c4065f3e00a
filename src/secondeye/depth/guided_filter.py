"""The guided filter (He et al., TPAMI 2013) with a gray guide: edge-preserving smoothing."""

import cv2
import numpy as np


def guided_filter(
    plane: np.ndarray,  # [h, w]
    guide: np.ndarray,  # [h, w] in [0, 1]
    *,
    radius_px: int,
    contrast: float,  # edges of the guide much weaker than this are smoothed
) -> np.ndarray:  # [h, w]
    """Return `plane` as a locally linear function of `guide`: its edges stay where the guide has edges."""
    mean_guide, mean_plane = box_filter(guide, radius_px), box_filter(plane, radius_px)
    variance = box_filter(guide * guide, radius_px) - mean_guide**2
    covariance = box_filter(guide * plane, radius_px) - mean_guide * mean_plane
    slope = covariance / (np.maximum(variance, 0) + np.float32(contrast**2))
    return box_filter(mean_plane - slope * mean_guide, radius_px) + box_filter(slope, radius_px) * guide


def box_filter(
    plane: np.ndarray,  # [h, w]
    radius_px: int,
) -> np.ndarray:  # [h, w]
    """Return the mean over a square window."""
    side = 2 * radius_px + 1
    return cv2.blur(plane, (side, side), borderType=cv2.BORDER_REPLICATE)
