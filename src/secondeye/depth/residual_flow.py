"""Parallax in optical flow: what a homography does not explain."""

import cv2
import numpy as np

from secondeye.imaging.optical_flow import flow_magnitude, target_coordinates

GRID_STEP = 8  # px: the homography is fitted to one flow vector in 8 x 8
INLIER_PX = 0.5


def homography_residual(
    flow: np.ndarray,  # [h, w, 2] px
    reliable: np.ndarray,  # bool [h, w], pixels used for the fit
) -> np.ndarray:  # [h, w] px
    """Return the magnitude of the flow beyond the best homography: parallax and moving objects.

    A camera that only rotates or zooms moves the whole frame by one homography, which leaves no residual.
    Zero everywhere if too few pixels are reliable to fit one.
    """
    sample = (slice(GRID_STEP // 2, None, GRID_STEP),) * 2
    chosen = reliable[sample].ravel()
    target = target_coordinates(flow)
    source = target - flow
    start, end = (plane[sample].reshape(-1, 2)[chosen] for plane in (source, target))
    if len(start) < 4:
        return np.zeros(flow.shape[:2], np.float32)
    # OpenCV's RANSAC starts from a fixed seed at every call.
    homography, _ = cv2.findHomography(start, end, cv2.RANSAC, INLIER_PX)
    if homography is None:
        return np.zeros(flow.shape[:2], np.float32)
    explained = cv2.perspectiveTransform(source.reshape(-1, 1, 2), homography).reshape(flow.shape)
    return flow_magnitude(target - explained)
