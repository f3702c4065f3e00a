"""The plan of the diffusion inpainter for one frame size: windows, working size, tiles and groups."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Self

from secondeye.system.errors import UserError
from secondeye.system.text import pluralize

GIB = 2**30


@dataclass(frozen=True)
class InpaintPlan:
    """How shots of one frame size are inpainted. It can be saved as JSON and reused by a later process."""

    frame_height: int  # px, of the film
    frame_width: int
    height: int  # px, at which the network works: frames are reduced to it and the result is enlarged
    width: int
    tile_rows: int
    tile_columns: int
    tile_height: int  # px, a multiple of 64
    tile_width: int
    window_frames: int  # that the network takes together
    overlap_frames: int  # of them, at least, inpainted by the window before
    steps: int
    decode_frames: int  # decoded together, at most
    dtype: str  # of the network: float32, float16, bfloat16
    memory_bytes: int  # estimate of the peak, weights included

    @property
    def tiles(self) -> int:
        """How many tiles a frame has."""
        return self.tile_rows * self.tile_columns

    @property
    def passes(self) -> int:
        """How often the network runs for a window; fewer where tiles have no holes."""
        return self.steps * self.tiles

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of the frames that the plan is for, px."""
        return self.frame_height, self.frame_width

    def describe(self) -> dict[str, int | str]:
        """Return the plan as a dictionary that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, int | str]) -> Self:
        """Return the plan that `describe` gave. Raises UserError if entries are missing or unknown."""
        names = {field.name for field in fields(cls)}
        if record.keys() != names:
            raise UserError(
                f"the recorded inpainting plan has entries {sorted(record)}, not {sorted(names)}: "
                "it is from another version; start again"
            )
        return cls(**record)  # type: ignore[arg-type]

    def __str__(self) -> str:
        """Return the plan in one line."""
        reduced = "" if (self.height, self.width) == self.frame_size else f" at {self.width}x{self.height}"
        tiles = "tile" if self.tiles == 1 else "tiles"
        return (
            f"diffusion plan: {self.frame_width}x{self.frame_height}{reduced}, "
            f"{self.tile_rows}x{self.tile_columns} {tiles} of {self.tile_width}x{self.tile_height}, "
            f"windows of {pluralize(self.window_frames, 'frame')} that overlap {self.overlap_frames}, "
            f"{pluralize(self.passes, 'pass', 'passes')} a window in {self.dtype}, "
            f"{pluralize(self.decode_frames, 'frame')} decoded together, "
            f"about {self.memory_bytes / GIB:.1f} GiB"
        )
