"""Choose the plan of the diffusion inpainter for a frame size and a memory budget.

Where memory is short, these are given up in order: frames that are decoded together, down to the release's 2;
size; window length, by a third; the second of the frames that are decoded together; window length, by another
third. The network was made for its window and its tile, so tiles are as large as those it was made for: more
tiles than the size needs would each see less of the image.

The size is the largest at which the memory suffices for a film of that size. It depends on the memory and on
the aspect ratio only, so that a larger film or more memory never means a smaller size; what the frames of a
larger film take in addition is saved on the windows.
"""

from dataclasses import dataclass
from itertools import product

from secondeye.inpaint.autoencoder import DECODE_FRAMES, LATENT_PX
from secondeye.inpaint.memory import MemoryModel
from secondeye.inpaint.plan import GIB, InpaintPlan
from secondeye.inpaint.working_size import choose_grid, cut_tiles, padded, working_size
from secondeye.system.errors import UserError

RELEASED_DECODE_FRAMES = 2
_SIZE_STEP = 0.9  # between two sizes that are tried, if a network's tiles are too small to cover the first
_PRECISION_BYTES = 2**24  # of the least memory that an error states
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
    plan = _best_plan(height, width, network, tiles, room_bytes)
    if plan is not None:
        return plan
    too_little, enough = max(0, room_bytes), max(1, room_bytes)
    while _best_plan(height, width, network, tiles, enough) is None:
        enough *= 2
    while enough - too_little > _PRECISION_BYTES:
        middle = (too_little + enough) // 2
        if _best_plan(height, width, network, tiles, middle) is None:
            too_little = middle
        else:
            enough = middle
    weights = network.memory.weight_bytes
    raise UserError(
        f"inpainting {width}x{height} by diffusion takes at least {(enough + weights) / GIB:.1f} GiB, and "
        f"{max(0, room_bytes + weights) / GIB:.1f} GiB may be used: allow more memory, close "
        "other programs, or use the light inpainter"
    )


def overlap_of(window_frames: int) -> int:
    """Return how many frames a window shares with the one before."""
    return max(1, round(OVERLAP_SHARE * window_frames))


def _best_plan(
    height: int, width: int, network: Network, tiles: int | None, room_bytes: int
) -> InpaintPlan | None:
    if tiles is not None:
        grid, size = (tiles, tiles), working_size(height, width, tiles, tiles, network.tile_area_px)
    else:
        grid, size = _largest_size(height, width, network, room_bytes)
    longest = network.window_frames
    middle, shortest = (max(min(2, longest), share * longest // 3) for share in (2, 1))
    for windows in (range(longest, middle - 1, -1), range(middle - 1, shortest - 1, -1)):
        for fewest, window_frames in product((RELEASED_DECODE_FRAMES, 1), windows):
            plan = _plan(height, width, network, window_frames, grid, size, room_bytes)
            fits = plan.memory_bytes <= room_bytes + network.memory.weight_bytes
            if fits and plan.decode_frames >= min(fewest, window_frames):
                return plan
    return None


def _largest_size(
    height: int, width: int, network: Network, room_bytes: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return tiles (rows, columns) and the largest size (height, width) for the memory.

    It is at least the size of one tile, and at most the film's.
    """
    smallest = working_size(height, width, 1, 1, network.tile_area_px)
    low, high = smallest[0], height
    while low < high:
        middle = (low + high + 1) // 2
        if _full_bytes(middle, round(middle * width / height), smallest, network) <= room_bytes:
            low = middle
        else:
            high = middle - 1
    while low > smallest[0]:
        size = low, round(low * width / height)
        grid = choose_grid(*size, network.tile_area_px)
        if grid is not None:
            return grid, size
        low = max(smallest[0], round(_SIZE_STEP * low))
    return (1, 1), smallest


def _full_bytes(height: int, width: int, smallest: tuple[int, int], network: Network) -> int:
    """Return what a film of this size takes at its full size, at most; it never falls with the size."""
    memory, working_px = network.memory, padded(height) * padded(width)
    largest = max(network.tile_area_px, padded(smallest[0]) * padded(smallest[1]))
    tile_px = min(working_px, largest)
    decoded = min(RELEASED_DECODE_FRAMES, network.window_frames)
    return memory.window_bytes(network.window_frames, height * width, working_px) + max(
        memory.pass_bytes(network.window_frames, tile_px), decoded * memory.decode_bytes(tile_px, working_px)
    )


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
