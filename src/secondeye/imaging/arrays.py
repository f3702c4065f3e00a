"""Array conventions of the whole package: checks, conversions and resizing.

- frames, [T, 3, H, W]: RGB in [0, 1]
- disparity, [T, 1, H, W]: pixels of this width; x_right = x_left - disparity; larger is nearer
- coverage, [T, 1, H, W]: how much of a target pixel was reached, [0, 1]
- occlusion, [T, 1, H, W]: bool; True where the second view sees what the first does not
- depth, [T, 1, H, W]: relative inverse depth, larger is nearer

All but `occlusion` are float32.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# The far and the near end of a range of disparities: a few false matches must not define it (ours).
FAR_PERCENTILE, NEAR_PERCENTILE = 1.0, 99.0


def require_frames(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
) -> None:
    """Raise ValueError unless `frames` is finite float32 [T, 3, H, W] with at least one pixel."""
    _require(frames, 3, "frames")


def require_images(
    frames: Tensor,  # [T, 3, H, W] in [0, 1], or uint8 [T, H, W, 3] as decoders return and encoders accept
) -> None:
    """Raise ValueError unless `frames` has one of the two forms, with at least one pixel."""
    _require_tensor(frames, "frames")
    shape = list(frames.shape)
    if frames.dtype not in (torch.uint8, torch.float32):
        raise ValueError(f"frames must be float32 [T, 3, H, W] or uint8 [T, H, W, 3], got {frames.dtype}")
    if frames.dtype == torch.float32:
        require_frames(frames)
    elif frames.ndim != 4 or shape[3] != 3 or 0 in shape:
        raise ValueError(f"uint8 frames must be [T, H, W, 3] and not empty, got {shape}")


def require_plane(
    plane: Tensor,  # [T, 1, H, W]
    name: str,
) -> None:
    """Raise ValueError unless `plane` (disparity, depth, coverage) is finite float32 [T, 1, H, W]."""
    _require(plane, 1, name)


def require_same_size(
    frames: Tensor,  # [T, 3, H, W], or uint8 [T, H, W, 3]
    plane: Tensor,  # [T, C, H, W], or uint8 [T, H, W, C]
    name: str,
) -> None:
    """Raise ValueError unless both arrays have the same number of frames, height and width."""
    if frames.shape[0] != plane.shape[0] or frame_size(frames) != frame_size(plane):
        raise ValueError(f"{name} is {list(plane.shape)}, but the frames are {list(frames.shape)}")


def _require_tensor(array: object, name: str) -> None:
    if not isinstance(array, Tensor):
        kind = type(array)
        raise ValueError(f"{name} must be a torch tensor, got {kind.__module__}.{kind.__qualname__}")


def _require(array: Tensor, channels: int, name: str) -> None:
    _require_tensor(array, name)
    shape = list(array.shape)
    if array.ndim != 4 or array.shape[1] != channels or 0 in shape:
        raise ValueError(f"{name} must be [T, {channels}, H, W] and not empty, got {shape}")
    if array.dtype != torch.float32:
        raise ValueError(f"{name} must be float32, got {array.dtype}")
    # aminmax propagates NaN and, unlike isfinite, allocates no temporary array of the same size.
    if not all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(array)):
        raise ValueError(f"{name} contains NaN or inf")


def as_rows(
    frames: Tensor,  # [T, 3, H, W], or uint8 [T, H, W, 3]; contiguous, on the CPU
) -> np.ndarray:  # [T, H, 3, W], or uint8 [T, H, 1, 3 W]; shares memory with `frames`
    """Return each image row as contiguous lines: one per channel, or one with interleaved channels."""
    if frames.dtype == torch.uint8:
        return frames.flatten(2)[:, :, None].numpy()
    return frames.transpose(1, 2).numpy()


def resize(
    array: Tensor,  # [T, C, H, W]
    height: int,
    width: int,
) -> Tensor:  # [T, C, height, width]
    """Resize images or depth bilinearly, anti-aliased when shrinking. For disparity: `resize_disparity`."""
    if array.shape[-2:] == (height, width):
        return array
    return F.interpolate(array, (height, width), mode="bilinear", align_corners=False, antialias=True)


def resize_disparity(
    disparity: Tensor,  # [T, 1, H, W] px of width W
    height: int,
    width: int,
) -> Tensor:  # [T, 1, height, width] px of the new width
    """Resize a disparity map and scale its values: half the width has half the disparity in pixels."""
    return resize(disparity, height, width) * (width / disparity.shape[-1])


def mirror(
    array: Tensor,  # [T, C, H, W], or uint8 [T, H, W, C]
) -> Tensor:  # of the same form
    """Return a copy that is flipped horizontally."""
    return array.flip(2 if array.dtype == torch.uint8 else 3)


def occlusion_mask(
    coverage: Tensor,  # [T, 1, H, W] in [0, 1]
) -> Tensor:  # bool [T, 1, H, W]
    """Return True where the first view covers at most half of a pixel of the second (threshold: ours)."""
    return coverage <= 0.5


def disparity_ends(
    disparity: np.ndarray,  # of any shape, at least one value, no NaN
) -> tuple[float, float]:  # far, near, in the unit of `disparity`
    """Return the far and the near end of the disparities: FAR_PERCENTILE and NEAR_PERCENTILE."""
    far, near = np.percentile(disparity, [FAR_PERCENTILE, NEAR_PERCENTILE])
    return float(far), float(near)


def depth_to_disparity(
    depth: Tensor,  # [T, 1, H, W] in [0, 1], 1 is nearest
    strength_percent: float,  # disparity between the nearest and the farthest point, % of W
    convergence: float,  # the depth that lies on the screen, [0, 1]
) -> Tensor:  # [T, 1, H, W] px, positive in front of the screen
    """Convert depth to disparity (ours; convergence 0.5 and 200 * max_disp / W percent is the release)."""
    return strength_percent / 100 * depth.shape[-1] * (depth - convergence)


def frames_from_uint8(
    images: Tensor,  # uint8 [T, H, W, 3]
) -> Tensor:  # [T, 3, H, W] in [0, 1]
    """Convert 8-bit images to float frames."""
    return images.permute(0, 3, 1, 2).float().div(255)


def to_float_frames(
    frames: Tensor,  # uint8 [T, H, W, 3], or [T, 3, H, W] in [0, 1]
) -> Tensor:  # [T, 3, H, W] in [0, 1]
    """Return float frames, given either form."""
    return frames_from_uint8(frames) if frames.dtype == torch.uint8 else frames


def frame_size(
    frames: Tensor,  # uint8 [T, H, W, 3], or [T, 3, H, W]
) -> tuple[int, int]:  # height, width
    """Return the size of frames, given either form."""
    height, width = frames.shape[1:3] if frames.dtype == torch.uint8 else frames.shape[2:]
    return height, width


def frames_to_uint8(
    frames: Tensor,  # [T, 3, H, W]; clipped to [0, 1]
) -> Tensor:  # uint8 [T, H, W, 3]
    """Convert float frames to 8-bit images, rounding to the nearest level."""
    return (frames.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
