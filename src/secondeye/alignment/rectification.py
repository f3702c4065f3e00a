"""Estimate a rectification from matches: rotations and zoom that put matching points on one row.

The parametrisation is that of Fusiello and Irsara (Machine Vision and Applications 2011), with a zoom.
"""

from collections.abc import Sequence

import numpy as np

from secondeye.alignment.correspondences import Correspondences
from secondeye.imaging.rectification import Rectification, project

_EXACT_PX = 0.3  # accuracy of a match: larger residuals count linearly
_WEIGHT = 10.0  # of all matches together; each of the priors below counts as 1
# Priors on how rigs are built decide what matches leave open: small angles, equal lenses, a 60 degree view.
_FOCAL, _FOCAL_SPREAD = 0.9, 0.3  # widths; of its logarithm
_ANGLE_SPREAD_DEG = 3.0
_ZOOM_SPREAD = 0.05  # of its logarithm


def fit_rectification(
    matches: Sequence[Correspondences],  # of clips of one film
    height: int,  # px of a view
    width: int,
) -> Rectification:
    """Fit one rectification to all matches by robust least squares of the remaining vertical disparity."""
    from scipy.optimize import least_squares  # takes half a second to import

    left = np.concatenate([np.column_stack([m.x, m.y]) for m in matches])
    right = np.concatenate([np.column_stack([m.x - m.disparity, m.y + m.vertical]) for m in matches])
    weight = _WEIGHT / max(1, len(left)) ** 0.5

    def residuals(numbers: np.ndarray) -> np.ndarray:
        of_left, of_right = _rectification(numbers).homographies(height, width)
        rows = (project(of_right, right) - project(of_left, left))[:, 1] / _EXACT_PX
        return np.concatenate([weight * _limit_outliers(rows), numbers])

    return _rectification(least_squares(residuals, np.zeros(7)).x)


def _rectification(numbers: np.ndarray) -> Rectification:
    """Return the rectification of numbers in units of what is usual: focal length, zoom, angles."""
    focal, zoom, angles = numbers[0], numbers[1], numbers[2:]
    focal_widths, right_zoom = _FOCAL * np.exp(_FOCAL_SPREAD * focal), np.exp(_ZOOM_SPREAD * zoom)
    return Rectification(*map(float, (focal_widths, *(_ANGLE_SPREAD_DEG * angles), right_zoom)))


def _limit_outliers(residuals: np.ndarray) -> np.ndarray:
    """Return residuals whose squares grow only linearly beyond 1 (pseudo-Huber loss)."""
    limited: np.ndarray = np.sign(residuals) * np.sqrt(2 * (np.sqrt(1 + residuals**2) - 1))
    return limited
