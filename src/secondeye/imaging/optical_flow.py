"""Optical flow: how the pixels of one picture move to reach another.

A flow `[h, w, 2]` holds, for every pixel of the first picture, how far it moves (x, y) in px to its place in
the second; of films it is `[T, 2, H, W]`. Everything here is the same to the bit for any number of threads.
"""

from collections.abc import Iterable

import cv2
import numpy as np
import torch
from torch import Tensor

MIN_FLOW_SIZE_PX = 16  # px: OpenCV's DIS refuses smaller pictures
LUMA = (0.299, 0.587, 0.114)  # BT.601


def dense_flow(
    source: np.ndarray,  # uint8 [h, w] grey, both sides at least MIN_FLOW_SIZE_PX
    target: np.ndarray,  # uint8 [h, w] grey
    *,
    fine: bool = False,  # about half the error, for four times the time
) -> np.ndarray:  # [h, w, 2] px
    """Flow from `source` to `target` (Kroeger et al., ECCV 2016: DIS; preset fast, or medium when fine)."""
    preset = cv2.DISOPTICAL_FLOW_PRESET_MEDIUM if fine else cv2.DISOPTICAL_FLOW_PRESET_FAST
    start = np.zeros((*source.shape, 2), np.float32)
    return cv2.DISOpticalFlow.create(preset).calc(source, target, start)


def flow_magnitude(
    flow: np.ndarray,  # [h, w, 2] px
) -> np.ndarray:  # [h, w] px
    """How far each pixel moves."""
    return np.hypot(flow[..., 0], flow[..., 1])


def backward_warp(
    picture: np.ndarray,  # [h, w, C] or [h, w]: lies in the target
    flow: np.ndarray,  # [h, w, 2] px from source to target
) -> np.ndarray:  # like `picture`, as the source sees it
    """Fetch each source pixel's value from the target; beyond the border the nearest pixel counts."""
    columns, rows = cv2.split(target_coordinates(flow))
    return cv2.remap(picture, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def target_coordinates(
    flow: np.ndarray,  # [h, w, 2] px
) -> np.ndarray:  # [h, w, 2] px
    """Where each pixel lies in the target: its own place plus its flow."""
    rows, columns = np.indices(flow.shape[:2], dtype=np.float32)
    return flow + np.stack([columns, rows], axis=-1)


def forward_backward_error(
    there: np.ndarray,  # [h, w, 2] px from source to target
    back: np.ndarray,  # [h, w, 2] px from target to source
) -> np.ndarray:  # [h, w] px
    """How far a pixel that goes there and back misses its start: large where it is hidden or mismatched.

    Infinite where it leaves the picture, since the flow is a guess there.
    """
    columns, rows = cv2.split(target_coordinates(there))
    height, width = there.shape[:2]
    inside = (columns >= 0) & (columns <= width - 1) & (rows >= 0) & (rows <= height - 1)
    return np.where(inside, flow_magnitude(there + backward_warp(back, there)), np.float32(np.inf))


def to_gray(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]; what lies outside is cut off
) -> np.ndarray:  # uint8 [T, H, W]
    """The pictures that flow is measured on."""
    grey = (frames * torch.tensor(LUMA)[:, None, None]).sum(1)
    return (grey * 255).round().clamp(0, 255).byte().numpy()


def dense_flow_frames(
    frames: Tensor,  # [T, 3, H, W]
    others: Tensor,  # [T, 3, H, W]
    *,
    fine: bool = False,
) -> Tensor:  # [T, 2, H, W] px
    """Flow from each frame to the other of its pair; NaN in pictures smaller than DIS can see."""
    if min(frames.shape[-2:]) < MIN_FLOW_SIZE_PX:
        return torch.full((len(frames), 2, *frames.shape[-2:]), torch.nan)
    pairs = zip(to_gray(frames), to_gray(others), strict=True)
    return _stacked((dense_flow(*pair, fine=fine) for pair in pairs), frames[:, :2])


def forward_backward_error_frames(
    there: Tensor,  # [T, 2, H, W] px
    back: Tensor,  # [T, 2, H, W] px: the other way
) -> Tensor:  # [T, 1, H, W] px
    """`forward_backward_error` of each frame; infinite where the flow is NaN, too."""
    pairs = zip(_last(there), _last(back), strict=True)
    return _stacked((forward_backward_error(*pair)[..., None] for pair in pairs), there[:, :1])


def backward_warp_frames(
    frames: Tensor,  # [T, C, H, W]: lie in the targets
    flow: Tensor,  # [T, 2, H, W] px from sources to targets
) -> Tensor:  # [T, C, H, W], as the sources see them
    """`backward_warp` for each frame."""
    pairs = zip(_last(frames), _last(flow), strict=True)
    return _stacked((np.atleast_3d(backward_warp(*pair)) for pair in pairs), frames)


def _last(planes: Tensor) -> np.ndarray:
    """Channels last, in the memory order that OpenCV wants."""
    return planes.permute(0, 2, 3, 1).contiguous().numpy()


def _stacked(planes: Iterable[np.ndarray], like: Tensor) -> Tensor:
    """Pictures [H, W, C] as one tensor [T, C, H, W], empty where there are none."""
    found = [torch.from_numpy(plane).permute(2, 0, 1) for plane in planes]
    return torch.stack(found) if found else torch.zeros(0, *like.shape[1:])
