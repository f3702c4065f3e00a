"""The splat in plain torch: the definition every other backend answers to. Differentiable, on any device."""

import torch
from torch import Tensor

# The depth test works within 96 powers of two behind the nearest surface of the row: 2 ** -96 times a
# bilinear weight is still a normal float32 above the floor, so no surface, however far, turns black or NaN.
FARTHEST_EXPONENT = -96.0
WEIGHT_FLOOR = 1e-36


def splat_reference(
    frames: Tensor,  # [T, C, H, W], or uint8 [T, H, W, C]
    disparity: Tensor,  # [T, 1, H, W] px
    exponent_per_px: float,
    released: bool,  # the released border rule, see `splat`
) -> tuple[Tensor, Tensor]:  # warped in the form of the frames, coverage [T, 1, H, W] in [0, 1]
    """Splat in the dtype of the disparity, which may be float64 here, as float frames must then be."""
    if frames.dtype == torch.uint8:
        planes = frames.permute(0, 3, 1, 2).to(disparity.dtype)
        warped, coverage = splat_reference(planes, disparity, exponent_per_px, released)
        return (warped + 0.5).clamp(max=255).byte().permute(0, 2, 3, 1).contiguous(), coverage
    channels, width = frames.shape[1], frames.shape[3]
    column = torch.arange(width, dtype=frames.dtype, device=frames.device)
    landing = column - disparity
    left = landing.floor()
    lands = _lands(left, released)

    behind = disparity - disparity.detach().amax(-1, keepdim=True)
    nearness = exponent_per_px * behind.clamp(min=torch.finfo(behind.dtype).min)  # 0 * -inf would be NaN
    weight = torch.exp2(nearness.clamp(min=FARTHEST_EXPONENT))
    parcel = torch.cat([frames * weight, weight, torch.ones_like(weight)], 1) * lands

    # One column of margin on either side takes the neighbour that falls outside the frame.
    index = (left.clamp(-1, width - 1).long() + 1).expand_as(parcel)
    total = parcel.new_zeros(*parcel.shape[:3], width + 2)
    total = total.scatter_add(-1, index, parcel * (left + 1 - landing))
    total = total.scatter_add(-1, index + 1, parcel * (landing - left))
    colour, weight_sum, coverage = total[..., 1:-1].split([channels, 1, 1], 1)
    return colour / weight_sum.clamp(min=WEIGHT_FLOOR), coverage.clamp(max=1)


def _lands(
    left: Tensor,  # [T, 1, H, W] the column left of the landing point
    released: bool,
) -> Tensor:  # [T, 1, H, W] bool
    width = left.shape[-1]
    if not released:
        return (left >= -1) & (left <= width - 1)
    lands = (left >= 0) & (left <= width - 2)
    lands[:, :, -1] = False  # the rule wants the row below as well, although nothing moves vertically
    return lands
