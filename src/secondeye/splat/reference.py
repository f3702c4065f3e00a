"""Splatting in plain torch: the specification of all backends. Differentiable, on any device."""

import torch
from torch import Tensor

# The depth test covers 96 powers of two behind the nearest surface of the row: 2 ** -96 times a bilinear
# weight is still a normal float32 above the floor, so no surface, however far, turns black or NaN.
MIN_EXPONENT = -96.0
WEIGHT_FLOOR = 1e-36


def splat_reference(
    frames: Tensor,  # [T, C, H, W], or uint8 [T, H, W, C]
    disparity: Tensor,  # [T, 1, H, W] px
    exponent_per_px: float,
    released: bool,  # the released border rule, see `splat`
) -> tuple[Tensor, Tensor]:  # warped in the form of the frames, coverage [T, 1, H, W] in [0, 1]
    """Splat in the dtype of the disparity; float frames must have the same one (float32 or float64)."""
    if frames.dtype == torch.uint8:
        planes = frames.permute(0, 3, 1, 2).to(disparity.dtype)
        warped, coverage = splat_reference(planes, disparity, exponent_per_px, released)
        return (warped + 0.5).clamp(max=255).byte().permute(0, 2, 3, 1).contiguous(), coverage
    channels, width = frames.shape[1], frames.shape[3]
    column = torch.arange(width, dtype=frames.dtype, device=frames.device)
    landing = column - disparity
    left = landing.floor()
    lands = _lands_inside(left, released)

    behind = disparity - disparity.detach().amax(-1, keepdim=True)
    nearness = exponent_per_px * behind.clamp(min=torch.finfo(behind.dtype).min)  # 0 * -inf would be NaN
    weight = torch.exp2(nearness.clamp(min=MIN_EXPONENT))
    weighted = torch.cat([frames * weight, weight, torch.ones_like(weight)], 1) * lands

    # A margin of one column on each side receives the neighbour that falls outside the frame.
    index = (left.clamp(-1, width - 1).long() + 1).expand_as(weighted)
    total = weighted.new_zeros(*weighted.shape[:3], width + 2)
    total = total.scatter_add(-1, index, weighted * (left + 1 - landing))
    total = total.scatter_add(-1, index + 1, weighted * (landing - left))
    colour, weight_sum, coverage = total[..., 1:-1].split([channels, 1, 1], 1)
    return colour / weight_sum.clamp(min=WEIGHT_FLOOR), coverage.clamp(max=1)


def _lands_inside(
    left: Tensor,  # [T, 1, H, W], column left of the landing point
    released: bool,
) -> Tensor:  # [T, 1, H, W] bool
    width = left.shape[-1]
    if not released:
        return (left >= -1) & (left <= width - 1)
    lands = (left >= 0) & (left <= width - 2)
    lands[:, :, -1] = False  # the rule requires the row below, too, although nothing moves vertically
    return lands
