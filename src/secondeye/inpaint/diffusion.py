"""The diffusion inpainter: runs the pipeline over shots of any frame size and length."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from secondeye.imaging.arrays import occlusion_mask, require_frames, require_plane, require_same_size, resize
from secondeye.inpaint.autoencoder import LATENT_PX, decode, encode, to_signed
from secondeye.inpaint.conditions import clear_holes
from secondeye.inpaint.frame_windows import FrameWindow, plan_windows
from secondeye.inpaint.inpainter import Inpainted, InpainterState, Warped, in_form_of
from secondeye.inpaint.options import InpaintOptions
from secondeye.inpaint.pipeline import SIDE_MULTIPLE_PX, StereoInpaintPipeline
from secondeye.inpaint.plan import InpaintPlan
from secondeye.inpaint.sampling import SamplingConfig
from secondeye.inpaint.tiles import plan_tiles
from secondeye.inpaint.weights import load_pipeline
from secondeye.system.errors import UserError

STEPS = 8  # as the release
OVERLAP_SHARE = 0.125  # of a window's frames; 3 of 25 in the paper
TILE_OVERLAP = 8  # latents; half of the release's, since tiles are blended at every step
TILE_SIDE = SIDE_MULTIPLE_PX // LATENT_PX  # latents; a tile's sides are multiples of it
DECODE_FRAMES = 8  # decoded together, at most
MIN_COVERAGE = 1e-3  # of a downscaled pixel; below, it is black
SEED = 20240911  # of the noise, the same for every window, so that results are reproducible


class DiffusionState(NamedTuple):
    """The last frames of a window, at the network's working size: the overlap of the next one."""

    frames: Tensor  # [n, 3, h, w] in [0, 1], inpainted
    holes: Tensor  # [n, 1, h, w] float32, 1 where a pixel was inpainted
    left: Tensor  # [n, 3, h, w] in [0, 1], the left view


