"""Inpainting: fill what the right view shows and the left view does not, by one of several inpainters."""

from typing import Any

from secondeye.inpaint.inpainters import (
    COMMAND,
    INPAINTERS,
    hash_program,
    make_inpainter,
    require_known_inpainter,
    split_command,
)
from secondeye.inpaint.interface import (
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
    "COMMAND",
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
    "hash_program",
    "inpaint_shot",
    "make_inpainter",
    "require_known_inpainter",
    "split_command",
]


def __getattr__(name: str) -> Any:
    """Import `StereoInpaintPipeline` on first use: diffusers takes seconds to import."""
    if name != "StereoInpaintPipeline":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from secondeye.inpaint.pipeline import StereoInpaintPipeline

    return StereoInpaintPipeline
