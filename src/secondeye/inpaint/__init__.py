"""Inpainting: fill what the right view shows and the left view does not, by one of several inpainters."""

from pathlib import Path
from typing import Any

from secondeye.inpaint.inpainter import (
    Conditioning,
    Inpainted,
    Inpainter,
    InpainterState,
    PlannedInpainter,
    Warped,
    conditioning_of,
    inpaint_shot,
)
from secondeye.inpaint.options import InpaintOptions
from secondeye.inpaint.plan import InpaintPlan

__all__ = [
    "INPAINTERS",
    "Conditioning",
    "InpaintOptions",
    "InpaintPlan",
    "Inpainted",
    "Inpainter",
    "InpainterState",
    "PlannedInpainter",
    "Warped",
    "conditioning_of",
    "inpaint_shot",
    "make_inpainter",
]

INPAINTERS = ("fill", "light", "diffusion")


def make_inpainter(
    name: str,  # one of INPAINTERS
    weights: Path | None,  # folder; `fill` needs none
    device: str,  # cpu or cuda, of the network; windows may be on any device
    options: InpaintOptions | None = None,  # of `diffusion`; the others run in one way only
) -> Inpainter:
    """Return the inpainter called `name`; `diffusion` is a `PlannedInpainter`.

    Raises ValueError for an unknown name and UserError if its weights cannot be loaded.
    """
    match name:
        case "fill":
            from secondeye.inpaint.fill import fill_shot

            return fill_shot
        case "light":
            from secondeye.inpaint.light import load_light

            return load_light(weights, device)
        case "diffusion":
            from secondeye.inpaint.diffusion import load_diffusion

            return load_diffusion(weights, device, options or InpaintOptions())
    raise ValueError(f"the inpainter must be one of {', '.join(INPAINTERS)}, got {name!r}")


def __getattr__(name: str) -> Any:
    """Import `StereoInpaintPipeline` on first use: diffusers takes seconds to import."""
    if name != "StereoInpaintPipeline":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from secondeye.inpaint.pipeline import StereoInpaintPipeline

    return StereoInpaintPipeline
