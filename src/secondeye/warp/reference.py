"""The sharp warp in plain torch: the specification of all backends. Runs on any device with float64.

Source pixel x has the target position x - d, computed in float32 and rounded once. All backends get the same
number and therefore agree on visibility. A segment runs from this position to that of the next pixel of the
surface; a segment that would run backwards faces away from this view and is not drawn. At each end a
surface has a cap of half a pixel. A cap lies in one target pixel and covers a share of it (1 minus its
distance from the pixel's centre), which antialiases silhouettes.

If two segments or caps meet, their difference in disparity equals their difference in x. The nearest is
therefore the one with the largest source column, an integer. A pixel shows the nearest segment that contains
its centre, and over it, blended by its share, the nearest cap, if that is nearer. Of two caps in one pixel
only the nearest is visible.
"""

from typing import NamedTuple

import torch
from torch import Tensor

COVERAGE_UNIT = 65536  # coverage is counted in integer units: exactly 1 inside a surface, summed in any order


class _Row(NamedTuple):
    """The source frame and its projection."""

    frame: Tensor  # [3, H, W] float64
    disparity: Tensor  # [H, W] px, float64
    position: Tensor  # [H, W] px in the target
    connected: Tensor  # [H, W + 1] bool: whether pixels x - 1 and x belong to one surface


def warp_reference(
    frames: Tensor,  # [T, 3, H, W] in [0, 1], or uint8 [T, H, W, 3]
    disparity: Tensor,  # [T, 1, H, W] px
    sharp: bool,  # Lanczos-3, otherwise bilinear
    jump_px: float,
) -> tuple[Tensor, Tensor, Tensor]:  # frames in the input form, coverage and disparity [T, 1, H, W]
    """Warp frame by frame, which bounds the memory; see `warp`."""
    is_uint8 = frames.dtype == torch.uint8
    planes = frames.permute(0, 3, 1, 2) if is_uint8 else frames
    warped = [_warp_frame(f, d[0], sharp, jump_px) for f, d in zip(planes, disparity, strict=True)]
    colour, coverage, own_disparity = (torch.stack(part) for part in zip(*warped, strict=True))
    if is_uint8:
        colour = (colour + 0.5).clamp(0, 255).permute(0, 2, 3, 1).contiguous()
    return colour.to(frames.dtype), coverage[:, None].to(disparity), own_disparity[:, None].to(disparity)


def _warp_frame(
    frame: Tensor,  # [3, H, W]
    disparity: Tensor,  # [H, W] px
    sharp: bool,
    jump_px: float,
) -> tuple[Tensor, Tensor, Tensor]:  # colour [3, H, W], coverage [H, W], disparity [H, W], all float64
    target = torch.arange(disparity.shape[1], device=disparity.device)
    position = target - disparity
    cut = torch.zeros_like(disparity[:, :1], dtype=torch.bool)
    connected = torch.cat([cut, disparity.diff(dim=1).abs() <= jump_px, cut], 1)
    row = _Row(frame.double(), disparity.double(), position, connected)
    segment, cap, coverage = _find_segments(row), _find_caps(row), _compute_coverage(row)

    start, stop = (_at(position.double(), segment + step) for step in (0, 1))
    offset = torch.where(segment >= 0, (target - start) / (stop - start), 0)  # px right of the source pixel
    colour = _gather(row, segment, offset, sharp)
    own_disparity = (1 - offset) * _at(row.disparity, segment) + offset * _at(row.disparity, segment + 1)

    distance = target - _at(position.double(), cap)
    share = torch.where(cap > segment, torch.where(segment < 0, 1, 1 - distance.abs()), 0)
    colour = colour + share * (_gather(row, cap, distance.clamp(-0.5, 0.5), sharp) - colour)
    own_disparity = torch.where(share >= 0.5, _at(row.disparity, cap), own_disparity)

    shown = ((segment >= 0) | (cap >= 0)) & (coverage > 0)
    colour, coverage, own_disparity = (torch.where(shown, a, 0) for a in (colour, coverage, own_disparity))
    return colour, coverage, own_disparity


def _at(
    plane: Tensor,  # [H, W]
    column: Tensor,  # [H, W]; clamped to the plane
) -> Tensor:  # [H, W]
    return plane.gather(1, column.clamp(0, plane.shape[1] - 1))


