"""The sharp warp in plain torch: the definition every other backend answers to. On any device.

Positions are float64: exact for every float32 disparity, so all backends agree on what covers what.

A source pixel x owns two half patches, left and right of its centre. The right half spans the target
positions from its own, x - d, to the middle between its own and its neighbour's, or to half a pixel further
at the end of a surface; the left half likewise. A half patch that runs backwards is a surface turned away
from this eye and is not drawn.

Two pixels that meet at one target position differ as much in disparity as in x, so the nearest is the one
furthest right in the source: the winner is the largest half patch number, an integer.
"""

import torch
from torch import Tensor


def warp_reference(
    frames: Tensor,  # [T, 3, H, W]
    disparity: Tensor,  # [T, 1, H, W] px
    sharp: bool,  # Lanczos-3, else bilinear
    jump_px: float,
) -> tuple[Tensor, Tensor, Tensor]:  # frames [T, 3, H, W], coverage and disparity [T, 1, H, W]
    """Warp frame by frame, to bound the memory."""
    warped = [_warp_frame(f, d[0].double(), sharp, jump_px) for f, d in zip(frames, disparity, strict=True)]
    colours, coverages, disparities = zip(*warped, strict=True)
    return torch.stack(colours), torch.stack(coverages)[:, None], torch.stack(disparities)[:, None]


def _warp_frame(
    frame: Tensor,  # [3, H, W]
    disparity: Tensor,  # [H, W] px, float64
    sharp: bool,
    jump_px: float,
) -> tuple[Tensor, Tensor, Tensor]:  # colour [3, H, W], coverage [H, W], disparity [H, W]
    connected = disparity.diff(dim=1).abs() <= jump_px  # [H, W - 1]
    start, stop = _half_patches(disparity, connected)
    winner, coverage = _paint(start, stop)

    reached = winner >= 0
    half = winner.clamp(min=0)
    sample = half // 2
    start, stop = start.gather(1, half), stop.gather(1, half)
    position = torch.arange(disparity.shape[1], device=disparity.device).clamp(start, stop)
    length = torch.where(reached, stop - start, 1)
    offset = 0.5 * (position - start) / length - 0.5 * (half % 2 == 0)  # from the sample, [-0.5, 0.5] px

    colour = _gather(frame, sample, offset, connected, sharp)
    own_disparity = torch.where(reached, sample + offset - position, 0)
    return torch.where(reached, colour, 0).to(frame), coverage.to(frame), own_disparity.to(frame)


def _half_patches(
    disparity: Tensor,  # [H, W] px, float64
    connected: Tensor,  # [H, W - 1] bool
) -> tuple[Tensor, Tensor]:  # where each half patch starts and stops in the target, [H, 2 W] each
    position = torch.arange(disparity.shape[1], device=disparity.device) - disparity
    middle = (position[:, :-1] + position[:, 1:]) / 2
    left_edge, right_edge = position - 0.5, position + 0.5
    left_edge[:, 1:] = torch.where(connected, middle, left_edge[:, 1:])
    right_edge[:, :-1] = torch.where(connected, middle, right_edge[:, :-1])
    start = torch.stack([left_edge, position], -1).flatten(1)
    stop = torch.stack([position, right_edge], -1).flatten(1)
    return start, stop


def _paint(
    start: Tensor,  # [H, 2 W]
    stop: Tensor,  # [H, 2 W]
) -> tuple[Tensor, Tensor]:  # number of the winning half patch, -1 for none, and coverage, [H, W] each
    height, count = start.shape
    width = count // 2
    number = torch.arange(count, device=start.device).expand(height, -1)
    winner = torch.full((height, width), -1, device=start.device)
    coverage = start.new_zeros(height, width)

    seen = (start < stop) & (start < width - 0.5) & (stop > -0.5)
    first = (start + 0.5).floor().clamp(0, width)
    last = (stop - 0.5).ceil().clamp(-1, width - 1)
    longest = int((last - first)[seen].max()) + 1 if bool(seen.any()) else 0
    for step in range(longest):
        pixel = first + step
        touched = seen & (pixel <= last)
        centred = (start <= pixel) & (pixel < stop)
        index = pixel.clamp(max=width - 1).long()
        overlap = torch.minimum(stop, pixel + 0.5) - torch.maximum(start, pixel - 0.5)
        coverage.scatter_add_(1, index, torch.where(touched, overlap, 0))
        # A patch that reaches the centre of a pixel beats all that only touch it.
        rank = torch.where(touched, number + count * centred, -1)
        winner.scatter_reduce_(1, index, rank, "amax")
    return torch.where(winner >= 0, winner % count, -1), coverage.clamp(max=1)


def _gather(
    frame: Tensor,  # [3, H, W]
    sample: Tensor,  # [H, W] nearest source column
    offset: Tensor,  # [H, W] from it, [-0.5, 0.5] px
    connected: Tensor,  # [H, W - 1] bool
    sharp: bool,
) -> Tensor:  # [3, H, W] float64
    first, last = (edge.gather(1, sample) for edge in _surfaces(connected))
    step = torch.where(offset < 0, -1, 1)  # taps are counted towards the second nearest column
    reach = range(-2, 4) if sharp else range(0, 2)
    kernel = _lanczos3 if sharp else _tent
    weights = torch.stack([kernel(offset.abs() - tap) for tap in reach])
    columns = [(sample + step * tap).clamp(first, last) for tap in reach]
    taps = torch.stack([frame.double().gather(2, column.expand(frame.shape)) for column in columns])
    colour = (taps * (weights / weights.sum(0))[:, None]).sum(0)
    return colour.clamp(taps[1:5].amin(0), taps[1:5].amax(0)) if sharp else colour


def _surfaces(
    connected: Tensor,  # [H, W - 1] bool
) -> tuple[Tensor, Tensor]:  # first and last column of the surface each column belongs to, [H, W] each
    height, width = connected.shape[0], connected.shape[1] + 1
    column = torch.arange(width, device=connected.device).expand(height, -1)
    cut = connected.new_ones(height, 1)
    begins = torch.cat([cut, ~connected], 1)
    ends = torch.cat([~connected, cut], 1)
    first = torch.where(begins, column, 0).cummax(1).values
    last = torch.where(ends, column, width - 1).flip(1).cummin(1).values.flip(1)
    return first, last


def _lanczos3(
    distance: Tensor,  # px, below 3.5 in size
) -> Tensor:
    window = torch.where(distance.abs() < 3, torch.sinc(distance) * torch.sinc(distance / 3), 0)
    # sinc of a whole number is 0 only up to rounding, and a pixel that did not move must come back unchanged.
    return torch.where(distance == distance.round(), (distance == 0).to(distance), window)


def _tent(
    distance: Tensor,  # px
) -> Tensor:
    return (1 - distance.abs()).clamp(min=0)
