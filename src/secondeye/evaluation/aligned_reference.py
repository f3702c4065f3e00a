"""The true right view at the strength and convergence of a conversion (ours).

Strength and convergence are a viewer's choice: a conversion that differs from the true pair in them alone is
not wrong, but every score against the true right view falls. So both are fitted, one scale and one shift for
a whole clip or film, and the true view is rendered again with them: its pixels move by the difference of the
two disparities, and what only the left view sees comes from there. The conversion itself is not touched, and
its depth is compared with the true depth, whose order and proportions no scale and shift can change.
"""

from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from secondeye.evaluation.regions import BORDER, DISOCCLUDED, UNKNOWN, VISIBLE, PairMatch
from secondeye.evaluation.score import PreparedFrames, match_views, prepare
from secondeye.imaging.arrays import mirror, occlusion_mask
from secondeye.imaging.backends import on_best_device
from secondeye.warp import EDGE_SHARE_OF_WIDTH, MIN_EDGE_PX, Warp, warp

MIN_SCALE = 0.05  # of the true strength; less is a flat film with errors of the matcher
MAX_SCALE = 2.0  # beyond it, too much of the reference is seen by neither view
_MIN_DEPTH_PERCENT = 0.2  # of the width, from the 1st to the 99th percentile: less depth gives no scale
_GRID = 24  # cells along either side of a frame
_MIN_EDGE = 4 / 255  # over two pixels, mean of the colours
_MIN_SAMPLES = 50
_ITERATIONS = 30  # of reweighting
_NOISE_PX = 0.1  # smaller residuals all count the same
_LAYERS = (VISIBLE, DISOCCLUDED, BORDER)
_Kernel = Literal["lanczos3", "bilinear"]


class Alignment(NamedTuple):
    """How the disparity of a conversion follows from the true one: scale * true + shift_px."""

    scale: float  # NaN if it cannot be measured
    shift_px: float
    median_px: float  # of the conversion's disparity
    obstacle: str  # why the conversion is compared with the true view itself; "" if it can be aligned


class Reference(NamedTuple):
    """The true right view at another strength and convergence."""

    frames: Tensor  # [T, 3, H, W]
    regions: Tensor  # uint8 [T, 1, H, W]: evaluation.regions
    known: Tensor  # bool [T, 1, H, W]: where either true view shows it


