"""What the student sees of a frame: its colours, the place in the frame, and how everything moves.

Motion is measured against a neighbouring frame and kept as `[4, h, w]`: flow x and y and what a homography
leaves over, all in percent of the width, and the confidence of the flow in [0, 1]. Parallax is what transfers
from one kind of film to another; its size means nothing, since it depends on the camera's speed, so `planes`
brings every frame's flow to the same size. Ours.
"""

import cv2
import numpy as np
import torch
from torch import Tensor

from secondeye.depth.residual_flow import homography_residual
from secondeye.imaging.optical_flow import MIN_FLOW_SIZE_PX, dense_flow, forward_backward_error

MOTION_CHANNELS = 4  # flow x, flow y, left over, confidence
CUE_CHANNELS = 3 + 2 + MOTION_CHANNELS
MAGNIFIED = 2  # DIS works in patches of 8 px; on the small working size they are larger than heads
MISMATCH_PERCENT = 0.25  # of the width: there-and-back error at which a flow vector counts half
LEAST_FLOW_PERCENT = 0.15  # of the width, mean length: slower flow is its own noise and stays small
LEAST_LEFT_OVER_PERCENT = 0.05
LARGEST = 4.0  # in units of the frame's mean: what runs faster is not told apart
LUMA = (0.299, 0.587, 0.114)  # BT.601


def to_grey(
    frame: Tensor,  # [3, h, w] in [0, 1]
) -> np.ndarray:  # uint8 [h, w]
    """The picture that flow is measured on."""
    grey = (frame * torch.tensor(LUMA)[:, None, None]).sum(0)
    return (grey * 255).round().clamp(0, 255).byte().numpy()


def measure_motion(
    now: np.ndarray,  # uint8 [h, w]
    neighbour: np.ndarray,  # uint8 [h, w]
) -> tuple[Tensor, Tensor]:  # each [4, h, w]: flow x, y and left over in percent of the width, confidence
    """Measure how `now` moves to reach `neighbour`, and the way back; zero in pictures too small for it."""
    height, width = now.shape
    if min(height, width) * MAGNIFIED < MIN_FLOW_SIZE_PX:
        nothing = torch.zeros(MOTION_CHANNELS, height, width)
        return nothing, nothing
    size = (width * MAGNIFIED, height * MAGNIFIED)
    here, there = (cv2.resize(grey, size, interpolation=cv2.INTER_CUBIC) for grey in (now, neighbour))
    away, back = dense_flow(here, there), dense_flow(there, here)
    return _describe(away, back), _describe(back, away)


def _describe(flow: np.ndarray, back: np.ndarray) -> Tensor:  # [4, h, w]
    height, width = flow.shape[:2]
    percent = np.float32(100 / width)
    error = forward_backward_error(flow, back) * percent
    left_over = homography_residual(flow, error < MISMATCH_PERCENT) * percent
    confidence = 1 / (1 + (error / np.float32(MISMATCH_PERCENT)) ** 2)
    stacked = np.dstack([flow * percent, left_over, confidence]).astype(np.float32)
    size = (width // MAGNIFIED, height // MAGNIFIED)
    small = cv2.resize(stacked, size, interpolation=cv2.INTER_AREA)
    return torch.from_numpy(small).permute(2, 0, 1).contiguous()


def stack_cues(
    frames: Tensor,  # [..., 3, h, w] in [0, 1]
    motion: Tensor,  # [..., 4, h, w] as `measure_motion` gives it; zeros where nothing is known
) -> Tensor:  # [..., 9, h, w], each about 1 in size
    """Make the network's input: colours, position in [-1, 1], flow and left over by size, confidence."""
    flow, left_over, confidence = motion.split([2, 1, 1], dim=-3)
    scaled = [
        _by_size(flow, torch.hypot(*flow.split(1, dim=-3)), LEAST_FLOW_PERCENT),
        _by_size(left_over, left_over, LEAST_LEFT_OVER_PERCENT),
    ]
    return torch.cat([frames * 4 - 2, _position(frames), *scaled, confidence], dim=-3)


def _by_size(values: Tensor, size: Tensor, least: float) -> Tensor:
    """Divide by the frame's mean size, so that a slow camera shows what a fast one shows."""
    mean = size.mean(dim=(-2, -1), keepdim=True)
    return (values / (mean + least)).clamp(-LARGEST, LARGEST)


def _position(frames: Tensor) -> Tensor:  # [..., 2, h, w]
    height, width = frames.shape[-2:]
    x = torch.linspace(-1, 1, width, device=frames.device).expand(height, width)
    y = torch.linspace(-1, 1, height, device=frames.device)[:, None].expand(height, width)
    return torch.stack([x, y]).expand(*frames.shape[:-3], 2, height, width)