def _find_segments(row: _Row) -> Tensor:
    """Return the source column of the nearest segment at each target pixel's centre, -1 if none, [H, W]."""
    height, width = row.position.shape
    column = torch.arange(width, device=row.position.device).expand(height, -1)
    nearest = torch.full((height, width), -1, device=row.position.device)
    first = row.position.ceil().clamp(0, width).long()
    beyond = torch.where(row.connected[:, 1:], _at(first, column + 1), first)
    for step in range(int((beyond - first).max())):
        pixel = first + step
        claim = torch.where(pixel < beyond, column, -1)
        nearest.scatter_reduce_(1, pixel.clamp(max=width - 1), claim, "amax")
    return nearest


def _find_caps(row: _Row) -> Tensor:
    """Return the source column of the nearest cap in each target pixel, -1 if none, [H, W]."""
    height, width = row.position.shape
    column = torch.arange(width, device=row.position.device).expand(height, -1)
    # Columns 0 and W + 1 are a margin for caps outside the frame.
    nearest = torch.full((height, width + 2), -1, device=row.position.device)
    begins, ends = ~row.connected[:, :-1], ~row.connected[:, 1:]
    for exists, pixel in ((begins, row.position.floor()), (ends, row.position.ceil())):
        index = pixel.clamp(-1, width).long() + 1
        nearest.scatter_reduce_(1, index, torch.where(exists, column, -1), "amax")
    return nearest[:, 1:-1]


def _compute_coverage(row: _Row) -> Tensor:
    """Return the covered share of each target pixel, [H, W] in [0, 1].

    A run of consecutive forward segments, with the caps at its ends, covers everything from start to stop.
    """
    height, width = row.position.shape
    forward = row.connected.clone()
    forward[:, 1:-1] &= row.position[:, 1:] > row.position[:, :-1]
    begins, ends = ~forward[:, :-1], ~forward[:, 1:]
    start = torch.where(row.connected[:, :-1], row.position, row.position - 0.5)
    stop = torch.where(row.connected[:, 1:], row.position, row.position + 0.5)
    change = torch.zeros(height, width + 2, dtype=torch.int64, device=row.position.device)
    for sign, exists, edge in ((1, begins, start), (-1, ends, stop)):
        edge = edge.clamp(-0.5, width - 0.5)
        column = (edge + 0.5).floor()
        before = ((edge - (column - 0.5)) * COVERAGE_UNIT + 0.5).floor().long()
        change.scatter_add_(1, column.long(), sign * exists * (COVERAGE_UNIT - before))
        change.scatter_add_(1, column.long() + 1, sign * exists * before)
    return change.cumsum(1)[:, :width].clamp(max=COVERAGE_UNIT).double() / COVERAGE_UNIT


def _gather(
    row: _Row,
    sample: Tensor,  # [H, W] source column
    offset: Tensor,  # [H, W] px from that column, in [-0.5, 1]
    sharp: bool,
) -> Tensor:  # [3, H, W]
    width = row.position.shape[1]
    column = torch.arange(width, device=sample.device).expand(sample.shape)
    surface_first = torch.where(row.connected[:, :-1], 0, column).cummax(1).values
    surface_last = torch.where(row.connected[:, 1:], width - 1, column).flip(1).cummin(1).values.flip(1)
    left = sample + offset.floor().long()
    share = offset - offset.floor()
    reach = range(-2, 4) if sharp else range(0, 2)
    weights = torch.stack([(_lanczos3 if sharp else _tent)(share - tap) for tap in reach])
    columns = [(left + tap).clamp(_at(surface_first, sample), _at(surface_last, sample)) for tap in reach]
    taps = torch.stack([row.frame.gather(2, c.expand(row.frame.shape)) for c in columns])
    colour = (taps * (weights / weights.sum(0))[:, None]).sum(0)
    return colour.clamp(taps[1:5].amin(0), taps[1:5].amax(0)) if sharp else colour


def _lanczos3(
    distance: Tensor,  # px, in [-3, 3]
) -> Tensor:
    window = torch.sinc(distance) * torch.sinc(distance / 3)
    # The sinc of an integer is 0 only up to rounding, but a pixel that does not move must stay unchanged.
    return torch.where(distance == distance.round(), (distance == 0).to(distance), window)


def _tent(
    distance: Tensor,  # px
) -> Tensor:
    return (1 - distance.abs()).clamp(min=0)
