"""The soft forward splat of the paper: what a picture's pixels look like from the other eye, holes included.

It makes the dataset and conditions the network, because the released network was trained on it.
The picture the viewer sees comes from `secondeye.warp`, which is sharper.

The backends are functions of one definition: `reference` (plain torch, the truth), `cpu` (numba) and
`kernel` (Triton).
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from secondeye.imaging.arrays import require_images, require_plane, require_same_size
from secondeye.imaging.backends import choose_backend

_BACKENDS = ("reference", "cpu", "triton", "triton_nondeterministic")


class Splat(NamedTuple):
    """The second eye's view, as far as the first eye's pixels reach."""

    warped: Tensor  # in the form and range of the frames given; black where nothing landed
    coverage: Tensor  # [T, 1, H, W] in [0, 1]: the sum of the bilinear weights, not weighted by disparity


_WEIGHTS_AT_WIDTH = 1024  # px; where params.yaml's exponent is meant


def splat(
    frames: Tensor,  # [T, 3, H, W] in [0, 1], or uint8 [T, H, W, 3]: the fast path
    disparity: Tensor,  # [T, 1, H, W] px, any sign and range; larger is nearer
    *,
    backend: Literal["auto", "reference", "cpu", "triton", "triton_nondeterministic"] = "auto",
    border: Literal["clip", "released"] = "clip",
    weight_exponent_per_px: float = 0.5,
) -> Splat:
    """Send every pixel to x - disparity and blend what lands together (arXiv 2409.07447, section 3.2).

    A pixel is shared bilinearly by the two columns beside its landing point, and weighs
    2 ** (weight_exponent_per_px * disparity) against the others that land there: 0.5 is the paper's sqrt(2)
    per px. The weight is in pixels, so the same film at half the width needs twice the exponent.

    `border="clip"` (ours) clips each of the two columns to the frame by itself. `border="released"` drops a
    pixel as the released code does: unless both columns, and the row below, lie inside the frame. It never
    writes the last row and is there for conformance only.

    `backend="auto"` is `reference`, which alone is differentiable (in colour and disparity), where a gradient
    is asked for; else `cpu` for CPU tensors, `triton` on a GPU, or `reference` there without Triton. `cpu`
    and `triton` give the same bits every time; `triton_nondeterministic` adds floats in any order: faster.

    Raises ValueError for arrays that are not finite and of these kinds and shapes, for an exponent that is
    negative or not finite, and for a backend or border that is unknown or can not be had here.
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
    width: int,  # px of the picture
    weight_exponent_per_px: float,  # at 1024 px width
) -> float:
    """The exponent with which the depth test is as strong at this width (ours)."""
    return weight_exponent_per_px * _WEIGHTS_AT_WIDTH / width


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
