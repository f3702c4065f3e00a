"""Optical flow between two small pictures, and what it says about depth.

A flow `[h, w, 2]` holds, for every pixel of the first picture, how far it moves (x, y) in px to its place in
the second. Everything here is the same to the bit for any number of threads.
"""

import cv2
import numpy as np

SMALLEST = 16  # px: OpenCV's DIS refuses smaller pictures
GRID_STEP = 8  # px: the homography is fitted to one flow vector in 8 x 8
INLIER_PX = 0.5


def dense_flow(
    source: np.ndarray,  # [h, w] grey, both sides at least SMALLEST
    target: np.ndarray,  # [h, w] grey
) -> np.ndarray:  # [h, w, 2] px
    """Flow from `source` to `target` (Kroeger et al., ECCV 2016: DIS, fast preset)."""
    start = np.zeros((*source.shape, 2), np.float32)
    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(source, target, start)


def length(
    flow: np.ndarray,  # [h, w, 2] px
) -> np.ndarray:  # [h, w] px
    """How far each pixel moves."""
    return np.hypot(flow[..., 0], flow[..., 1])


def pull(
    picture: np.ndarray,  # [h, w, C] or [h, w]: lies in the target
    flow: np.ndarray,  # [h, w, 2] px from source to target
) -> np.ndarray:  # like `picture`, as the source sees it
    """Fetch each source pixel's value from the target; beyond the border the nearest pixel counts."""
    columns, rows = cv2.split(places(flow))
    return cv2.remap(picture, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def places(
    flow: np.ndarray,  # [h, w, 2] px
) -> np.ndarray:  # [h, w, 2] px
    """Where each pixel lies in the target: its own place plus its flow."""
    rows, columns = np.indices(flow.shape[:2], dtype=np.float32)
    return flow + np.stack([columns, rows], axis=-1)


def inconsistency(
    there: np.ndarray,  # [h, w, 2] px from source to target
    back: np.ndarray,  # [h, w, 2] px from target to source
) -> np.ndarray:  # [h, w] px
    """How far a pixel that goes there and back misses its start: large where it is hidden or mismatched.

    Infinite where it leaves the picture, since the flow is a guess there.
    """
    columns, rows = cv2.split(places(there))
    height, width = there.shape[:2]
    inside = (columns >= 0) & (columns <= width - 1) & (rows >= 0) & (rows <= height - 1)
    return np.where(inside, length(there + pull(back, there)), np.float32(np.inf))


def beyond_homography(
    flow: np.ndarray,  # [h, w, 2] px
    reliable: np.ndarray,  # [h, w] pixels the fit may use
) -> np.ndarray:  # [h, w] px
    """Length of the flow that the best homography leaves over: parallax and movers.

    A camera that only turns or zooms moves the whole picture by one homography, so nothing is left over.
    Zero everywhere when there are too few reliable pixels to fit one.
    """
    sample = (slice(GRID_STEP // 2, None, GRID_STEP),) * 2
    chosen = reliable[sample].ravel()
    target = places(flow)
    source = target - flow
    start, end = (plane[sample].reshape(-1, 2)[chosen] for plane in (source, target))
    if len(start) < 4:
        return np.zeros(flow.shape[:2], np.float32)
    # RANSAC in OpenCV starts from a fixed seed at every call.
    homography, _ = cv2.findHomography(start, end, cv2.RANSAC, INLIER_PX)
    if homography is None:
        return np.zeros(flow.shape[:2], np.float32)
    explained = cv2.perspectiveTransform(source.reshape(-1, 1, 2), homography).reshape(flow.shape)
    return length(target - explained)
