"""A warped frame that waits for its holes to be inpainted."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from secondeye.imaging.arrays import frame_size, resize
from secondeye.inpaint.interface import Warped, require_finite_pixels


class OpenFrame(NamedTuple):
    """One frame, with the coverage of those pixels only where it is below 1: they are few."""

    frames: Tensor  # [1, 3, H, W] in [0, 1], or uint8 [1, H, W, 3]
    is_open: Tensor  # bool [1, H, W], True where coverage is below 1
    coverage: Tensor  # [n] in [0, 1), of these pixels, row by row

    @classmethod
    def of_warped(cls, warped: Warped) -> Self:
        """Take what composing needs of one warped frame."""
        is_open = warped.coverage[:, 0] < 1
        return cls(warped.frames, is_open, warped.coverage[:, 0][is_open])

    def compose(
        self,
        inpainted: Tensor,  # [1, 3, h, w] in [0, 1]
    ) -> Tensor:  # in the form of the frame
        """Enlarge an inpainted frame and take it by the share of each pixel that is not covered.

        Raises UserError if the frame is 8-bit, which cannot show NaN, and the network returned NaN.
        """
        in_bytes = self.frames.dtype == torch.uint8
        if in_bytes:
            require_finite_pixels(inpainted)
        whole = resize(inpainted, *frame_size(self.frames)).permute(0, 2, 3, 1)[self.is_open]  # [n, 3]
        composed = self.frames.clone()
        pixels = composed if in_bytes else composed.permute(0, 2, 3, 1)
        seen = pixels[self.is_open].float().div(255) if in_bytes else pixels[self.is_open]
        coverage = self.coverage[:, None]
        mixed = coverage * seen + (1 - coverage) * whole
        pixels[self.is_open] = mixed.clamp(0, 1).mul(255).round().to(torch.uint8) if in_bytes else mixed
        return composed
