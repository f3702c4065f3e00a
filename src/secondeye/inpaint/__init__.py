"""Painting what the second eye sees and the first did not, by one of several inpainters behind one type."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor


class Warped(NamedTuple):
    """Consecutive frames of one shot as they are before their holes are filled."""

    left: Tensor
    """[T, 3, H, W] in [0, 1]: what the first eye saw."""
    frames: Tensor
    """[T, 3, H, W] in [0, 1]: the second eye's view; black where coverage is 0."""
    coverage: Tensor
    """[T, 1, H, W] in [0, 1]: how much of each pixel the first eye saw."""
    disparity: Tensor
    """[T, 1, H, W] px, of the second eye's view; ignored where coverage is 0."""


Inpainter = Callable[[Warped, Any], tuple[Tensor, Any]]
"""Consecutive frames of one shot, and what the frames before them left (None at the shot's start) -> whole
pictures [T, 3, H, W] in [0, 1], and what they leave, which only the same inpainter reads. A pixel of coverage
1 comes back as it was."""

INPAINTERS = ("fill", "light", "diffusion")


def make_inpainter(
    name: str,  # one of INPAINTERS
    weights: Path | None,  # their folder; `fill` needs none
    device: str,  # cpu or cuda; pictures come and go on the CPU
) -> Inpainter:
    """Return the inpainter called `name`; ValueError for another name, Refusal where its weights are not."""
    match name:
        case "fill":
            from secondeye.inpaint.fill import fill_warped

            return fill_warped
        case "light":
            from secondeye.inpaint.light import load_light

            return load_light(weights, device)
        case "diffusion":
            from secondeye.inpaint.diffusion import load_diffusion

            return load_diffusion(weights, device)
    raise ValueError(f"the inpainter must be one of {', '.join(INPAINTERS)}, got {name!r}")


def __getattr__(name: str) -> Any:
    """`StereoInpaintPipeline`, which costs seconds to import, for who asks for it."""
    if name != "StereoInpaintPipeline":
        raise AttributeError(f"{__name__} has no {name}")
    from secondeye.inpaint.pipeline import StereoInpaintPipeline

    return StereoInpaintPipeline
