"""The inpainters, by name. To add one, write its module, and add its name and its `case` here."""

from pathlib import Path

from secondeye.inpaint.interface import Inpainter
from secondeye.inpaint.options import InpaintOptions

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
