"""Optical flow: how the pixels of one image move to reach another.

A flow `[h, w, 2]` holds for every pixel of the source image its displacement (x, y) in px to its position in
the target image; for a film it is `[T, 2, H, W]`. All results are bit-identical for any number of threads.
"""

from collections.abc import Iterable

import cv2
import numpy as np
import torch
from torch import Tensor

MIN_FLOW_SIZE_PX = 16  # OpenCV's DIS refuses smaller images
LUMA = (0.299, 0.587, 0.114)  # BT.601


def dense_flow(
    source: np.ndarray,  # uint8 [h, w] gray, both sides at least MIN_FLOW_SIZE_PX
    target: np.ndarray,  # uint8 [h, w] gray
    *,
    fine: bool = False,  # about half the error, for four times the time
) -> np.ndarray:  # [h, w, 2] px
    """Estimate flow with DIS (Kroeger et al., ECCV 2016), preset fast, or medium if `fine`."""
    preset = cv2.DISOPTICAL_FLOW_PRESET_MEDIUM if fine else cv2.DISOPTICAL_FLOW_PRESET_FAST
    start = np.zeros((*source.shape, 2), np.float32)
    return cv2.DISOpticalFlow.create(preset).calc(source, target, start)


def flow_magnitude(
    flow: np.ndarray,  # [h, w, 2] px
) -> np.ndarray:  # [h, w] px
    """Return the length of each displacement."""
    return np.hypot(flow[..., 0], flow[..., 1])


def backward_warp(
    image: np.ndarray,  # [h, w, C] or [h, w], in the target's coordinates
    flow: np.ndarray,  # [h, w, 2] px from source to target
) -> np.ndarray:  # like `image`, in the source's coordinates
    """Sample the target bilinearly where each source pixel moves to; the border is replicated."""
    columns, rows = cv2.split(target_coordinates(flow))
    return cv2.remap(image, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def target_coordinates(
    flow: np.ndarray,  # [h, w, 2] px
) -> np.ndarray:  # [h, w, 2] px (x, y)
    """Return each pixel's position in the target: its own position plus its flow."""
    rows, columns = np.indices(flow.shape[:2], dtype=np.float32)
    return flow + np.stack([columns, rows], axis=-1)


def forward_backward_error(
    forward: np.ndarray,  # [h, w, 2] px from source to target
    backward: np.ndarray,  # [h, w, 2] px from target to source
) -> np.ndarray:  # [h, w] px
    """Return how far a pixel ends from its start after both flows; large where it is occluded or mismatched.

    Infinite where the pixel leaves the image, because the flow is a guess there.
    """
    columns, rows = cv2.split(target_coordinates(forward))
    height, width = forward.shape[:2]
    inside = (columns >= 0) & (columns <= width - 1) & (rows >= 0) & (rows <= height - 1)
    return np.where(inside, flow_magnitude(forward + backward_warp(backward, forward)), np.float32(np.inf))


def to_gray(
    frames: Tensor,  # [T, 3, H, W]; clipped to [0, 1]
) -> np.ndarray:  # uint8 [T, H, W]
    """Convert frames to 8-bit BT.601 luma, the input of flow estimation."""
    gray = (frames * torch.tensor(LUMA)[:, None, None]).sum(1)
    return (gray * 255).round().clamp(0, 255).byte().numpy()


def dense_flow_frames(
    sources: Tensor,  # [T, 3, H, W]
    targets: Tensor,  # [T, 3, H, W]
    *,
    fine: bool = False,
) -> Tensor:  # [T, 2, H, W] px
    """Estimate `dense_flow` frame by frame; NaN for images smaller than MIN_FLOW_SIZE_PX."""
    if min(sources.shape[-2:]) < MIN_FLOW_SIZE_PX:
        return torch.full((len(sources), 2, *sources.shape[-2:]), torch.nan)
    pairs = zip(to_gray(sources), to_gray(targets), strict=True)
    return _stack((dense_flow(*pair, fine=fine) for pair in pairs), sources[:, :2])


def forward_backward_error_frames(
    forward: Tensor,  # [T, 2, H, W] px
    backward: Tensor,  # [T, 2, H, W] px
) -> Tensor:  # [T, 1, H, W] px
    """Compute `forward_backward_error` frame by frame; infinite where the flow is NaN, too."""
    pairs = zip(_channels_last(forward), _channels_last(backward), strict=True)
    return _stack((forward_backward_error(*pair)[..., None] for pair in pairs), forward[:, :1])


def backward_warp_frames(
    frames: Tensor,  # [T, C, H, W], in the targets' coordinates
    flow: Tensor,  # [T, 2, H, W] px from sources to targets
) -> Tensor:  # [T, C, H, W], in the sources' coordinates
    """Apply `backward_warp` frame by frame."""
    pairs = zip(_channels_last(frames), _channels_last(flow), strict=True)
    return _stack((np.atleast_3d(backward_warp(*pair)) for pair in pairs), frames)


def _channels_last(planes: Tensor) -> np.ndarray:
    return planes.permute(0, 2, 3, 1).contiguous().numpy()  # contiguous, as OpenCV needs


def _stack(images: Iterable[np.ndarray], like: Tensor) -> Tensor:
    """Stack images [H, W, C] into [T, C, H, W]; without any, return an empty tensor shaped like `like`."""
    planes = [torch.from_numpy(image).permute(2, 0, 1) for image in images]
    return torch.stack(planes) if planes else torch.zeros(0, *like.shape[1:])
