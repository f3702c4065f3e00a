"""The files of a clip: where they lie, and how each kind is stored.

What is gone or damaged is refused with a line (`stored.require_whole`).
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from secondeye.dataset.checksums import verify_checksum
from secondeye.imaging.arrays import frames_from_uint8, frames_to_uint8, require_frames, require_plane
from secondeye.video.write import read_lossless, write_lossless

STEPS_PER_PX = 64  # disparity files: gray16, value / 64 + offset_px; this is the definition


def clip_id(film_id: str, start: int, stop: int) -> str:
    """The same frames of the same film have the same id on every machine."""
    return hashlib.sha256(f"{film_id} {start} {stop}".encode()).hexdigest()[:16]


def clip_file(folder: Path, clip: str, kind: str) -> Path:
    """Where a stage's folder keeps one kind of file (left, right, disparity, warped, occlusion) of a clip."""
    return folder / f"{clip}.{kind}.mkv"


def write_frames(
    path: Path,
    frames: Tensor,  # [T, 3, H, W]
) -> Path:
    """Store pictures: FFV1, RGB, 8 bit."""
    require_frames(frames)
    write_lossless(path, frames_to_uint8(frames).numpy())
    return path


def read_frames(
    path: Path,
) -> Tensor:  # [T, 3, H, W]
    """Read pictures back."""
    return frames_from_uint8(torch.from_numpy(read_lossless(verify_checksum(path))))


def write_disparity(
    path: Path,
    disparity: Tensor,  # [T, 1, H, W] px
) -> float:  # the offset to read it with, px
    """Store disparity: FFV1, gray16, 1/64 px. Raises ValueError when it spans more than 1023 px."""
    require_plane(disparity, "disparity")
    offset_px = float(disparity.min().floor())
    steps = ((disparity - offset_px) * STEPS_PER_PX).round()
    if float(steps.max()) > 65535:
        raise ValueError(f"disparity spans {float(disparity.max()) - offset_px:.0f} px; 1023 can be stored")
    write_lossless(path, steps[:, 0].numpy().astype(np.uint16))
    return offset_px


def read_disparity(
    path: Path,
    offset_px: float,  # as `write_disparity` returned it
) -> Tensor:  # [T, 1, H, W] px
    """Read disparity back, to 1/128 px."""
    steps = read_lossless(verify_checksum(path)).astype(np.float32)
    return torch.from_numpy(steps)[:, None] / STEPS_PER_PX + offset_px


def write_plane(
    path: Path,
    plane: Tensor,  # uint8 [T, 1, H, W]
) -> Path:
    """Store whole numbers: FFV1, gray."""
    write_lossless(path, plane[:, 0].contiguous().numpy())
    return path


def read_plane(
    path: Path,
) -> Tensor:  # uint8 [T, 1, H, W]
    """Read whole numbers back."""
    return torch.from_numpy(read_lossless(verify_checksum(path)))[:, None]


def write_occlusion(
    path: Path,
    occlusion: Tensor,  # [T, 1, H, W] bool
) -> Path:
    """Store a mask: 0 or 255."""
    return write_plane(path, occlusion.to(torch.uint8) * 255)


def read_occlusion(
    path: Path,
) -> Tensor:  # [T, 1, H, W] bool
    """Read a mask back."""
    return read_plane(path) > 127
