"""The sharp warp: the picture the viewer sees wherever the first eye saw it too.

Every row of the picture is a chain of patches, one source pixel wide each. Patches of one surface share
their edges, so a stretched surface has no cracks; at a depth edge the chain is cut and the hole stays open.
A target pixel takes the nearest patch at its centre and gathers its colour around the source position found
there, with a windowed sinc. Splatting colours is bilinear filtering; a gather may use a better kernel (ours).

The backends are functions of one definition: `reference` (plain torch, the truth), `cpu` (numba) and
`kernel` (Triton).
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from secondeye.imaging.arrays import require_images, require_plane, require_same_size
from secondeye.imaging.backends import choose_backend

_BACKENDS = ("reference", "cpu", "triton")

# A neighbour's jump in disparity beyond this is a depth edge. A slope is the same at every width, an edge
# grows with it: hence a share of the width, but never so little that a plane stretched 2.5 times
# (1.5 px per px) tears (ours).
EDGE_SHARE_OF_WIDTH = 0.002
SMALLEST_EDGE_PX = 2.0
WIDEST_PX = 32767  # or as many surfaces as pixels on one of them would overflow the count of coverage


class Warp(NamedTuple):
    """The second eye's view of what the first eye saw, and of which surface it is."""

    frames: Tensor  # in the form and range of the frames given; black where coverage is 0
    coverage: Tensor  # [T, 1, H, W] in [0, 1]: the share of the pixel's width that is covered
    disparity: Tensor  # [T, 1, H, W] px, of the surface that won, in this view; 0 where coverage is 0


def warp(
    frames: Tensor,  # [T, 3, H, W] in [0, 1], or uint8 [T, H, W, 3]: the fast path
    disparity: Tensor,  # [T, 1, H, W] px, any sign and range; larger is nearer
    *,
    kernel: Literal["lanczos3", "bilinear"] = "lanczos3",
    backend: Literal["auto", "reference", "cpu", "triton"] = "auto",
    jump_px: float | None = None,
) -> Warp:
    """Move every surface to x - disparity and gather its colours there; near hides far absolutely (ours).

    Neighbours are one surface where their disparities differ by at most `jump_px`; None is 0.2 % of the
    width, at least 2 px. A surface ends half a pixel beyond its last pixel's centre: coverage is fractional
    there, and 1 inside; what several surfaces cover of one pixel is added. Colours are not multiplied by
    coverage: a surface's end lies over what is behind it by its share of the pixel, and where nothing is
    behind it is shown alone.

    `kernel="lanczos3"` uses six taps of the same surface, the surface's last pixel repeated beyond its end,
    and stays between the darkest and brightest of the four nearest, so it does not ring.

    `backend="auto"` is `cpu` for CPU tensors, `triton` on a GPU, or `reference` there without Triton. All
    give the same bits every time; none carries a gradient.

    The sign chooses the side: a positive disparity moves a surface to the left, as the right eye sees it. For
    the left eye of a right picture flip frames and disparity, warp, and flip what comes back. A negated
    disparity goes to that side too, but larger is nearer all the same: the far would hide the near.

    Raises ValueError for arrays that are not finite and of these kinds and shapes, or wider than 32767, for a
    jump_px that is negative or NaN, and for a backend or kernel that is unknown or can not be had here.
    """
    require_images(frames)
    require_plane(disparity, "disparity")
    require_same_size(frames, disparity, "disparity")
    if kernel not in ("lanczos3", "bilinear"):
        raise ValueError(f"kernel must be lanczos3 or bilinear, got {kernel!r}")
    if jump_px is None:
        jump_px = max(SMALLEST_EDGE_PX, EDGE_SHARE_OF_WIDTH * frames.shape[-1])
    if not jump_px >= 0:
        raise ValueError(f"jump_px must be at least 0, got {jump_px}")
    if disparity.shape[-1] > WIDEST_PX:
        raise ValueError(f"the width must be at most {WIDEST_PX}, got {disparity.shape[-1]}")
    jump_px = min(jump_px, torch.finfo(torch.float32).max)  # a difference that overflows is an edge
    sharp = kernel == "lanczos3"
    return Warp(*_run(frames.detach(), disparity.detach(), backend, sharp=sharp, jump_px=jump_px))


def _run(
    frames: Tensor,  # [T, 3, H, W], or uint8 [T, H, W, 3]
    disparity: Tensor,  # [T, 1, H, W] px
    backend: str,
    *,
    sharp: bool,
    jump_px: float,
) -> tuple[Tensor, Tensor, Tensor]:  # frames in the form given, coverage and disparity [T, 1, H, W]
    match choose_backend(backend, _BACKENDS, frames, disparity):
        case "reference":
            from secondeye.warp.reference import warp_reference

            return warp_reference(frames, disparity, sharp, jump_px)
        case "cpu":
            from secondeye.warp.cpu import warp_cpu

            return warp_cpu(frames, disparity, sharp, jump_px)
        case _:
            from secondeye.warp.kernel import warp_triton

            return warp_triton(frames, disparity, sharp, jump_px)
