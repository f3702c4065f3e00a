"""Soft forward splatting of the paper: move a view's pixels to the other eye, leaving holes.

Splatting builds the dataset and conditions the network, because the released network was trained on it.
The image that the viewer sees comes from `secondeye.warp`, which is sharper.

All backends implement one definition: `reference` (plain torch, the specification), `cpu` (numba) and
`kernel` (Triton).
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from secondeye.imaging.arrays import require_images, require_plane, require_same_size
from secondeye.imaging.backends import choose_backend

_BACKENDS = ("reference", "cpu", "triton", "triton_nondeterministic")
_EXPONENT_WIDTH_PX = 1024  # the width that weight_exponent_per_px of params.yaml refers to


class Splat(NamedTuple):
    """The second view, as far as pixels of the first one reach."""

    warped: Tensor  # in the form and range of the input frames; black where nothing landed
    coverage: Tensor  # [T, 1, H, W] in [0, 1]: the sum of the bilinear weights, without the depth weights


def splat(
    frames: Tensor,  # [T, 3, H, W] in [0, 1], or uint8 [T, H, W, 3]: the fast path
    disparity: Tensor,  # [T, 1, H, W] px, any sign and range; larger is nearer
    *,
    backend: Literal["auto", "reference", "cpu", "triton", "triton_nondeterministic"] = "auto",
    border: Literal["clip", "released"] = "clip",
    weight_exponent_per_px: float = 0.5,
) -> Splat:
    """Move every pixel to x - disparity and blend the pixels that land together (arXiv 2409.07447, 3.2).

    A pixel is shared bilinearly between the two columns beside its landing point. Its weight against other
    pixels that land there is 2 ** (weight_exponent_per_px * disparity); 0.5 is the paper's sqrt(2) per px.
    The exponent is per pixel, so the same film at half the width needs twice the exponent
    (`exponent_at_width`).

    `border="clip"` (ours) clips each of the two columns to the frame separately. `border="released"` drops a
    pixel as the released code does, unless both columns and the row below lie inside the frame. It never
    writes the last row and exists for conformance tests only.

    `backend="auto"` is `reference`, the only differentiable one (in colour and disparity), if a gradient is
    requested; otherwise `cpu` for CPU tensors, `triton` on a GPU, and `reference` on a GPU without Triton.
    With TRITON_INTERPRET=1 in the environment it is `triton` for CPU tensors, too.
    `cpu` and `triton` are bit-reproducible; `triton_nondeterministic` adds floats in any order and is faster.

    Raises ValueError for arrays of other types or shapes or with non-finite values, for a negative or
    non-finite exponent, and for an unknown or unavailable backend or border.
    """
    require_images(frames)
    require_plane(disparity, "disparity")
    require_same_size(frames, disparity, "disparity")
    if not 0 <= weight_exponent_per_px <= torch.finfo(torch.float32).max:
        raise ValueError(
            f"weight_exponent_per_px must be finite and at least 0, got {weight_exponent_per_px}"
        )
    if border not in ("clip", "released"):
        raise ValueError(f"border must be clip or released, got {border!r}")
    released = border == "released"
    return Splat(*_run(frames, disparity, backend, released=released, exponent=weight_exponent_per_px))


def exponent_at_width(
    width: int,  # px of the frames
    weight_exponent_per_px: float,  # at a width of 1024 px
) -> float:
    """Scale the weight exponent to a width, so that the depth test is equally strong (ours)."""
    return weight_exponent_per_px * _EXPONENT_WIDTH_PX / width


def _run(
    frames: Tensor,  # [T, 3, H, W], or uint8 [T, H, W, 3]
    disparity: Tensor,  # [T, 1, H, W] px
    backend: str,
    *,
    released: bool,
    exponent: float,
) -> tuple[Tensor, Tensor]:  # warped in the form of the frames, coverage [T, 1, H, W]
    needs_gradient = torch.is_grad_enabled() and (frames.requires_grad or disparity.requires_grad)
    if backend == "auto" and needs_gradient:
        backend = "reference"
    match choose_backend(backend, _BACKENDS, frames, disparity):
        case "reference":
            from secondeye.splat.reference import splat_reference

            return splat_reference(frames, disparity, exponent, released)
        case "cpu":
            from secondeye.splat.cpu import splat_cpu

            return splat_cpu(frames.detach(), disparity.detach(), exponent, released)
        case kernel:
            from secondeye.splat.kernel import splat_triton

            arrays = frames.detach(), disparity.detach()
            return splat_triton(*arrays, exponent, released, deterministic=kernel == "triton")
