"""Sharp warp: the second view wherever the first view saw the same surface (ours).

Every image row is a chain of segments between neighbouring source pixels. Segments of one surface share their
end points, so a stretched surface has no cracks; at a depth edge the chain is cut and leaves a hole. A target
pixel takes the nearest segment at its centre and gathers its colour around the source position found there
with a windowed sinc. Splatting colours amounts to bilinear filtering; a gather can use a better kernel.

All backends implement one definition: `reference` (plain torch, the specification), `cpu` (numba) and
`kernel` (Triton).
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from secondeye.imaging.arrays import require_images, require_plane, require_same_size
from secondeye.imaging.backends import choose_backend

_BACKENDS = ("reference", "cpu", "triton")

# Neighbours whose disparities differ by more than this are separated by a depth edge (ours). Slopes do not
# depend on the width but edges grow with it, hence a share of the width. The minimum keeps a plane that is
# stretched 2.5 times (1.5 px per px) in one piece.
EDGE_SHARE_OF_WIDTH = 0.002
MIN_EDGE_PX = 2.0
MAX_WIDTH_PX = 32767  # wider rows could overflow the int32 coverage count where all pixels land on one


class Warp(NamedTuple):
    """The second view of the surfaces that the first view sees."""

    frames: Tensor  # in the form and range of the input frames; black where coverage is 0
    coverage: Tensor  # [T, 1, H, W] in [0, 1]: covered share of the pixel's width
    disparity: Tensor  # [T, 1, H, W] px, of the visible surface in this view; 0 where coverage is 0


def warp(
    frames: Tensor,  # [T, 3, H, W] in [0, 1], or uint8 [T, H, W, 3]: the fast path
    disparity: Tensor,  # [T, 1, H, W] px, any sign and range; larger is nearer
    *,
    kernel: Literal["lanczos3", "bilinear"] = "lanczos3",
    backend: Literal["auto", "reference", "cpu", "triton"] = "auto",
    jump_px: float | None = None,
) -> Warp:
    """Move every surface to x - disparity and gather its colours there; nearer surfaces hide farther ones.

    Neighbours belong to one surface if their disparities differ by at most `jump_px` (None: 0.2 % of the
    width, at least 2 px). A surface ends half a pixel beyond the centre of its last pixel. Its coverage is 1
    inside and fractional at its ends; the coverages of several surfaces in one pixel are added. Colours are
    not multiplied by coverage: the end of a surface is blended over the surface behind it by its share of the
    pixel, and is shown alone if nothing is behind it.

    `kernel="lanczos3"` uses six taps of the same surface, with its last pixel replicated beyond its end, and
    clamps the result to the range of the four nearest taps to avoid ringing.

    `backend="auto"` is `cpu` for CPU tensors, `triton` on a GPU, and `reference` on a GPU without Triton.
    With TRITON_INTERPRET=1 in the environment it is `triton` for CPU tensors, too. All backends are
    bit-reproducible; none supports gradients.

    A positive disparity moves a surface to the left, which gives the right view of a left view. For the left
    view of a right view, flip frames and disparity horizontally, warp, and flip the result. Do not negate the
    disparity instead: larger would still be nearer, so far surfaces would hide near ones.

    Raises ValueError for arrays of other types or shapes, with non-finite values or wider than 32767 px, for
    a negative or NaN jump_px, and for an unknown or unavailable backend or kernel.
    """
    require_images(frames)
    require_plane(disparity, "disparity")
    require_same_size(frames, disparity, "disparity")
    if kernel not in ("lanczos3", "bilinear"):
        raise ValueError(f"kernel must be lanczos3 or bilinear, got {kernel!r}")
    if jump_px is None:
        jump_px = max(MIN_EDGE_PX, EDGE_SHARE_OF_WIDTH * disparity.shape[-1])
    if not jump_px >= 0:
        raise ValueError(f"jump_px must be at least 0, got {jump_px}")
    if disparity.shape[-1] > MAX_WIDTH_PX:
        raise ValueError(f"the width must be at most {MAX_WIDTH_PX}, got {disparity.shape[-1]}")
    jump_px = min(jump_px, torch.finfo(torch.float32).max)  # an overflowing difference is an edge
    sharp = kernel == "lanczos3"
    return Warp(*_run(frames.detach(), disparity.detach(), backend, sharp=sharp, jump_px=jump_px))


def _run(
    frames: Tensor,  # [T, 3, H, W], or uint8 [T, H, W, 3]
    disparity: Tensor,  # [T, 1, H, W] px
    backend: str,
    *,
    sharp: bool,
    jump_px: float,
) -> tuple[Tensor, Tensor, Tensor]:  # frames in the input form, coverage and disparity [T, 1, H, W]
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
