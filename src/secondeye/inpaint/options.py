"""What a caller may choose about how an inpainter runs."""

from collections.abc import Callable
from dataclasses import dataclass

from secondeye.system.errors import UserError


@dataclass(frozen=True)
class InpaintOptions:
    """How the diffusion inpainter runs; the other inpainters ignore it.

    Raises UserError for counts and sizes below 1.
    """

    steps: int | None = None  # of denoising; None: the network's own
    tiles: int | None = None  # per side; None: as many as the film's size asks for
    memory_bytes: int | None = None  # for all; None: a share of what is free
    compile: bool = False  # compile the network: the first window takes minutes, the others less
    offload: bool = False  # keep only the part that runs on the GPU
    # What the caller takes of the memory besides, by the area of the film's frames; None: nothing.
    reserved_bytes: Callable[[int], int] | None = None
    shots: int = 1  # inpainted window by window, in turn, as both views of a shot are

    def __post_init__(self) -> None:
        for name, value in (
            ("steps", self.steps),
            ("tiles", self.tiles),
            ("memory", self.memory_bytes),
            ("shots", self.shots),
        ):
            if value is not None and value < 1:
                raise UserError(f"{name} must be 1 or more, got {value}")
