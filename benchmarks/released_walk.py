"""The released code's inpainting of a film: its windows, tiles and seams, as a baseline.

docs/inpainting.md says what secondeye does differently and why.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from secondeye.inpaint.autoencoder import LATENT_PX, decode
from secondeye.inpaint.pipeline import StereoInpaintPipeline
from secondeye.inpaint.sampling_config import RELEASE_SAMPLING, SamplingConfig
from secondeye.inpaint.tiles import Tile

CHUNK_FRAMES = 23
OVERLAP_FRAMES = 3
SIDE_MULTIPLE_PX = 128  # frames are cropped to a multiple of it
TILE_OVERLAP_PX = 128


class Chunk(NamedTuple):
    """Frames inpainted together; the first `overlap` of them are replaced by frames inpainted before."""

    step: int  # the release's loop variable
    start: int
    overlap: int
    length: int


def plan_chunks(frames: int, chunk_frames: int = CHUNK_FRAMES, overlap: int = OVERLAP_FRAMES) -> list[Chunk]:
    """Return the release's chunks with its short last one. Raises ValueError if it would produce nothing."""
    if not 0 <= overlap < min(chunk_frames, frames):
        raise ValueError(f"the release needs more than {overlap} frames, got {frames}")
    plan = []
    for step in range(0, frames - overlap, chunk_frames - overlap):
        if step == 0:
            plan.append(Chunk(0, 0, 0, min(chunk_frames, frames)))
        elif step + chunk_frames <= frames:
            plan.append(Chunk(step, step, overlap, chunk_frames))
        else:
            start = max(frames + overlap - chunk_frames, 0)
            plan.append(Chunk(step, start, step - start + overlap, frames - start))
    return plan


def plan_tiles(
    height: int,  # px
    width: int,  # px
    tiles_per_side: int,
    overlap: int = TILE_OVERLAP_PX,
) -> list[list[Tile]]:  # rows of tiles, px
    """Return the release's tiles. Raises ValueError if they would not be whole latents."""
    tall, wide = ((side + overlap * (tiles_per_side - 1)) / tiles_per_side for side in (height, width))
    if tall % LATENT_PX or wide % LATENT_PX or (tiles_per_side > 1 and min(tall, wide) < overlap):
        raise ValueError(f"the release cannot cut {height}x{width} px into {tiles_per_side} tiles a side")
    down, along = int(tall) - overlap, int(wide) - overlap
    return [
        [Tile(i * down, j * along, int(tall), int(wide)) for j in range(tiles_per_side)]
        for i in range(tiles_per_side)
    ]


def blend(
    rows: Sequence[Sequence[Tensor]],  # [..., h, w] of each tile
    overlap: int,  # of neighbours, in the unit of the tiles
) -> Tensor:  # [..., H, W]
    """Blend each tile with the one above and then with the one to its left, both blended already."""
    blended: list[list[Tensor]] = []
    for tiles in rows:
        line: list[Tensor] = []
        for j, tile in enumerate(tiles):
            below = _fade(blended[-1][j], tile, overlap, -2) if blended else tile
            line.append(_fade(line[-1], below, overlap, -1) if line else below)
        blended.append(line)
    # Drop from each tile what the next one starts with, along both axes.
    lines = [torch.cat([*(t[..., :-overlap] for t in line[:-1]), line[-1]], dim=-1) for line in blended]
    return torch.cat([*(line[..., :-overlap, :] for line in lines[:-1]), lines[-1]], dim=-2)


def _fade(before: Tensor, after: Tensor, overlap: int, axis: int) -> Tensor:
    """Return `after` with its first lines blended linearly with the last of `before`; shares are 0 to < 1."""
    share = torch.arange(overlap, device=after.device, dtype=after.dtype) / overlap
    share = share.view(-1, 1) if axis == -2 else share
    ending = before.narrow(axis, before.shape[axis] - overlap, overlap)
    mixed = (1 - share) * ending + share * after.narrow(axis, 0, overlap)
    return torch.cat([mixed, after.narrow(axis, overlap, after.shape[axis] - overlap)], dim=axis)


@torch.no_grad()
def inpaint_chunk(
    pipeline: StereoInpaintPipeline,
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    holes: Tensor,  # [T, 1, H, W]
    *,
    generator: torch.Generator,
    sampling: SamplingConfig = RELEASE_SAMPLING,
    tiles_per_side: int = 1,
) -> tuple[Tensor, Tensor]:  # [T, 4, H/8, W/8] float32 scaled latents; [T, 3, H, W] in [0, 1]
    """Inpaint a chunk as the release does: sample each tile alone, blend latents, decode the whole."""
    height, width = frames.shape[2:]
    rows = [
        [
            pipeline.sample_latents(
                tile.crop(frames), tile.crop(holes), sampling=sampling, generator=generator
            )
            for tile in row
        ]
        for row in plan_tiles(height, width, tiles_per_side)
    ]
    latents = blend(rows, TILE_OVERLAP_PX // LATENT_PX)
    decoded = decode(pipeline.vae, latents, sampling.decode_frames, sampling.even_groups)
    pipeline.maybe_free_model_hooks()
    return latents.cpu(), (decoded / 2 + 0.5).clamp(0, 1).cpu()


def inpaint_film(
    pipeline: StereoInpaintPipeline,
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    holes: Tensor,  # [T, 1, H, W]
    *,
    generator: torch.Generator,
    sampling: SamplingConfig = RELEASE_SAMPLING,
    tiles_per_side: int = 1,
    chunk_frames: int = CHUNK_FRAMES,
    overlap: int = OVERLAP_FRAMES,
) -> Tensor:  # [T, 3, H // 128 * 128, W // 128 * 128] in [0, 1], whole levels of 255
    """Inpaint a film as the release does: chunks overlap decoded frames, with the masks they had."""
    height, width = (side // SIDE_MULTIPLE_PX * SIDE_MULTIPLE_PX for side in frames.shape[2:])
    if 0 in (height, width):
        raise ValueError(f"the release crops to multiples of {SIDE_MULTIPLE_PX} px, got {list(frames.shape)}")
    frames, holes = frames[..., :height, :width], holes[..., :height, :width]
    done = frames[:0]
    for chunk in plan_chunks(len(frames), chunk_frames, overlap):
        part = slice(chunk.start, chunk.start + chunk.length)
        given = torch.cat([done[len(done) - chunk.overlap :], frames[part][chunk.overlap :]])
        _, inpainted = inpaint_chunk(
            pipeline,
            given,
            holes[part],
            generator=generator,
            sampling=sampling,
            tiles_per_side=tiles_per_side,
        )
        done = torch.cat([done, (inpainted[chunk.overlap :] * 255).round() / 255])
    return done
