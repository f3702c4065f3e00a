"""Read and write the files of a clip.

Readers take a path, whose checksum they verify, or an open file. They raise UserError for missing or damaged
files. They also take the indices of the frames to read, ascending, all by default; others are not decoded.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from secondeye.dataset.checksums import verify_checksum
from secondeye.imaging.arrays import frames_from_uint8, frames_to_uint8, require_frames, require_plane
from secondeye.video.write import read_lossless, write_lossless

STEPS_PER_PX = 64  # disparity files: px = gray16 value / 64 + offset_px; this is the definition


def write_frames(
    path: Path,
    frames: Tensor,  # [T, 3, H, W]
) -> Path:
    """Write frames as FFV1, RGB, 8 bit."""
    require_frames(frames)
    write_lossless(path, frames_to_uint8(frames).numpy())
    return path


def read_frames(
    source: Path | BinaryIO,
    frames: Sequence[int] | None = None,
) -> Tensor:  # [T, 3, H, W]
    """Read frames."""
    return frames_from_uint8(torch.from_numpy(read_lossless(_verified(source), frames)))


def write_disparity(
    path: Path,
    disparity: Tensor,  # [T, 1, H, W] px
) -> float:  # offset_px, needed to read it
    """Write disparity as FFV1, gray16, in 1/64 px. Raises ValueError if it spans more than 1023 px."""
    require_plane(disparity, "disparity")
    offset_px = float(disparity.min().floor())
    steps = ((disparity - offset_px) * STEPS_PER_PX).round()
    if float(steps.max()) > 65535:
        raise ValueError(
            f"disparity spans {float(disparity.max()) - offset_px:.0f} px; at most 1023 can be stored"
        )
    write_lossless(path, steps[:, 0].numpy().astype(np.uint16))
    return offset_px


def read_disparity(
    source: Path | BinaryIO,
    offset_px: float,  # from `write_disparity`
    frames: Sequence[int] | None = None,
) -> Tensor:  # [T, 1, H, W] px
    """Read disparity, accurate to 1/128 px."""
    steps = read_lossless(_verified(source), frames).astype(np.float32)
    return torch.from_numpy(steps)[:, None] / STEPS_PER_PX + offset_px


def write_plane(
    path: Path,
    plane: Tensor,  # uint8 [T, 1, H, W]
) -> Path:
    """Write integers as FFV1, gray, 8 bit."""
    write_lossless(path, plane[:, 0].contiguous().numpy())
    return path


def read_plane(
    source: Path | BinaryIO,
    frames: Sequence[int] | None = None,
) -> Tensor:  # uint8 [T, 1, H, W]
    """Read integers."""
    return torch.from_numpy(read_lossless(_verified(source), frames))[:, None]


def write_occlusion(
    path: Path,
    occlusion: Tensor,  # [T, 1, H, W] bool
) -> Path:
    """Write a mask as 0 and 255."""
    return write_plane(path, occlusion.to(torch.uint8) * 255)


def read_occlusion(
    source: Path | BinaryIO,
    frames: Sequence[int] | None = None,
) -> Tensor:  # [T, 1, H, W] bool
    """Read a mask."""
    return read_plane(source, frames) > 127


def _verified(source: Path | BinaryIO) -> Path | BinaryIO:
    return verify_checksum(source) if isinstance(source, Path) else source
