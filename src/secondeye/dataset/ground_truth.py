"""Read and write exact disparity and occlusion of a film's right view, if they are known.

truth/NAME.npz   right_disparity float16 [T, 1, H, W] px (x_left = x_right + right_disparity),
                 right_occlusion bool [T, 1, H, W], of all frames at the size of one view
"""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from secondeye.system.files import write_atomic


class GroundTruth(NamedTuple):
    """Ground truth of the right view for some frames."""

    right_disparity: Tensor  # [T, 1, H, W] px
    right_occlusion: Tensor  # bool [T, 1, H, W]: not visible in the left view, whether hidden or out of frame


def ground_truth_file(film: Path) -> Path:
    """Return the path of a film's ground truth."""
    return film.parent / "truth" / f"{film.stem}.npz"


def write_ground_truth(path: Path, right_disparity: Tensor, right_occlusion: Tensor) -> None:
    """Write the ground truth of a whole film."""
    path.parent.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, right_disparity=right_disparity.half().numpy(), right_occlusion=right_occlusion.numpy()
    )
    write_atomic(path, buffer.getvalue())


def read_ground_truth(path: Path, start: int, stop: int) -> GroundTruth:
    """Read the ground truth of frames start to stop."""
    with np.load(path, allow_pickle=False) as arrays:
        disparity, occlusion = (arrays[name][start:stop] for name in GroundTruth._fields)
    return GroundTruth(torch.from_numpy(disparity.astype(np.float32)), torch.from_numpy(occlusion))


def shift_ground_truth(
    truth: GroundTruth,
    shift_px: int,  # how far the right view was moved to the right, which lowers every disparity by as much
) -> GroundTruth:
    """Shift and crop the ground truth as `corrections.apply_shift` does the right view."""
    width = truth.right_disparity.shape[-1]
    columns = slice(0, width - shift_px) if shift_px >= 0 else slice(-shift_px, width)
    return GroundTruth(truth.right_disparity[..., columns] - shift_px, truth.right_occlusion[..., columns])
