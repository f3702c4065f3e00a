"""Choose the plan of the diffusion inpainter for a frame size and a memory budget.

Where memory is short, these are given up in order: frames that are decoded together, down to the release's 2;
size; the second of these frames; window length. The network was made for its window and its tile, so tiles
are as large as those it was made for: more tiles than the size needs would each see less of the image.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from secondeye.inpaint.autoencoder import DECODE_FRAMES, LATENT_PX
from secondeye.inpaint.memory import MemoryModel
from secondeye.inpaint.plan import GIB, InpaintPlan
from secondeye.inpaint.working_size import choose_grid, cut_tiles, padded, working_size
from secondeye.system.errors import UserError

RELEASED_DECODE_FRAMES = 2
SIZE_STEP = 0.9  # between two sizes that are tried
WINDOW_STEP = 2 / 3  # between two window lengths that are tried
OVERLAP_SHARE = 0.125  # of a window's frames; 3 of 25 in the paper


@dataclass(frozen=True)
class Network:
    """What a plan must know of the network."""

    window_frames: int  # that it was made for
    tile_area_px: int  # of the images that it was made for
    steps: int
    dtype: str
    memory: MemoryModel


def choose_plan(
    height: int,  # px
    width: int,
    network: Network,
    tiles: int | None,  # per side; None: as many as the size needs
    room_bytes: int,  # for all but the weights
) -> InpaintPlan:
    """Return the best plan that fits. Raises UserError if none does."""
    least_bytes = None
    sizes = list(_sizes(height, width, network.tile_area_px, tiles))
    for window_frames, fewest in product(_windows(network.window_frames), (RELEASED_DECODE_FRAMES, 1)):
        for grid, size in sizes:
            plan = _plan(height, width, network, window_frames, grid, size, room_bytes)
            least_bytes = min(plan.memory_bytes, least_bytes or plan.memory_bytes)
            fits = plan.memory_bytes <= room_bytes + network.memory.weight_bytes
            if fits and plan.decode_frames >= min(fewest, window_frames):
                return plan
    assert least_bytes is not None
    raise UserError(
        f"inpainting {width}x{height} by diffusion takes at least {least_bytes / GIB:.1f} GiB, and "
        f"{(room_bytes + network.memory.weight_bytes) / GIB:.1f} GiB may be used: allow more memory, close "
        "other programs, or use the light inpainter"
    )


def overlap_of(window_frames: int) -> int:
    """Return how many frames a window shares with the one before."""
    return max(1, round(OVERLAP_SHARE * window_frames))


def _windows(window_frames: int) -> Iterator[int]:
    """Yield the network's window and shorter ones, down to a third."""
    shortest = max(2, window_frames // 3)
    yield window_frames
    while (window_frames := round(WINDOW_STEP * window_frames)) >= shortest:
        yield window_frames


def _sizes(
    height: int, width: int, tile_area_px: int, tiles: int | None
) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield tiles (rows, columns) with the size (height, width) that they work at, the largest first."""
    if tiles is not None:
        yield (tiles, tiles), working_size(height, width, tiles, tiles, tile_area_px)
        return
    smallest, scale = working_size(height, width, 1, 1, tile_area_px), 1.0
    while scale * height > smallest[0] and scale * width > smallest[1]:
        size = round(scale * height), round(scale * width)
        grid = choose_grid(*size, tile_area_px)
        if grid is not None:
            yield grid, size
        scale *= SIZE_STEP
    yield (1, 1), smallest


def _plan(
    height: int,
    width: int,
    network: Network,
    window_frames: int,
    grid: tuple[int, int],
    size: tuple[int, int],
    room_bytes: int,
) -> InpaintPlan:
    """Return a plan that decodes as many frames together as there is room for, at least one."""
    cut, memory = cut_tiles(*size, *grid), network.memory
    tile_height, tile_width = (LATENT_PX * side for side in (cut[0].height, cut[0].width))
    tile_px, working_px = tile_height * tile_width, padded(size[0]) * padded(size[1])
    window_bytes = memory.window_bytes(window_frames, height * width, working_px)
    group_bytes = memory.decode_bytes(tile_px, working_px)
    decode_frames = min(DECODE_FRAMES, window_frames, max(1, (room_bytes - window_bytes) // group_bytes))
    peak_bytes = max(memory.pass_bytes(window_frames, tile_px), decode_frames * group_bytes)
    rows = len({tile.top for tile in cut})
    return InpaintPlan(
        frame_height=height,
        frame_width=width,
        height=size[0],
        width=size[1],
        tile_rows=rows,
        tile_columns=len(cut) // rows,
        tile_height=tile_height,
        tile_width=tile_width,
        window_frames=window_frames,
        overlap_frames=overlap_of(network.window_frames),
        steps=network.steps,
        decode_frames=decode_frames,
        dtype=network.dtype,
        memory_bytes=memory.weight_bytes + window_bytes + peak_bytes,
    )
