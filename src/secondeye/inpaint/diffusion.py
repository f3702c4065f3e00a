"""The diffusion inpainter: the pipeline walked through a shot of any size and length."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from secondeye.imaging.arrays import occlusion_mask, require_frames, require_plane, require_same_size, resize
from secondeye.inpaint import Warped
from secondeye.inpaint.autoencoder import LATENT_PX, decode, encode, to_signed
from secondeye.inpaint.frame_windows import FrameWindow, plan_windows
from secondeye.inpaint.pipeline import SIDE_MULTIPLE_PX, StereoInpaintPipeline, clear_holes
from secondeye.inpaint.sampling import SamplingConfig
from secondeye.inpaint.tiles import plan_tiles
from secondeye.inpaint.weights import load_pipeline
from secondeye.system.errors import UserError

STEPS = 8  # the release's
OVERLAP_SHARE = 0.125  # of the frames the network sees at once; the paper's 3 of 25
TILE_OVERLAP = 8  # latents; tiles agree at every step, so half of the release's will do
TILE_SIDE = SIDE_MULTIPLE_PX // LATENT_PX  # latents; a tile's sides are multiples of it
DECODE_FRAMES = 8  # of a group, at most
LEAST_COVERAGE = 1e-3  # of a reduced pixel, below which it is black
SEED = 20240911  # of the noise, the same for each window, so that results repeat


class DiffusionState(NamedTuple):
    """What one call leaves for the next: its last frames, at the size the network works at."""

    frames: Tensor  # [n, 3, h, w] in [0, 1], whole
    holes: Tensor  # [n, 1, h, w] float32, 1 where they had been painted
    left: Tensor  # [n, 3, h, w] in [0, 1], what the first eye saw of them


@dataclass
class InpaintStats:
    """What was painted, and what had no hole and cost nothing; tiles are those of all windows."""

    windows: int = 0
    windows_skipped: int = 0
    tiles: int = 0
    tiles_skipped: int = 0

    def __str__(self) -> str:
        shares = [
            f"{skipped} of {count} {name} ({100 * skipped / max(count, 1):.0f} %)"
            for name, skipped, count in (
                ("windows", self.windows_skipped, self.windows),
                ("tiles", self.tiles_skipped, self.tiles),
            )
        ]
        return f"diffusion: {' and '.join(shares)} had no hole and were skipped"


class Diffusion:
    """The pipeline as an Inpainter for shots of any size and length, and what it has done so far."""

    def __init__(self, pipeline: StereoInpaintPipeline, steps: int, tiles: int, seed: int) -> None:
        self.pipeline, self.steps, self.tiles, self.seed = pipeline, steps, tiles, seed
        self.stats = InpaintStats()

    def __call__(self, warped: Warped, state: DiffusionState | None) -> tuple[Tensor, DiffusionState]:
        return inpaint_warped(
            self.pipeline, warped, state, self.steps, tiles=self.tiles, seed=self.seed, stats=self.stats
        )


def load_diffusion(
    weights: Path | None, device: str, steps: int = STEPS, tiles: int = 1, seed: int = SEED
) -> Diffusion:
    """The pipeline as an Inpainter; Refusal where it can not be loaded.

    Sampling is ours: no guidance and thin holes kept. Results repeat; on another device they differ a little.
    More `tiles` to a side paint more pixels at a time, in as much memory.
    """
    if weights is None:
        raise UserError(
            "the diffusion inpainter needs weights: train it (`dvc repro train_inpaint`) or name a folder"
        )
    return Diffusion(load_pipeline(weights, device), steps, tiles, seed)


def load_vae_round_trip(weights: Path, device: str) -> Callable[[Tensor], Tensor]:
    """The pipeline's autoencoder, there and back: the truth so treated is the best the network can paint.

    Frames [T, 3, H, W] in [0, 1] to the same. Raises Refusal where the weights can not be loaded.
    """
    pipeline = load_pipeline(weights, device)

    @torch.no_grad()
    def round_trip(frames: Tensor) -> Tensor:
        factor = downscale_factor(pipeline, *frames.shape[2:])
        small = resize(frames, *(math.ceil(side / factor) for side in frames.shape[2:]))
        height, width = small.shape[2:]
        padded = F.pad(small, (0, -width % SIDE_MULTIPLE_PX, 0, -height % SIDE_MULTIPLE_PX), mode="replicate")
        latents = encode(pipeline.vae, to_signed(padded).to(device)) * pipeline.vae.config.scaling_factor
        decoded = decode(pipeline.vae, latents, DECODE_FRAMES)[..., :height, :width]
        return resize((decoded / 2 + 0.5).clamp(0, 1).cpu(), *frames.shape[2:])

    return round_trip


def inpaint_warped(
    pipeline: StereoInpaintPipeline,
    warped: Warped,
    state: DiffusionState | None,
    steps: int,  # a one-step network takes one
    *,
    tiles: int = 1,  # to a side
    seed: int = SEED,
    stats: InpaintStats | None = None,  # counted up
) -> tuple[Tensor, DiffusionState]:  # [T, 3, H, W] in [0, 1], whole
    """Paint window after window, each beginning with the last frames of the one before (paper, section 3.4).

    The network works on no more pixels than it was made for, and what it paints is enlarged. Only what the
    first eye did not see is taken from it, for it blurs and shifts colours: a pixel of coverage 1 stays as it
    was, in the frames that the next window begins with too. Raises ValueError for frames or coverage that are
    not finite float32 of the same size.
    """
    frames, coverage = warped.frames, warped.coverage
    require_frames(frames)
    require_same_size(frames, warped.left, "left")
    require_frames(warped.left)
    require_plane(coverage, "coverage")
    require_same_size(frames, coverage, "coverage")
    height, width = frames.shape[2:]
    small, holes = downscale_warped(frames, coverage, downscale_factor(pipeline, height, width, tiles))
    size = small.shape[2:]
    shot = DiffusionState(small, holes, resize(warped.left, *size))
    state = state or DiffusionState(*(plane[:0] for plane in shot))
    before = len(state.frames)
    shot = DiffusionState(*(torch.cat(planes) for planes in zip(state, shot, strict=True)))
    overlap_frames, whole = window_overlap(pipeline), []
    for window in plan_windows(len(shot.frames), pipeline.unet.config.num_frames, overlap_frames, before):
        new = slice(window.first - before, window.stop - before)
        painted = _inpaint(pipeline, shot, window, steps, tiles, seed, stats or InpaintStats())
        if painted is None:
            whole.append(frames[new])
        else:
            painted = resize(painted, height, width)
            whole.append(coverage[new] * frames[new] + (1 - coverage[new]) * painted)
        # What no number is, is for who looks at the pictures to find.
        shot.frames[window.first : window.stop] = resize(whole[-1], *size).nan_to_num()
    return torch.cat(whole), DiffusionState(*(plane[-overlap_frames:].clone() for plane in shot))


def downscale_factor(
    pipeline: StereoInpaintPipeline,
    height: int,  # px
    width: int,  # px
    tiles: int = 1,  # to a side
) -> int:
    """How many times smaller the network works, so that a tile has no more pixels than it was made for.

    Its config's sample_size is the root of the number of its latents. Stable Video Diffusion says 96, which
    is 576 x 1024 px.
    """
    factor, side_px = 1, LATENT_PX * pipeline.unet.config.sample_size
    shared = (tiles - 1) * TILE_OVERLAP * LATENT_PX
    while (height + factor * shared) * (width + factor * shared) > (factor * tiles * side_px) ** 2:
        factor += 1
    return factor


def window_overlap(pipeline: StereoInpaintPipeline) -> int:
    """How many frames of one chunk begin the next."""
    return max(1, round(OVERLAP_SHARE * pipeline.unet.config.num_frames))


def downscale_warped(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    coverage: Tensor,  # [T, 1, H, W] in [0, 1]
    factor: int,
) -> tuple[Tensor, Tensor]:  # [T, 3, h, w] in [0, 1], [T, 1, h, w] float32, 1 is a hole
    """A warped view at a smaller size: holes darken nothing beside them, and the thinnest hole stays."""
    holes = occlusion_mask(coverage).float()
    if factor == 1:
        return frames, holes
    size = [math.ceil(side / factor) for side in frames.shape[2:]]
    share = resize(coverage, *size)
    small = resize(coverage * frames, *size) / share.clamp_min(LEAST_COVERAGE)
    return small.clamp(0, 1), F.adaptive_max_pool2d(holes, size)


def _inpaint(
    pipeline: StereoInpaintPipeline,
    shot: DiffusionState,  # n frames; whole before window.first
    window: FrameWindow,
    steps: int,
    tiles: int,
    seed: int,
    stats: InpaintStats,
) -> Tensor | None:  # [t, 3, h, w] of the window's new frames; None where they have no hole
    painted_frames, seen = window.first - window.start, slice(window.start, window.stop)
    height, width = shot.frames.shape[2:]
    edges = (0, -width % SIDE_MULTIPLE_PX, 0, -height % SIDE_MULTIPLE_PX)
    given, missing, left = (F.pad(plane[seen], edges, mode="replicate") for plane in shot)
    tall, wide = (side // LATENT_PX for side in given.shape[2:])
    plan = plan_tiles(tall, wide, tiles, TILE_OVERLAP, TILE_SIDE)
    open_tiles = [tile for tile in plan if tile.times(LATENT_PX).cut(missing[painted_frames:]).any()]
    stats.windows += 1
    stats.tiles += len(plan)
    stats.tiles_skipped += len(plan) - len(open_tiles)
    if not open_tiles:
        stats.windows_skipped += 1
        return None
    sampling = SamplingConfig(
        steps=steps, guidance=1.0, noise_share=0.0, keep_thin_holes=True, decode_frames=DECODE_FRAMES
    )
    painted = pipeline(
        given,
        clear_holes(missing, painted_frames, pipeline.config.overlap_mask),
        sampling=sampling,
        left=left if pipeline.one_step else None,
        generator=torch.Generator().manual_seed(seed),
        tiles=open_tiles if len(plan) > 1 else None,
    )
    return painted.frames[painted_frames:, :, :height, :width]
