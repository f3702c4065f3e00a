"""The student's input: colours, position in the frame, and motion.

Motion is measured against a neighbouring frame and stored as [4, h, w]: flow x and y and the residual to a
homography, in percent of the width, and the confidence of the flow in [0, 1]. Parallax generalises between
films but its size does not, since it depends on the camera's speed; `stack_cues` therefore normalises the
flow of every frame.
"""

import cv2
import numpy as np
import torch
from torch import Tensor

from secondeye.depth.residual_flow import homography_residual
from secondeye.imaging.optical_flow import MIN_FLOW_SIZE_PX, dense_flow, forward_backward_error

MOTION_CHANNELS = 4  # flow x, flow y, residual, confidence
CUE_CHANNELS = 3 + 2 + MOTION_CHANNELS
UPSCALE = 2  # DIS works on patches of 8 px, which at the small working size are larger than heads
MISMATCH_PERCENT = 0.25  # of the width: forward-backward error at which confidence is a half
MIN_FLOW_PERCENT = 0.15  # of the width, mean magnitude: slower flow is noise and is not amplified
MIN_RESIDUAL_PERCENT = 0.05
MAX_NORMALISED = 4.0  # in units of the frame's mean magnitude; faster flow is clipped


def measure_motion(
    now: np.ndarray,  # uint8 [h, w]
    neighbour: np.ndarray,  # uint8 [h, w]
) -> tuple[Tensor, Tensor]:  # each [4, h, w]: flow x, y and residual in percent of the width, confidence
    """Measure the motion from `now` to `neighbour` and back; zero for frames too small for optical flow."""
    height, width = now.shape
    if min(height, width) * UPSCALE < MIN_FLOW_SIZE_PX:
        zeros = torch.zeros(MOTION_CHANNELS, height, width)
        return zeros, zeros
    size = (width * UPSCALE, height * UPSCALE)
    source, target = (cv2.resize(gray, size, interpolation=cv2.INTER_CUBIC) for gray in (now, neighbour))
    forward, backward = dense_flow(source, target), dense_flow(target, source)
    return _motion_channels(forward, backward), _motion_channels(backward, forward)


def _motion_channels(flow: np.ndarray, back: np.ndarray) -> Tensor:  # [4, h, w]
    height, width = flow.shape[:2]
    percent = np.float32(100 / width)
    error = forward_backward_error(flow, back) * percent
    residual = homography_residual(flow, error < MISMATCH_PERCENT) * percent
    confidence = 1 / (1 + (error / np.float32(MISMATCH_PERCENT)) ** 2)
    stacked = np.dstack([flow * percent, residual, confidence]).astype(np.float32)
    size = (width // UPSCALE, height // UPSCALE)
    small = cv2.resize(stacked, size, interpolation=cv2.INTER_AREA)
    return torch.from_numpy(small).permute(2, 0, 1).contiguous()


def stack_cues(
    frames: Tensor,  # [..., 3, h, w] in [0, 1]
    motion: Tensor,  # [..., 4, h, w] from `measure_motion`; zeros where unknown
) -> Tensor:  # [..., CUE_CHANNELS, h, w], each about 1 in size
    """Stack the network's input: colours, position in [-1, 1], normalised flow and residual, confidence."""
    flow, residual, confidence = motion.split([2, 1, 1], dim=-3)
    scaled = [
        _normalise(flow, torch.hypot(*flow.split(1, dim=-3)), MIN_FLOW_PERCENT),
        _normalise(residual, residual, MIN_RESIDUAL_PERCENT),
    ]
    return torch.cat([frames * 4 - 2, _position(frames), *scaled, confidence], dim=-3)


def _normalise(values: Tensor, magnitude: Tensor, offset: float) -> Tensor:
    """Divide by the frame's mean magnitude, so that a slow camera gives what a fast one gives."""
    mean = magnitude.mean(dim=(-2, -1), keepdim=True)
    return (values / (mean + offset)).clamp(-MAX_NORMALISED, MAX_NORMALISED)


def _position(frames: Tensor) -> Tensor:  # [..., 2, h, w]
    height, width = frames.shape[-2:]
    x = torch.linspace(-1, 1, width, device=frames.device).expand(height, width)
    y = torch.linspace(-1, 1, height, device=frames.device)[:, None].expand(height, width)
    return torch.stack([x, y]).expand(*frames.shape[:-3], 2, height, width)
