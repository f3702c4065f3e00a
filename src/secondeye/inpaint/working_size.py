"""The size at which the network works, and the tiles that a frame of that size is cut into.

The network was made for images of a certain area, `sample_size` in its config: the square root of its number
of latents, 96 in Stable Video Diffusion, which is 576 x 1024 px. A frame is reduced no further than its tiles
require, by the same fraction in both directions; the sides are padded to multiples of 64 afterwards.
Rounding the sides to these multiples instead would change the aspect ratio, of 1187 x 497 px by 5 %.
"""

import math
from itertools import product

import torch.nn.functional as F
from torch import Tensor

from secondeye.imaging.arrays import occlusion_mask, resize
from secondeye.inpaint.autoencoder import LATENT_PX
from secondeye.inpaint.tiles import Tile, plan_tiles

SIDE_MULTIPLE_PX = 64  # of padded sides and tiles: the latents are halved three times
TILE_OVERLAP_PX = 64  # half of the release's, since tiles are blended at every step
MAX_TILE_ASPECT = 16 / 9  # as the clips that Stable Video Diffusion was trained on
MIN_COVERAGE = 1e-3  # of a reduced pixel; below, it is black


def image_area_px(sample_size: int) -> int:
    """Return the area of the images that a network was made for, from `sample_size` in its config."""
    return (LATENT_PX * sample_size) ** 2


def working_size(
    height: int,  # px
    width: int,
    rows: int,  # of tiles
    columns: int,
    tile_area_px: int,  # that the network was made for
) -> tuple[int, int]:  # px
    """Return the largest size, up to the frame's own, whose tiles have at most that area before padding."""
    shared = TILE_OVERLAP_PX**2 * (rows - 1) * (columns - 1)
    area = rows * columns * tile_area_px - shared  # of a frame and of what its tiles share in one direction
    borders = TILE_OVERLAP_PX * (height * (columns - 1) + width * (rows - 1))
    scale = (math.sqrt(borders**2 + 4 * height * width * area) - borders) / (2 * height * width)
    # Rounded up, so that the area is never less than the network's; not for a rounding error alone.
    scaled_height, scaled_width = (math.ceil(scale * side - 1e-6) for side in (height, width))
    return min(height, scaled_height), min(width, scaled_width)


def choose_grid(height: int, width: int, tile_area_px: int) -> tuple[int, int] | None:  # rows, columns
    """Return the tiles of a frame at its full size that need the least work: the smallest total area.

    Padded tiles have at most the network's area, and sides as MAX_TILE_ASPECT allows, if that is possible.
    None if the network is made for images so small that its tiles overlap by half or more.
    """
    rows, columns = (2 * math.ceil(side / math.isqrt(tile_area_px)) + 1 for side in (height, width))
    grids = [
        grid
        for grid in product(range(1, rows + 1), range(1, columns + 1))
        if working_size(height, width, *grid, tile_area_px) == (height, width)
    ]
    longest = padded(math.floor(math.sqrt(MAX_TILE_ASPECT * tile_area_px)))

    def work(grid: tuple[int, int]) -> tuple[bool, int, int]:
        tiles = cut_tiles(height, width, *grid)
        sides = [LATENT_PX * side for side in (tiles[0].height, tiles[0].width)]
        too_large = grid != (1, 1) and (max(sides) > longest or sides[0] * sides[1] > tile_area_px)
        return too_large, len(tiles) * sides[0] * sides[1], len(tiles)

    return min(grids, key=work, default=None)


def cut_tiles(
    height: int,  # px, not padded
    width: int,
    rows: int,  # at most
    columns: int,
) -> list[Tile]:  # in latents
    """Return the tiles of a padded frame, row by row; fewer where rounding makes some unnecessary."""
    return plan_tiles(
        padded(height) // LATENT_PX,
        padded(width) // LATENT_PX,
        (rows, columns),
        TILE_OVERLAP_PX // LATENT_PX,
        SIDE_MULTIPLE_PX // LATENT_PX,
    )


def padded(side_px: int) -> int:
    """Return the smallest multiple of SIDE_MULTIPLE_PX that is not below."""
    return side_px + -side_px % SIDE_MULTIPLE_PX


def reduce_warped(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    coverage: Tensor,  # [T, 1, H, W] in [0, 1]
    height: int,
    width: int,
) -> tuple[Tensor, Tensor]:  # [T, 3, height, width] in [0, 1], bool [T, 1, height, width], True is a hole
    """Reduce a warped view and its holes: holes do not darken their surroundings, and thin holes stay."""
    holes = occlusion_mask(coverage)
    if holes.shape[2:] == (height, width):
        return frames, holes
    small_coverage = resize(coverage, height, width)
    small = resize(coverage * frames, height, width) / small_coverage.clamp_min(MIN_COVERAGE)
    return small.clamp(0, 1), F.adaptive_max_pool2d(holes.float(), (height, width)) > 0
