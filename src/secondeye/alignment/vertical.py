"""How much lower one eye has what the other sees: everywhere the same, or not."""

from typing import NamedTuple

import numpy as np

from secondeye.alignment.correspondences import Correspondences, only

_ROUNDS = 20
_EXACT_PX = 0.1  # as exact as a match can be: residuals below it are alike
_PULL = 2.0  # matches: what it takes to tilt the fit, so that few of them at one side do not
_ON_ROW_PX, _ON_ROW_PERCENT = 0.6, 0.05  # px, or of the width: matches that miss by more are none


class VerticalFit(NamedTuple):
    """What separates the rows of a pair."""

    vertical_px: float  # the right eye has everything that much lower, at the median
    spread_px: float  # between the corners with the most and the least of it: rotation, scale, toe-in


def fit_vertical(matches: Correspondences, height: int, width: int) -> VerticalFit:
    """The vertical displacement of a pair: its median, and how a plane with a twist says that it varies."""
    if not len(matches.x):
        return VerticalFit(0.0, 0.0)
    fitted = _fit(matches, height, width)
    corners = [fitted @ [1, x, y, x * y] for x in (-1, 1) for y in (-1, 1)]
    return VerticalFit(float(np.median(matches.vertical)), float(max(corners) - min(corners)))


def on_rows(matches: Correspondences, height: int, width: int) -> Correspondences:
    """Without the points that miss their row: edges that only seem to cross are found nearly anywhere."""
    if not len(matches.x):
        return matches
    usual = _terms(matches, height, width) @ _fit(matches, height, width) + np.median(matches.vertical)
    allowed = max(_ON_ROW_PX, _ON_ROW_PERCENT / 100 * width)
    return only(matches, np.abs(matches.vertical - usual) <= allowed)


def _fit(matches: Correspondences, height: int, width: int) -> np.ndarray:  # [4]
    usual = matches.vertical - np.median(matches.vertical)
    return fit_least_absolute(_terms(matches, height, width), usual)


def _terms(matches: Correspondences, height: int, width: int) -> np.ndarray:  # [N, 4]
    across, down = 2 * matches.x / width - 1, 2 * matches.y / height - 1
    return np.stack([np.ones_like(across), across, down, across * down], axis=1)


def fit_least_absolute(
    terms: np.ndarray,  # float64 [N, K]; the first is the constant
    values: np.ndarray,  # float64 [N]
) -> np.ndarray:  # [K]
    """The smallest sum of absolute residuals, by reweighted least squares: a third may be wrong."""
    weight = np.ones(len(values))
    pull = np.diag([1e-9] + [_PULL] * (terms.shape[1] - 1))
    fitted = np.zeros(terms.shape[1])
    for _ in range(_ROUNDS):
        weighted = terms * weight[:, None]
        fitted = np.linalg.solve(weighted.T @ terms + pull, weighted.T @ values)
        weight = _EXACT_PX / np.maximum(np.abs(values - terms @ fitted), _EXACT_PX)
    return fitted
