"""What is known about a film's right eye, where somebody knows: a file beside the film, in truth/.

truth/NAME.npz   right_disparity float16 [T, 1, H, W] px (x_left = x_right + right_disparity),
                 right_occlusion bool [T, 1, H, W]; T, H and W are the film's frames and one eye's size
"""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from secondeye.system.files import write_atomic


class GroundTruth(NamedTuple):
    """The right eye of some frames."""

    right_disparity: Tensor  # [T, 1, H, W] px
    right_occlusion: Tensor  # bool [T, 1, H, W]: the left eye does not see it, in or out of frame


def ground_truth_file(film: Path) -> Path:
    """Where the truth of a film lies."""
    return film.parent / "truth" / f"{film.stem}.npz"


def write_ground_truth(path: Path, right_disparity: Tensor, right_occlusion: Tensor) -> None:
    """Write the truth of a whole film."""
    path.parent.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, right_disparity=right_disparity.half().numpy(), right_occlusion=right_occlusion.numpy()
    )
    write_atomic(path, buffer.getvalue())


def read_ground_truth(path: Path, start: int, stop: int) -> GroundTruth:
    """The truth of frames start to stop."""
    with np.load(path, allow_pickle=False) as arrays:
        disparity, occlusion = (arrays[name][start:stop] for name in GroundTruth._fields)
    return GroundTruth(torch.from_numpy(disparity.astype(np.float32)), torch.from_numpy(occlusion))


def apply_shift(
    truth: GroundTruth,
    shift_px: int,  # the right view moved this far to the right; every disparity fell by it
) -> GroundTruth:
    """As `views.apply_shift` does with the right view: the columns that both eyes keep."""
    width = truth.right_disparity.shape[-1]
    kept = slice(0, width - shift_px) if shift_px >= 0 else slice(-shift_px, width)
    return GroundTruth(truth.right_disparity[..., kept] - shift_px, truth.right_occlusion[..., kept])
