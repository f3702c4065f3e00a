"""The image with examples that a training leaves in its run folder."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from secondeye.system.errors import UserError


def write_sample_sheet(
    path: Path,  # .png
    sheet: NDArray[np.uint8],  # [H, W, 3] RGB
) -> None:
    """Write a PNG. Raises UserError if that fails: OpenCV only returns False."""
    if not cv2.imwrite(str(path), sheet[..., ::-1]):
        raise UserError(f"{path}: cannot be written; free some disk space and start again")
