"""Vertical disparity: its median, and how much it varies over the frame."""

from typing import NamedTuple

import numpy as np

from secondeye.alignment.correspondences import Correspondences, select

_ITERATIONS = 20
_EXACT_PX = 0.1  # accuracy of a match: smaller residuals get equal weight
_RIDGE = 2.0  # regularises the slopes so that a few matches at one side do not tilt the fit
_ROW_TOLERANCE_PX, _ROW_TOLERANCE_PERCENT = 0.6, 0.05  # px, or of the width; the larger one applies


class VerticalFit(NamedTuple):
    """Vertical misalignment of a stereo pair."""

    vertical_px: float  # median; positive if lower in the right view
    spread_px: float  # range over the frame's corners, caused by rotation, scale or toe-in


def fit_vertical(matches: Correspondences, height: int, width: int) -> VerticalFit:
    """Fit the vertical disparity: its median, and a plane with a twist for its variation."""
    if not len(matches.x):
        return VerticalFit(0.0, 0.0)
    coefficients = _fit(matches, height, width)
    corners = [coefficients @ [1, x, y, x * y] for x in (-1, 1) for y in (-1, 1)]
    return VerticalFit(float(np.median(matches.vertical)), float(max(corners) - min(corners)))


def filter_by_row(matches: Correspondences, height: int, width: int) -> Correspondences:
    """Drop points off their row, such as crossings of edges at different depths."""
    if not len(matches.x):
        return matches
    expected = _terms(matches, height, width) @ _fit(matches, height, width) + np.median(matches.vertical)
    allowed = max(_ROW_TOLERANCE_PX, _ROW_TOLERANCE_PERCENT / 100 * width)
    return select(matches, np.abs(matches.vertical - expected) <= allowed)


def _fit(matches: Correspondences, height: int, width: int) -> np.ndarray:  # [4]
    centred = matches.vertical - np.median(matches.vertical)
    return fit_l1(_terms(matches, height, width), centred)


def _terms(matches: Correspondences, height: int, width: int) -> np.ndarray:  # [N, 4]
    across, down = 2 * matches.x / width - 1, 2 * matches.y / height - 1
    return np.stack([np.ones_like(across), across, down, across * down], axis=1)


def fit_l1(
    terms: np.ndarray,  # float64 [N, K]; the first column is the constant
    values: np.ndarray,  # float64 [N]
) -> np.ndarray:  # [K]
    """Minimise the sum of absolute residuals by reweighted least squares; tolerates a third of outliers."""
    weight = np.ones(len(values))
    ridge = np.diag([1e-9] + [_RIDGE] * (terms.shape[1] - 1))
    coefficients = np.zeros(terms.shape[1])
    for _ in range(_ITERATIONS):
        weighted = terms * weight[:, None]
        coefficients = np.linalg.solve(weighted.T @ terms + ridge, weighted.T @ values)
        weight = _EXACT_PX / np.maximum(np.abs(values - terms @ coefficients), _EXACT_PX)
    return coefficients
