"""The diffusion inpainter: the pipeline walked through a shot of any size and length."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from secondeye.arrays import occlusion_of, require_frames, require_plane, require_same_size, resize
from secondeye.inpaint import Inpainter, Warped
from secondeye.inpaint.pipeline import (
    LATENT_PX,
    SIDE_MULTIPLE_PX,
    Sampling,
    StereoInpaintPipeline,
    decode,
    encode,
    to_signed,
)
from secondeye.inpaint.weights import load_pipeline
from secondeye.refusal import Refusal

STEPS = 8  # the release's
OVERLAP_SHARE = 0.125  # of the frames the network sees at once; the paper's 3 of 25
LEAST_COVERAGE = 1e-3  # of a reduced pixel, below which it is black
SEED = 20240911  # of the noise, the same for each chunk, so that results repeat


class Memory(NamedTuple):
    """What one chunk leaves for the next: its last frames, at the size the network works at."""

    frames: Tensor  # [n, 3, h, w] in [0, 1], whole
    holes: Tensor  # [n, 1, h, w] float32, 1 where they had been painted


def load_diffusion(weights: Path | None, device: str, steps: int = STEPS) -> Inpainter:
    """The pipeline as an Inpainter for shots of any size and length; Refusal where it can not be loaded.

    Sampling is ours: no guidance and thin holes kept. Results repeat; on another device they differ a little.
    """
    if weights is None:
        raise Refusal(
            "the diffusion inpainter needs weights: train it (`dvc repro train_inpaint`) or name a folder"
        )
    pipeline = load_pipeline(weights, device)

    def inpaint(warped: Warped, memory: Memory | None) -> tuple[Tensor, Memory]:
        return inpaint_warped(pipeline, warped, memory, steps)

    return inpaint


def load_round_trip(weights: Path, device: str) -> Callable[[Tensor], Tensor]:
    """The pipeline's autoencoder, there and back: the truth so treated is the best the network can paint.

    Frames [T, 3, H, W] in [0, 1] to the same. Raises Refusal where the weights can not be loaded.
    """
    pipeline = load_pipeline(weights, device)

    @torch.no_grad()
    def round_trip(frames: Tensor) -> Tensor:
        factor = reduction(pipeline, *frames.shape[2:])
        small = resize(frames, *(math.ceil(side / factor) for side in frames.shape[2:]))
        height, width = small.shape[2:]
        padded = F.pad(small, (0, -width % SIDE_MULTIPLE_PX, 0, -height % SIDE_MULTIPLE_PX), mode="replicate")
        latents = encode(pipeline.vae, to_signed(padded).to(device)) * pipeline.vae.config.scaling_factor
        decoded = decode(pipeline.vae, latents, pipeline.unet.config.num_frames)[..., :height, :width]
        return resize((decoded / 2 + 0.5).clamp(0, 1).cpu(), *frames.shape[2:])

    return round_trip


def inpaint_warped(
    pipeline: StereoInpaintPipeline,
    warped: Warped,
    memory: Memory | None,
    steps: int,
) -> tuple[Tensor, Memory]:  # [T, 3, H, W] in [0, 1], whole
    """Paint chunk after chunk, each beginning with the last frames of the one before (paper, section 3.4).

    The network works on no more pixels than it was made for, and what it paints is enlarged. Only what the
    first eye did not see is taken from it, for it blurs and shifts colours: a pixel of coverage 1 stays as it
    was. Raises ValueError for frames or coverage that are not finite float32 of the same size.
    """
    frames, coverage = warped.frames, warped.coverage
    require_frames(frames)
    require_plane(coverage, "coverage")
    require_same_size(frames, coverage, "coverage")
    factor = reduction(pipeline, *frames.shape[2:])
    small, holes = reduce_warped(frames, coverage, factor)
    if memory is None:
        memory = Memory(small[:0], holes[:0])
    chunk_frames = pipeline.unet.config.num_frames
    pictures, start = [], 0
    while start < len(frames):
        part = slice(start, start + max(1, chunk_frames - len(memory.frames)))
        if bool((coverage[part] >= 1).all()):
            whole = frames[part]
        else:
            painted = _paint(pipeline, memory, small[part], holes[part], steps)
            painted = resize(painted, *frames.shape[2:])
            whole = coverage[part] * frames[part] + (1 - coverage[part]) * painted
        pictures.append(whole)
        memory = _remember(memory, resize(whole, *small.shape[2:]), holes[part], overlap_of(pipeline))
        start = part.stop
    return torch.cat(pictures), memory


def reduction(
    pipeline: StereoInpaintPipeline,
    height: int,  # px
    width: int,  # px
) -> int:
    """How many times smaller the network works: its config's sample_size is the root of its latents' number.

    Stable Video Diffusion says 96, which is 576 x 1024 px.
    """
    side_px = LATENT_PX * pipeline.unet.config.sample_size
    return math.ceil(math.sqrt(height * width) / side_px)


def overlap_of(pipeline: StereoInpaintPipeline) -> int:
    """How many frames of one chunk begin the next."""
    return max(1, round(OVERLAP_SHARE * pipeline.unet.config.num_frames))


def reduce_warped(
    frames: Tensor,  # [T, 3, H, W] in [0, 1]
    coverage: Tensor,  # [T, 1, H, W] in [0, 1]
    factor: int,
) -> tuple[Tensor, Tensor]:  # [T, 3, h, w] in [0, 1], [T, 1, h, w] float32, 1 is a hole
    """A warped view at a smaller size: holes darken nothing beside them, and the thinnest hole stays."""
    holes = occlusion_of(coverage).float()
    if factor == 1:
        return frames, holes
    size = [math.ceil(side / factor) for side in frames.shape[2:]]
    share = resize(coverage, *size)
    small = resize(coverage * frames, *size) / share.clamp_min(LEAST_COVERAGE)
    return small.clamp(0, 1), F.adaptive_max_pool2d(holes, size)


def _paint(
    pipeline: StereoInpaintPipeline,
    memory: Memory,
    frames: Tensor,  # [t, 3, h, w]
    holes: Tensor,  # [t, 1, h, w]
    steps: int,
) -> Tensor:  # [t, 3, h, w]
    height, width = frames.shape[2:]
    edges = (0, -width % SIDE_MULTIPLE_PX, 0, -height % SIDE_MULTIPLE_PX)
    given = F.pad(torch.cat([memory.frames, frames]), edges, mode="replicate")
    missing = F.pad(torch.cat([memory.holes, holes]), edges, mode="replicate")
    sampling = Sampling(
        steps=steps, guidance=1.0, noise_share=0.0, keep_thin_holes=True, decode_frames=len(given)
    )
    generator = torch.Generator().manual_seed(SEED)
    painted = pipeline(given, missing, sampling=sampling, generator=generator)
    return painted.frames[len(memory.frames) :, :, :height, :width]


def _remember(memory: Memory, frames: Tensor, holes: Tensor, kept_frames: int) -> Memory:
    frames = frames.nan_to_num()  # what no number is, is for who looks at the pictures to find
    return Memory(
        torch.cat([memory.frames, frames])[-kept_frames:], torch.cat([memory.holes, holes])[-kept_frames:]
    )
