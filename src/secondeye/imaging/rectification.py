"""Rectify views of cameras that do not look in parallel: two rotations and a zoom, applied as homographies.

The cameras are pinholes with square pixels and their axis at the image centre. Rotating both until the line
between them is parallel to the rows puts every point on one row, at whatever depth it is.
"""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor


class Rectification(NamedTuple):
    """How both cameras are turned: five angles (the left pitch is free), the focal length and a zoom."""

    focal_widths: float  # focal length / image width of the left camera
    left_yaw_deg: float
    left_roll_deg: float
    right_pitch_deg: float
    right_yaw_deg: float
    right_roll_deg: float
    right_zoom: float  # focal length of the right camera / that of the left

    def homographies(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:  # left, right [3, 3]
        """Return the maps from pixels (x, y, 1) of each view to rectified pixels."""
        focal = self.focal_widths * width
        left, right = (_intrinsics(f, height, width) for f in (focal, focal * self.right_zoom))
        turn_left = _rotation(0.0, self.left_yaw_deg, self.left_roll_deg)
        turn_right = _rotation(self.right_pitch_deg, self.right_yaw_deg, self.right_roll_deg)
        return left @ turn_left @ np.linalg.inv(left), left @ turn_right @ np.linalg.inv(right)

    def largest_row_move_px(self, height: int, width: int) -> float:
        """Return by how much the rows of a corner of either view move at most."""
        corners = _corners(height, width)
        moved = [project(matrix, corners) for matrix in self.homographies(height, width)]
        return float(max(np.abs(view[:, 1] - corners[:, 1]).max() for view in moved))


NO_RECTIFICATION = Rectification(
    0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0
)  # as numbers of a table; not to be applied


def _intrinsics(focal_px: float, height: int, width: int) -> np.ndarray:
    return np.array([[focal_px, 0, (width - 1) / 2], [0, focal_px, (height - 1) / 2], [0, 0, 1]])


def _rotation(pitch_deg: float, yaw_deg: float, roll_deg: float) -> np.ndarray:
    """Return the rotation matrix about x, then y, then z."""
    about_x, about_y, about_z = (
        cv2.Rodrigues(np.deg2rad(angle) * axis)[0]
        for angle, axis in zip((pitch_deg, yaw_deg, roll_deg), np.eye(3), strict=True)
    )
    return about_z @ about_y @ about_x


def project(
    homography: np.ndarray,  # [3, 3]
    xy: np.ndarray,  # [N, 2] px
) -> np.ndarray:  # [N, 2] px
    """Map points by a homography."""
    mapped = np.column_stack([xy, np.ones(len(xy))]) @ homography.T
    points: np.ndarray = mapped[:, :2] / mapped[:, 2:]
    return points


def _corners(height: int, width: int) -> np.ndarray:
    """Return the corners [4, 2]: top left, top right, bottom left, bottom right."""
    return np.array([(x, y) for y in (0.0, height - 1.0) for x in (0.0, width - 1.0)])


def rectify(
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
    rectification: Rectification,
) -> tuple[Tensor, Tensor]:  # left, right [T, 3, h, w], cropped alike to what both views fill
    """Rectify both views by bicubic interpolation. Raises ValueError if no pixel is left."""
    height, width = left.shape[-2:]
    matrices = rectification.homographies(height, width)
    rows, columns = _common_area(matrices, height, width)
    if rows.stop <= rows.start or columns.stop <= columns.start:
        raise ValueError(f"nothing is left of {height}x{width} px after {rectification}")
    views = (
        _warp(view, matrix)[..., rows, columns] for view, matrix in zip((left, right), matrices, strict=True)
    )
    rectified_left, rectified_right = views
    return rectified_left, rectified_right


def _common_area(
    matrices: tuple[np.ndarray, np.ndarray], height: int, width: int
) -> tuple[slice, slice]:  # rows, columns
    top_left, top_right, bottom_left, bottom_right = np.stack(
        [project(matrix, _corners(height, width)) for matrix in matrices], axis=1
    )
    left, top = max(0, *top_left[:, 0], *bottom_left[:, 0]), max(0, *top_left[:, 1], *top_right[:, 1])
    right = min(width - 1, *top_right[:, 0], *bottom_right[:, 0])
    bottom = min(height - 1, *bottom_left[:, 1], *bottom_right[:, 1])
    # A thousandth of a pixel is rounding.
    rows = slice(int(np.ceil(top - 1e-3)), int(np.floor(bottom + 1e-3)) + 1)
    return rows, slice(int(np.ceil(left - 1e-3)), int(np.floor(right + 1e-3)) + 1)


def _warp(frames: Tensor, matrix: np.ndarray) -> Tensor:
    height, width = frames.shape[-2:]
    images = [
        cv2.warpPerspective(
            image, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        for image in np.ascontiguousarray(frames.permute(0, 2, 3, 1).numpy())
    ]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous().clamp(0, 1)
