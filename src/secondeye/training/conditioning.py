"""What the diffusion network is told of a clip while it learns, just as when it paints.

The first frames of a clip are at times painted already, as they are in all windows of a shot but its first.
The truth takes the place of what would have been painted. It goes through the autoencoder, with noise in its
latents and its colours shifted: else the network would meet its own errors unprepared (StereoCrafter, section
3.4; noise and shift are ours).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from secondeye.inpaint.autoencoder import decode, encode, to_signed
from secondeye.inpaint.conditions import Conditions, clear_holes, latent_mask, time_ids, unconditional
from secondeye.inpaint.diffusion import DECODE_FRAMES
from secondeye.inpaint.image_embedding import embed
from secondeye.inpaint.pipeline import StereoInpaintPipeline
from secondeye.inpaint.sampling import RELEASE_SAMPLING

PAINTED_SHARE = 0.5  # of clips that begin with painted frames
PAINTED_NOISE = 0.1  # largest standard deviation of what is added to scaled latents of painted frames
PAINTED_SHIFT = 0.02  # largest that a painted frame's colour channel is off


class Batch(NamedTuple):
    """Clips as the network meets them: what a sample stacks to."""

    truth: Tensor
    """[B, T, 3, H, W] in [0, 1]."""
    given: Tensor
    """[B, T, 3, H, W] in [0, 1], warped."""
    holes: Tensor
    """[B, T, 1, H, W] float32, how much of a pixel was not seen; at least 0.5 is a hole."""
    left: Tensor
    """[B, T, 3, H, W] in [0, 1], what the first eye saw."""


@torch.no_grad()
def condition(pipeline: StereoInpaintPipeline, batch: Batch) -> tuple[Tensor, Conditions]:
    """The truth's scaled latents [B, T, 4, h, w], and what the network is told."""
    vae = pipeline.vae
    conditions = Conditions(
        encode_clips(vae, batch.given),
        torch.stack([latent_mask(clip, keep_thin_holes=True) for clip in batch.holes]),
        embed(pipeline.image_encoder, batch.given[:, 0])[:, None],
        time_ids(len(batch.truth), RELEASE_SAMPLING, batch.truth.device),
        encode_clips(vae, batch.left) if pipeline.one_step else None,
    )
    return encode_clips(vae, batch.truth) * vae.config.scaling_factor, conditions


@torch.no_grad()
def paint_first(pipeline: StereoInpaintPipeline, batch: Batch) -> Batch:
    """Have some clips begin with painted frames, whose mask is cleared; all numbers are torch's own."""
    clips = [
        _paint_clip(pipeline, *clip, count=_draw_count(len(clip[0]))) for clip in zip(*batch[:3], strict=True)
    ]
    given, holes = (torch.stack(planes) for planes in zip(*clips, strict=True))
    return batch._replace(given=given, holes=holes)


def _draw_count(frames: int) -> int:
    """How many frames of a clip are painted; none half of the time, and never all."""
    begins, count = torch.rand(()), torch.randint(1, frames, ())
    return int(count) if begins < PAINTED_SHARE else 0


def _paint_clip(
    pipeline: StereoInpaintPipeline,
    truth: Tensor,  # [T, 3, H, W] in [0, 1]
    given: Tensor,  # [T, 3, H, W] in [0, 1]
    holes: Tensor,  # [T, 1, H, W]
    *,
    count: int,  # of frames
) -> tuple[Tensor, Tensor]:  # given and holes
    """What was seen stays the warped view's, as when a shot is painted (`inpaint_warped`)."""
    if not count:
        return given, holes
    level, shift = torch.rand(()) * PAINTED_NOISE, (2 * torch.rand(3, 1, 1) - 1) * PAINTED_SHIFT
    latents = encode(pipeline.vae, to_signed(truth[:count])) * pipeline.vae.config.scaling_factor
    latents = latents + level.to(latents.device) * torch.randn_like(latents)
    decoded = decode(pipeline.vae, latents, DECODE_FRAMES) / 2 + 0.5
    painted = (decoded + shift.to(decoded.device)).clamp(0, 1)
    first = torch.lerp(given[:count], painted, holes[:count])
    return torch.cat([first, given[count:]]), clear_holes(holes, count, "cleared")


def drop(
    conditions: Conditions,
    share: float,  # [0, 1] of the clips, drawn by torch
) -> Conditions:
    """Have the network told nothing of some clips, as guidance above 1 asks it at inference."""
    dropped = (torch.rand(len(conditions.mask)) < share).to(conditions.mask.device)

    def mix(told: Tensor | None, nothing: Tensor | None) -> Tensor | None:
        if told is None or nothing is None:
            return None
        return torch.where(dropped.view(-1, *[1] * (told.ndim - 1)), nothing, told)

    return Conditions(*map(mix, conditions, unconditional(conditions)))  # type: ignore[arg-type]


@torch.no_grad()
def encode_clips(
    vae: Any,  # AutoencoderKLTemporalDecoder
    clips: Tensor,  # [B, T, 3, 8 * h, 8 * w] in [0, 1]
) -> Tensor:  # [B, T, 4, h, w], not scaled
    return encode(vae, to_signed(clips.flatten(0, 1))).unflatten(0, clips.shape[:2])
