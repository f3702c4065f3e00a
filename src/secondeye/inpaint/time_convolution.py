"""Temporal convolutions computed as 2D ones: several times faster on CPUs."""

import torch.nn.functional as F
from torch import Tensor, nn


class TimeConvolution(nn.Conv3d):
    """A Conv3d of kernel [k, 1, 1]; same weights, same results up to rounding."""

    def forward(
        self,
        array: Tensor,  # [B, C, T, H, W]
    ) -> Tensor:  # [B, C', T, H, W]
        assert isinstance(self.padding, tuple)
        flat = F.conv2d(array.flatten(3), self.weight[..., 0], self.bias, padding=(self.padding[0], 0))
        return flat.unflatten(3, array.shape[3:])


def flatten_time_convolutions(module: nn.Module) -> None:
    """Replace every purely temporal convolution in `module` by a TimeConvolution, in place."""
    for part in module.modules():
        if type(part) is nn.Conv3d and part.kernel_size[1:] == (1, 1) and set(part.stride) == {1}:
            part.__class__ = TimeConvolution