def sample_disparities(
    left: Tensor,  # [T, 3, H, W]
    truth: Tensor,  # [T, 3, H, W]
    made: Tensor,  # [T, 3, H, W]: the right view to align
) -> np.ndarray:  # float64 [N, 2] px: true disparity and that of the conversion
    """Sample the disparity of both pairs where both left-right checks confirm it.

    Each cell of a grid gives its strongest vertical edge, if it has one: in flat areas, as in cartoons, any
    disparity is confirmed.
    """
    wanted, found = match_views(left, truth), match_views(left, made)
    edges = F.pad((left[..., 2:] - left[..., :-2]).abs().mean(1, keepdim=True), (1, 1))
    edges = torch.where(wanted.consistent & found.consistent, edges, 0.0)
    cell = [max(1, side // _GRID) for side in edges.shape[-2:]]
    strength, place = (plane.flatten(2) for plane in F.max_pool2d(edges, cell, return_indices=True))
    pairs = torch.cat([wanted.disparity, found.disparity], 1).flatten(2).double()
    chosen = pairs.gather(2, place.expand(-1, 2, -1)).transpose(1, 2)
    return chosen[strength[:, 0] >= _MIN_EDGE].numpy()


def fit_alignment(
    samples: np.ndarray,  # float64 [N, 2] px, from `sample_disparities`
    width: int,
) -> Alignment:
    """Fit scale and shift by least absolute deviations, which a minority of wrong matches hardly moves.

    Flat and inverted depth, and more than twice the true strength, are not aligned: the obstacle says so.
    """
    if len(samples) < _MIN_SAMPLES:
        return Alignment(np.nan, np.nan, 0.0, "hardly any pixel of it matches the left view")
    wanted, found = samples.T
    median_px = float(np.median(found))
    far, near = np.percentile(wanted, [1, 99])
    if near - far < _MIN_DEPTH_PERCENT / 100 * width:
        return Alignment(np.nan, np.nan, median_px, "the true right eye has no depth to align to")
    scale, shift_px = _fit_line(wanted, found)
    return Alignment(scale, shift_px, median_px, _obstacle(scale))


def _fit_line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:  # slope, intercept
    """Minimize the absolute residuals by reweighted least squares."""
    weights = np.ones_like(x)
    for _ in range(_ITERATIONS):
        mean_x, mean_y = (np.average(values, weights=weights) for values in (x, y))
        slope = (weights * (x - mean_x) * (y - mean_y)).sum() / (weights * (x - mean_x) ** 2).sum()
        intercept = mean_y - slope * mean_x
        weights = 1 / np.maximum(np.abs(y - slope * x - intercept), _NOISE_PX)
    return float(slope), float(intercept)


def _obstacle(scale: float) -> str:
    if scale <= -MIN_SCALE:
        return "its depth is inverted, or its eyes are swapped"
    if scale < MIN_SCALE:
        return "it is flat, or its depth has nothing to do with the true one"
    return f"its depth is more than {MAX_SCALE:g} times the true one" if scale > MAX_SCALE else ""


def prepare_aligned(
    left: Tensor,  # [T, 3, H, W]
    truth: Tensor,  # [T, 3, H, W]
    regions: Tensor,  # uint8 [T, 1, H, W] of the true right view
    match: PairMatch,  # of the true pair
    alignment: Alignment,  # without an obstacle
) -> PreparedFrames:
    """Prepare the scores against the reference."""
    return prepare(left, *render_reference(left, truth, regions, match, alignment))


def render_reference(
    left: Tensor,  # [T, 3, H, W]
    truth: Tensor,  # [T, 3, H, W]
    regions: Tensor,  # uint8 [T, 1, H, W] of the true right view
    match: PairMatch,  # of the true pair
    alignment: Alignment,  # without an obstacle
) -> Reference:
    """Render the true right view so that its disparity is scale * true + shift_px.

    Its pixels are those of the true right view, moved with their regions: whether the left view sees a
    surface does not depend on the strength. What the true right view does not see is filled from the left
    view. Not `known` is what neither sees, where the row is repeated, and where the match contradicts the
    regions, so that its disparity may be wrong.
    """
    scale, shift_px = alignment.scale, alignment.shift_px
    seen_left = _move(left, scale * match.left + shift_px, scale)
    residual = (scale - 1) * match.right + shift_px
    seen_right = _move_right(truth, residual, scale - 1)
    missing, hidden = (occlusion_mask(seen.coverage) for seen in (seen_right, seen_left))
    share = seen_right.coverage
    mixed = share * seen_right.frames + (1 - share) * seen_left.frames
    frames = torch.where(hidden, seen_right.frames, mixed)
    agreed = torch.where(regions == match.regions, regions, UNKNOWN)
    moved = torch.where(missing, VISIBLE, _move_regions(agreed, residual, scale - 1))
    covered = ~missing | ~hidden
    moved[~covered] = UNKNOWN
    return Reference(torch.where(covered, frames, _nearest_of_row(frames, covered)), moved, moved != UNKNOWN)


def _move_regions(regions: Tensor, disparity: Tensor, strength: float) -> Tensor:  # uint8 [T, 1, H, W]
    """Move a map of the right view; a pixel that is not mainly of one region is unknown."""
    layers = torch.cat([regions == region for region in _LAYERS], 1).float()
    shares, layer = _move_right(layers, disparity, strength, "bilinear").frames.max(1, keepdim=True)
    return torch.where(shares > 0.5, torch.tensor(_LAYERS, dtype=torch.uint8)[layer], UNKNOWN)


def _move(frames: Tensor, disparity: Tensor, strength: float, kernel: _Kernel = "lanczos3") -> Warp:
    """Warp by a disparity that is this many times the true one, and so are its depth edges."""
    edge_px = max(MIN_EDGE_PX, EDGE_SHARE_OF_WIDTH * frames.shape[-1])
    return on_best_device(warp)(frames, disparity, kernel=kernel, jump_px=edge_px * abs(strength))


def _move_right(frames: Tensor, disparity: Tensor, strength: float, kernel: _Kernel = "lanczos3") -> Warp:
    """Warp the right view: mirrored if its pixels move back towards the left eye, so that near hides far."""
    if strength > 0:
        return _move(frames, disparity, strength, kernel)
    moved = _move(mirror(frames), mirror(-disparity), strength, kernel)
    return Warp(*map(mirror, moved))


def _nearest_of_row(
    frames: Tensor,  # [T, 3, H, W]
    covered: Tensor,  # bool [T, 1, H, W]
) -> Tensor:  # [T, 3, H, W]
    """Replace pixels that are not covered by the covered one before them in the row, else the one after."""
    width = frames.shape[-1]
    column = torch.arange(width).expand(covered.shape)
    before = torch.where(covered, column, -1).cummax(-1).values
    after = torch.where(covered, column, width - 1).flip(-1).cummin(-1).values.flip(-1)
    return frames.gather(-1, torch.where(before >= 0, before, after).expand_as(frames))
