"""The conditions of the diffusion network in training, the same as when it inpaints.

When a shot is inpainted, every window but the first begins with frames that are inpainted already. Some
training clips do so too: the unchanged ground truth stands in for the inpainted frames (StereoCrafter,
section 3.3), or passed through the autoencoder, with noise added to its latents and its colours shifted, so
that the network learns to cope with its own errors (ours).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from secondeye.inpaint.autoencoder import DECODE_FRAMES, decode, encode, to_signed
from secondeye.inpaint.conditions import Conditions, clear_holes, latent_mask, time_ids, unconditional
from secondeye.inpaint.image_embedding import embed
from secondeye.inpaint.pipeline import StereoInpaintPipeline
from secondeye.inpaint.sampling_config import RELEASE_SAMPLING
from secondeye.training.mixed_precision import frozen_precision

INPAINTED_SHARE = 0.5  # of clips that begin with inpainted frames
MAX_LATENT_NOISE = 0.1  # standard deviation of the noise on the scaled latents of inpainted frames
MAX_COLOUR_SHIFT = 0.02  # of each colour channel of inpainted frames


class ClipBatch(NamedTuple):
    """A batch of clips, stacked samples of `training.diffusion`."""

    target: Tensor  # [B, T, 3, H, W] in [0, 1], ground truth
    warped: Tensor  # [B, T, 3, H, W] in [0, 1]
    holes: Tensor  # [B, T, 1, H, W] float32, uncovered share of a pixel; a hole from 0.5 on
    left: Tensor  # [B, T, 3, H, W] in [0, 1], left view


@torch.no_grad()
def encode_conditions(
    pipeline: StereoInpaintPipeline,
    batch: ClipBatch,
    precision: str = "float32",  # of the autoencoder and the image encoder: or bfloat16, under autocast
) -> tuple[Tensor, Conditions]:
    """Return the scaled latents of the ground truth [B, T, 4, h, w], and the network's conditions."""
    with frozen_precision(precision, batch.target.device):
        return _encode_conditions(pipeline, batch)


def _encode_conditions(pipeline: StereoInpaintPipeline, batch: ClipBatch) -> tuple[Tensor, Conditions]:
    vae = pipeline.vae
    conditions = Conditions(
        encode_clips(vae, batch.warped),
        torch.stack([latent_mask(clip, keep_thin_holes=True) for clip in batch.holes]),
        embed(pipeline.image_encoder, batch.warped[:, 0])[:, None],
        time_ids(len(batch.target), RELEASE_SAMPLING, batch.target.device),
        encode_clips(vae, batch.left) if pipeline.one_step else None,
    )
    return encode_clips(vae, batch.target) * vae.config.scaling_factor, conditions


@torch.no_grad()
def simulate_inpainted(pipeline: StereoInpaintPipeline, batch: ClipBatch) -> ClipBatch:
    """Let some clips begin with inpainted frames, whose holes are cleared; draws from torch (ours)."""
    clips = [
        _inpaint_first(pipeline, *clip, count=_draw_count(len(clip[0])))
        for clip in zip(*batch[:3], strict=True)
    ]
    warped, holes = (torch.stack(planes) for planes in zip(*clips, strict=True))
    return batch._replace(warped=warped, holes=holes)


def replace_first_frames(batch: ClipBatch) -> ClipBatch:
    """Replace the first n warped frames of each clip by the ground truth and clear their holes.

    n is drawn uniformly from 0 to N frames, by torch (paper, section 3.3).
    """
    frames = batch.target.shape[1]
    counts = torch.randint(0, frames + 1, (len(batch.target),))
    given = (torch.arange(frames) < counts[:, None]).view(-1, frames, 1, 1, 1).to(batch.target.device)
    return batch._replace(
        warped=torch.where(given, batch.target, batch.warped), holes=batch.holes.masked_fill(given, 0)
    )


def _draw_count(frames: int) -> int:
    """Draw how many frames of a clip are inpainted: none half of the time, never all."""
    chance, count = torch.rand(()), torch.randint(1, frames, ())
    return int(count) if chance < INPAINTED_SHARE else 0


def _inpaint_first(
    pipeline: StereoInpaintPipeline,
    target: Tensor,  # [T, 3, H, W] in [0, 1]
    warped: Tensor,  # [T, 3, H, W] in [0, 1]
    holes: Tensor,  # [T, 1, H, W]
    *,
    count: int,  # of frames
) -> tuple[Tensor, Tensor]:  # warped and holes
    """Fill the holes of the first frames; visible pixels stay the warped view's, as in inference."""
    if not count:
        return warped, holes
    noise, shift = torch.rand(()) * MAX_LATENT_NOISE, (2 * torch.rand(3, 1, 1) - 1) * MAX_COLOUR_SHIFT
    latents = encode(pipeline.vae, to_signed(target[:count])) * pipeline.vae.config.scaling_factor
    latents = latents + noise.to(latents.device) * torch.randn_like(latents)
    decoded = decode(pipeline.vae, latents, DECODE_FRAMES) / 2 + 0.5
    inpainted = (decoded + shift.to(decoded.device)).clamp(0, 1)
    # Finished frames are composed with the sharp warp. Conditioned on the splat, the network has the ground
    # truth for it, which the warp is close to, as in the paper.
    seen = target if pipeline.config.conditioning == "splat" else warped
    first = torch.lerp(seen[:count], inpainted, holes[:count])
    return torch.cat([first, warped[count:]]), clear_holes(holes, count, "cleared")


def drop_conditions(
    conditions: Conditions,
    share: float,  # [0, 1] of the clips, drawn by torch
) -> Conditions:
    """Replace the conditions of some clips by the unconditional ones, which guidance above 1 needs."""
    dropped = (torch.rand(len(conditions.mask)) < share).to(conditions.mask.device)

    def mix(given: Tensor | None, null: Tensor | None) -> Tensor | None:
        if given is None or null is None:
            return None
        return torch.where(dropped.view(-1, *[1] * (given.ndim - 1)), null, given)

    return Conditions(*map(mix, conditions, unconditional(conditions)))  # type: ignore[arg-type]


@torch.no_grad()
def encode_clips(
    vae: Any,  # AutoencoderKLTemporalDecoder
    clips: Tensor,  # [B, T, 3, 8 * h, 8 * w] in [0, 1]
) -> Tensor:  # [B, T, 4, h, w], not scaled
    """Encode clips to latents."""
    return encode(vae, to_signed(clips.flatten(0, 1))).unflatten(0, clips.shape[:2])