@dataclass
class InpaintStats:
    """How many windows and tiles there were, and how many had no hole and were skipped."""

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
    """An Inpainter that runs a pipeline and counts what it skips."""

    def __init__(self, pipeline: StereoInpaintPipeline, steps: int, tiles: int, seed: int) -> None:
        self.pipeline, self.steps, self.tiles, self.seed = pipeline, steps, tiles, seed
        self.stats = InpaintStats()
        self._plans: dict[tuple[int, int], InpaintPlan] = {}

    def plan(self, height: int, width: int) -> InpaintPlan:
        """Return the plan for frames of this size, px: the one in use, or a new one."""
        if (height, width) not in self._plans:
            self._plans[height, width] = self._choose_plan(height, width)
        return self._plans[height, width]

    def reuse(self, plan: InpaintPlan) -> None:
        """Use this plan for frames of its size; UserError if the network works in another precision."""
        if plan.dtype != self._dtype:
            raise UserError(
                f"the recorded plan is for a network in {plan.dtype}, this one is in {self._dtype}: "
                "continue on the same kind of device, or start again"
            )
        self._plans[plan.frame_size] = plan

    @property
    def _dtype(self) -> str:
        return str(self.pipeline.unet.dtype).removeprefix("torch.")

    @property
    def _weight_bytes(self) -> int:
        parts = (self.pipeline.unet, self.pipeline.vae, self.pipeline.image_encoder)
        return sum(weight.nbytes for part in parts for weight in part.parameters())

    def _choose_plan(self, height: int, width: int) -> InpaintPlan:
        factor = downscale_factor(self.pipeline, height, width, self.tiles)
        small_height, small_width = (math.ceil(side / factor) for side in (height, width))
        rows, columns = (-(-side // SIDE_MULTIPLE_PX) * TILE_SIDE for side in (small_height, small_width))
        tiles = plan_tiles(rows, columns, self.tiles, TILE_OVERLAP, TILE_SIDE)
        tops = len({tile.top for tile in tiles})
        return InpaintPlan(
            height,
            width,
            small_height,
            small_width,
            tops,
            len(tiles) // tops,
            LATENT_PX * tiles[0].height,
            LATENT_PX * tiles[0].width,
            self.pipeline.unet.config.num_frames,
            window_overlap(self.pipeline),
            1 if self.pipeline.one_step else self.steps,
            DECODE_FRAMES,
            self._dtype,
            self._weight_bytes,
        )

    def __call__(self, windows: Iterable[Warped], state: InpainterState | None = None) -> Iterator[Inpainted]:
        carried = None if state is None else DiffusionState(**state)
        for warped in windows:
            frames, carried = inpaint_warped(
                self.pipeline,
                warped.as_floats(),
                carried,
                self.steps,
                tiles=self.tiles,
                seed=self.seed,
                stats=self.stats,
            )
            yield Inpainted(in_form_of(warped.frames, frames), carried._asdict())


def load_diffusion(weights: Path | None, device: str, options: InpaintOptions, seed: int = SEED) -> Diffusion:
    """Load the pipeline as an Inpainter; UserError if it cannot be loaded.

    Unlike the release it samples without guidance and keeps thin holes. Results are reproducible on one
    device and differ slightly between devices.
    """
    if weights is None:
        raise UserError(
            "the diffusion inpainter needs weights: train it (`dvc repro train_inpaint`) or name a folder"
        )
    return Diffusion(load_pipeline(weights, device), options.steps or STEPS, options.tiles or 1, seed)


def load_vae_round_trip(weights: Path, device: str) -> Callable[[Tensor], Tensor]:
    """Load a function that encodes and decodes frames [T, 3, H, W] in [0, 1].

    Applied to the ground truth it gives the best result the network can reach. Raises UserError if the
    weights cannot be loaded.
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
    steps: int,  # 1 for a one-step network
    *,
    tiles: int = 1,  # per side
    seed: int = SEED,
    stats: InpaintStats | None = None,  # incremented
) -> tuple[Tensor, DiffusionState]:  # [T, 3, H, W] in [0, 1]
    """Inpaint window by window, each overlapping the last frames of the one before (paper, section 3.4).

    The network works at the largest size it was trained for, and its result is enlarged. It is used only
    where coverage is below 1, since the network blurs and shifts colours; the frames that the next window
    overlaps are composed in the same way. Raises ValueError unless frames and coverage are finite
    float32 of the same size.
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
    overlap_frames, result = window_overlap(pipeline), []
    for window in plan_windows(len(shot.frames), pipeline.unet.config.num_frames, overlap_frames, before):
        new = slice(window.first_new - before, window.stop - before)
        inpainted = _inpaint_window(pipeline, shot, window, steps, tiles, seed, stats or InpaintStats())
        if inpainted is None:
            result.append(frames[new])
        else:
            inpainted = resize(inpainted, height, width)
            result.append(coverage[new] * frames[new] + (1 - coverage[new]) * inpainted)
        # Zero NaNs so that they do not reach the next window; callers check the output.
        shot.frames[window.first_new : window.stop] = resize(result[-1], *size).nan_to_num()
    return torch.cat(result), DiffusionState(*(plane[-overlap_frames:].clone() for plane in shot))


def downscale_factor(
    pipeline: StereoInpaintPipeline,
    height: int,  # px
    width: int,  # px
    tiles: int = 1,  # per side
) -> int:
    """Return the smallest factor at which a tile has no more pixels than the network was trained for.

    sample_size in the network's config is the square root of the number of latents; Stable Video Diffusion's
    is 96, which is 576 x 1024 px.
    """
    factor, side_px = 1, LATENT_PX * pipeline.unet.config.sample_size
    overlap_px = (tiles - 1) * TILE_OVERLAP * LATENT_PX
    while (height + factor * overlap_px) * (width + factor * overlap_px) > (factor * tiles * side_px) ** 2:
        factor += 1
    return factor


def window_overlap(pipeline: StereoInpaintPipeline) -> int:
    """Return how many frames a window shares with the one before."""
    return max(1, round(OVERLAP_SHARE * pipeline.unet.config.num_frames))


def downscale_warped(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    coverage: Tensor,  # [T, 1, H, W] in [0, 1]
    factor: int,
) -> tuple[Tensor, Tensor]:  # [T, 3, h, w] in [0, 1], [T, 1, h, w] float32, 1 is a hole
    """Downscale a warped view and its mask: holes do not darken their surroundings, thin holes stay."""
    holes = occlusion_mask(coverage).float()
    if factor == 1:
        return frames, holes
    size = [math.ceil(side / factor) for side in frames.shape[2:]]
    small_coverage = resize(coverage, *size)
    small = resize(coverage * frames, *size) / small_coverage.clamp_min(MIN_COVERAGE)
    return small.clamp(0, 1), F.adaptive_max_pool2d(holes, size)


def _inpaint_window(
    pipeline: StereoInpaintPipeline,
    shot: DiffusionState,  # n frames; inpainted before window.first_new
    window: FrameWindow,
    steps: int,
    tiles: int,
    seed: int,
    stats: InpaintStats,
) -> Tensor | None:  # [t, 3, h, w] of the window's new frames; None if they have no hole
    overlap, part = window.first_new - window.start, slice(window.start, window.stop)
    height, width = shot.frames.shape[2:]
    padding = (0, -width % SIDE_MULTIPLE_PX, 0, -height % SIDE_MULTIPLE_PX)
    frames, holes, left = (F.pad(plane[part], padding, mode="replicate") for plane in shot)
    rows, columns = (side // LATENT_PX for side in frames.shape[2:])
    plan = plan_tiles(rows, columns, tiles, TILE_OVERLAP, TILE_SIDE)
    tiles_with_holes = [tile for tile in plan if tile.scaled(LATENT_PX).crop(holes[overlap:]).any()]
    stats.windows += 1
    stats.tiles += len(plan)
    stats.tiles_skipped += len(plan) - len(tiles_with_holes)
    if not tiles_with_holes:
        stats.windows_skipped += 1
        return None
    sampling = SamplingConfig(
        steps=steps, guidance=1.0, noise_share=0.0, keep_thin_holes=True, decode_frames=DECODE_FRAMES
    )
    output = pipeline(
        frames,
        clear_holes(holes, overlap, pipeline.config.overlap_mask),
        sampling=sampling,
        left=left if pipeline.one_step else None,
        generator=torch.Generator().manual_seed(seed),
        tiles=tiles_with_holes if len(plan) > 1 else None,
    )
    return output.frames[overlap:, :, :height, :width]
