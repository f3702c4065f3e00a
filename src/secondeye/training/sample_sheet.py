"""Pictures that a training leaves to be looked at."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from secondeye.system.errors import UserError


def write_sample_sheet(
    path: Path,  # .png
    sheet: NDArray[np.uint8],  # [H, W, 3] RGB
) -> None:
    """Write a picture; Refusal where it can not be, which OpenCV says without an error."""
    if not cv2.imwrite(str(path), sheet[..., ::-1]):
        raise UserError(f"{path}: can not be written; free some disk and start again")
