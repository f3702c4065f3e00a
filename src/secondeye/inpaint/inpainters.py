"""The inpainters, by name. To add one, write its module, and add its name and its `case` here."""

from pathlib import Path

from secondeye.inpaint.interface import Inpainter
from secondeye.inpaint.options import InpaintOptions

INPAINTERS = ("fill", "propagation", "light", "diffusion")
COMMAND = "command"  # command:PROGRAM ARGUMENTS, a program of the user's; no model may name one


def split_command(inpainter: str) -> tuple[str, str]:
    """Split `command:PROGRAM ARGUMENTS` into both parts; the second one is empty for other inpainters."""
    name, _, command = inpainter.partition(":")
    return (name, command) if name == COMMAND else (inpainter, "")


def require_known_inpainter(inpainter: str) -> None:
    """Raise ValueError unless it is the name of an inpainter, and UserError if its command cannot be run."""
    name, command = split_command(inpainter)
    if name == COMMAND:
        from secondeye.inpaint.command import parse_command

        parse_command(command)
    elif name not in INPAINTERS:
        known = f"{', '.join(INPAINTERS)}, {COMMAND}:PROGRAM"
        raise ValueError(f"inpainter must be one of {known}, got {inpainter!r}")


def hash_program(inpainter: str) -> str:
    """Return the SHA-256 of the files that a command names; "" for other inpainters.

    Raises UserError if the command cannot be run.
    """
    name, command = split_command(inpainter)
    if name != COMMAND:
        return ""
    from secondeye.inpaint.command import hash_named_files

    return hash_named_files(command)


def make_inpainter(
    name: str,  # one of INPAINTERS, or command:PROGRAM ARGUMENTS
    weights: Path | None,  # folder; `light` and `diffusion` need one
    device: str,  # cpu or cuda, of the network; windows may be on any device
    options: InpaintOptions | None = None,  # of `diffusion`; the others run in one way only
) -> Inpainter:
    """Return the inpainter called `name`; `diffusion` is a `PlannedInpainter`.

    Raises ValueError for an unknown name and UserError if its weights cannot be loaded or its command cannot
    be run.
    """
    require_known_inpainter(name)
    match split_command(name):
        case "fill", _:
            from secondeye.inpaint.fill import fill_shot

            return fill_shot
        case "propagation", _:
            from secondeye.inpaint.propagation import Propagation

            return Propagation()
        case "light", _:
            from secondeye.inpaint.light import load_light

            return load_light(weights, device)
        case "diffusion", _:
            from secondeye.inpaint.diffusion import load_diffusion

            return load_diffusion(weights, device, options or InpaintOptions())
        case "command", command:
            from secondeye.inpaint.command import make_command_inpainter

            return make_command_inpainter(command)
    raise AssertionError(name)
