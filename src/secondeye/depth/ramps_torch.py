"""Find the ramps between two surfaces of a blurred map, on a GPU (torch), with the bits of `ramps_cpu`.

Few pixels are on a ramp: they are collected, and only the lines of pixels through them are read.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from secondeye.depth.ramps_cpu import (
    COLOUR_WEIGHT,
    DIAGONAL_SHARE,
    END_SHARE,
    FLAT_SHARE,
    MIN_STEEPNESS,
    ROWS_APART,
    SAMPLES,
    SIDE_SHARE,
    STEP_PER_SIGMA,
)

VALUES_AT_ONCE = 2**24  # that are read along ramps: bounds the memory beyond the planes to about 0.6 GB


class _Ramps(NamedTuple):
    """Pixels on ramps, each with the steepest of eight directions."""

    row: Tensor  # int64 [N]
    column: Tensor  # int64 [N]
    down: Tensor  # int64 [N]: -1, 0 or 1
    right: Tensor  # int64 [N]
    above: Tensor  # int64 [N] steps uphill to the end of the ramp
    below: Tensor  # int64 [N]
    steepest: Tensor  # float32 [N]: the largest step
    low: Tensor  # float32 [N]: the value at the end of the ramp
    high: Tensor  # float32 [N]

    def of(self, keep: Tensor) -> "_Ramps":
        return _Ramps(*(part[keep] for part in self))


def snap(
    plane: Tensor,  # float32 [H, W]
    frame: Tensor,  # [H, W, 3]
    reach: int,  # px
    bound: float,
    spacing: int,  # px between samples of colours
    min_contrast: float,  # in the frame's levels
) -> Tensor:  # float32 [H, W]
    """Return the plane with every value on a ramp replaced by that of one of the ramp's ends."""
    snapped = plane.clone()
    for places in _steep(plane, reach, bound).split(max(1, VALUES_AT_ONCE // reach)):
        ramps = _ramps(plane, places, reach, bound)
        ramps = ramps.of((ramps.above > 0) & (ramps.below > 0))
        value = plane[ramps.row, ramps.column]
        colour = _colour_sides(plane, frame, ramps, spacing, min_contrast)
        share = ((value - ramps.low) / (ramps.high - ramps.low)).double()
        vote = share - 0.5 + COLOUR_WEIGHT * (colour - 0.5)
        snapped[ramps.row, ramps.column] = torch.where(vote > 0, ramps.high, ramps.low)
    return snapped


def sigmas(
    plane: Tensor,  # float32 [H, W]
    reach: int,  # px
    bound: float,
) -> Tensor:  # float64 [N] px
    """Return the blur of every ramp (standard deviation), from its height and steepest step; 0 if sharp."""
    places = _steep(plane, reach, bound)
    found = [torch.empty(0, dtype=torch.float64, device=plane.device)]
    for part in places[places[:, 0] % ROWS_APART == 0].split(max(1, VALUES_AT_ONCE // reach)):
        ramps = _ramps(plane, part, reach, bound)
        ramps = ramps.of(ramps.above > 0)
        first = plane[ramps.row + ramps.down, ramps.column + ramps.right] - plane[ramps.row, ramps.column]
        ramps = ramps.of(first >= ramps.steepest)  # each ramp counts once, where its steepest step begins
        aside, margin = (ramps.above + ramps.below + 1) // 2, FLAT_SHARE * (ramps.high - ramps.low).double()
        top = _values_at(plane, ramps, ramps.above + aside) >= ramps.high.double() - margin
        foot = _values_at(plane, ramps, -ramps.below - aside) <= ramps.low.double() + margin
        ramps = ramps.of(top & foot)  # beside thin objects, ramps are shorter than the blur
        length = (ramps.down**2 + ramps.right**2).double().sqrt()
        sigma = (ramps.high - ramps.low).double() * length / (STEP_PER_SIGMA * ramps.steepest.double())
        found.append(torch.where(ramps.above + ramps.below == 1, 0.0, sigma))
    return torch.cat(found)


def _steep(plane: Tensor, reach: int, bound: float) -> Tensor:  # int64 [N, 4]
    """Return row, column and the steepest of eight directions wherever the slope suffices for a ramp."""
    padded = torch.nn.functional.pad(plane[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    along_row, along_column = padded[1:-1, 2:] - padded[1:-1, :-2], padded[2:, 1:-1] - padded[:-2, 1:-1]
    across, downwards = along_row.abs().double(), along_column.abs().double()
    places = (torch.maximum(across, downwards) * reach >= MIN_STEEPNESS * bound).nonzero()
    row, column = places.unbind(1)
    across, downwards = across[row, column], downwards[row, column]
    right = torch.sign(along_row[row, column]).long() * (across > DIAGONAL_SHARE * downwards)
    down = torch.sign(along_column[row, column]).long() * (downwards > DIAGONAL_SHARE * across)
    return torch.stack([row, column, down, right], dim=1)[(down != 0) | (right != 0)]


def _ramps(plane: Tensor, places: Tensor, reach: int, bound: float) -> _Ramps:
    """Return the ramps among the places: those that end within `reach` and are higher than `bound`."""
    row, column, down, right = places.unbind(1)
    lines = [_rises(plane, places, sign * torch.arange(reach + 1, device=plane.device)) for sign in (1, -1)]
    steepest = torch.maximum(*(torch.where(going_on, rise, 0).amax(1) for rise, going_on in lines))
    least = END_SHARE * steepest.double()[:, None]
    above, below = ((going_on & (rise.double() >= least)).cumprod(1).sum(1) for rise, going_on in lines)
    high = plane[row + above * down, column + above * right]
    low = plane[row - below * down, column - below * right]
    ramps = _Ramps(row, column, down, right, above, below, steepest, low, high)
    return ramps.of((above + below < reach) & ((high - low).double() > bound))


def _values_at(plane: Tensor, ramps: _Ramps, steps: Tensor) -> Tensor:  # float64 [N]
    """Return the values `steps` uphill; NaN outside of the plane."""
    height, width = plane.shape
    row, column = ramps.row + steps * ramps.down, ramps.column + steps * ramps.right
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    values = plane[row.clamp(0, height - 1), column.clamp(0, width - 1)].double()
    return torch.where(inside, values, torch.nan)


def _rises(plane: Tensor, places: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Return each step's rise away from the places, [N, reach], and whether all rose up to there."""
    height, width = plane.shape
    row, column, down, right = (part[:, None] for part in places.unbind(1))
    rows, columns = row + steps * down, column + steps * right
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    values = plane[rows.clamp(0, height - 1), columns.clamp(0, width - 1)]
    rise = (values[:, 1:] - values[:, :-1]) * (1 if steps[-1] > 0 else -1)
    return rise, ((rise > 0) & inside[:, 1:]).cumprod(1).bool()


def _colour_sides(
    plane: Tensor,  # float32 [H, W]
    frame: Tensor,  # [H, W, 3]
    ramps: _Ramps,
    spacing: int,
    min_contrast: float,
) -> Tensor:  # float64 [N]
    """Return each pixel's colour between the mean of the far side (0) and the near side (1); 0.5 if equal."""
    (height, width), margin = plane.shape, SIDE_SHARE * (ramps.high - ramps.low).double()
    means, known = [], torch.ones_like(ramps.row, dtype=torch.bool)
    for near in (True, False):
        sums = plane.new_zeros(len(ramps.row), 3, dtype=torch.float64)
        counts = sums.new_zeros(len(ramps.row), 1)
        for sample in range(SAMPLES):
            away = ramps.above + sample * spacing if near else -(ramps.below + sample * spacing)
            sign = 1 if near else -1
            for across in (-2 * spacing * sign, 0, 2 * spacing * sign):
                rows = ramps.row + away * ramps.down - across * ramps.right
                columns = ramps.column + away * ramps.right + across * ramps.down
                of_side = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
                rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
                value = plane[rows, columns].double()
                of_side &= (
                    value >= ramps.high.double() - margin if near else value <= ramps.low.double() + margin
                )
                sums += torch.where(of_side[:, None], frame[rows, columns].double(), 0.0)
                counts += of_side[:, None]
        means.append(sums / counts)
        known &= counts[:, 0] > 0
    near_mean, far_mean = means
    products = (near_mean - far_mean) * (frame[ramps.row, ramps.column].double() - far_mean)
    squares = (near_mean - far_mean) * (near_mean - far_mean)
    along, contrast = (part[:, 0] + part[:, 1] + part[:, 2] for part in (products, squares))
    known &= contrast > min_contrast * min_contrast
    return torch.where(known, (along / contrast).clamp(0, 1), 0.5)
