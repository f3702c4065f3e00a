"""Degradations of a right view, and the scores that detect each.

    python tests/sabotage.py

prints the table of docs/metrics.md. Each row degrades a good right view (the left view warped by its exact
disparity, with filled holes) in one way and shows the scores that detect it, before and after.
"""

import math
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from secondeye.evaluation.columns import COLUMNS
from secondeye.evaluation.eval_clips import EvalFrames
from secondeye.evaluation.methods import warp_and_inpaint
from secondeye.evaluation.regions import BORDER, DISOCCLUDED, regions_from_truth
from secondeye.evaluation.score import PreparedFrames, compute, prepare, update
from secondeye.inpaint.fill import fill_shot
from secondeye.metrics.outliers import BLOCK_PX
from secondeye.synthetic import render_shot

FRAMES, HEIGHT, WIDTH = 24, 96, 160
CAST_EVERY = 20  # frames


@cache
def honest() -> tuple[EvalFrames, Tensor]:
    """Return a synthetic shot and a good right view."""
    shot = render_shot(1, FRAMES, HEIGHT, WIDTH)
    regions = regions_from_truth(shot.right_disparity, shot.right_occlusion)
    clip = EvalFrames(shot.left, shot.right, shot.disparity, regions)
    return clip, warp_and_inpaint(clip.left, clip.disparity, fill_shot)


def swapped(clip: EvalFrames, made: Tensor) -> Tensor:
    mirrored = warp_and_inpaint(clip.left.flip(-1), clip.disparity.flip(-1), fill_shot)
    return mirrored.flip(-1)


def copied(clip: EvalFrames, made: Tensor) -> Tensor:
    return clip.left


def shifted(clip: EvalFrames, made: Tensor) -> Tensor:
    return torch.cat([made[..., 2:], made[..., -1:], made[..., -1:]], -1)


def blurred(clip: EvalFrames, made: Tensor) -> Tensor:
    kernel = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0])
    square = (kernel[:, None] * kernel / 256).expand(3, 1, 5, 5)
    return F.conv2d(F.pad(made, (2, 2, 2, 2), mode="replicate"), square, groups=3)


def gray_holes(clip: EvalFrames, made: Tensor) -> Tensor:
    return torch.where(clip.regions == DISOCCLUDED, 0.5, made)


def bright_holes(clip: EvalFrames, made: Tensor) -> Tensor:
    return torch.where(clip.regions == DISOCCLUDED, made + 0.3, made).clamp(0, 1)


def flickering(clip: EvalFrames, made: Tensor) -> Tensor:
    signs = (torch.arange(len(made)) % 2 * 2 - 1)[:, None, None, None]
    return torch.where(clip.regions == DISOCCLUDED, made + 0.06 * signs, made).clamp(0, 1)


def cast(clip: EvalFrames, made: Tensor) -> Tensor:
    tint = torch.tensor([0.03, 0.0, -0.03])[:, None, None]
    often = (torch.arange(len(made)) % CAST_EVERY == CAST_EVERY - 1)[:, None, None, None]
    return torch.where(often, made + tint, made).clamp(0, 1)


def inverted_depth(clip: EvalFrames, made: Tensor) -> Tensor:
    """Make far objects near, at the same strength."""
    near = clip.disparity
    return warp_and_inpaint(clip.left, near.amax() + near.amin() - near, fill_shot)


def late(clip: EvalFrames, made: Tensor) -> Tensor:
    return torch.cat([made[:1], made[:-1]])


def raised(clip: EvalFrames, made: Tensor) -> Tensor:
    return torch.cat([made[..., 2:, :], made[..., -1:, :], made[..., -1:, :]], -2)


def garbage_block(clip: EvalFrames, made: Tensor) -> Tensor:
    """Replace what is inpainted in one block of the last frame by gray noise."""
    noise = torch.rand(made[:, :1].shape, generator=torch.Generator().manual_seed(0)).expand_as(made)
    return torch.where(_in_corner(clip.regions, 1), noise, made)


def blotch(clip: EvalFrames, made: Tensor) -> Tensor:
    """Tint what is inpainted in one corner of every frame."""
    tint = torch.tensor([0.3, 0.1, -0.3])[:, None, None]
    return torch.where(_in_corner(clip.regions, len(made)), made + tint, made).clamp(0, 1)


def _in_corner(regions: Tensor, frames: int) -> Tensor:  # bool [T, 1, H, W]
    """Mark what is inpainted in the upper right block of the last frames."""
    corner = torch.zeros_like(regions, dtype=torch.bool)
    corner[-frames:, :, :BLOCK_PX, -(regions.shape[-1] % BLOCK_PX) :] = True
    return corner & ((regions == DISOCCLUDED) | (regions == BORDER))


CAST = f"colour cast at every {CAST_EVERY}th frame"
SABOTAGES: dict[str, Callable[[EvalFrames, Tensor], Tensor]] = {
    "eyes swapped": swapped,
    "right eye a copy of the left": copied,
    "shifted by 2 px": shifted,
    "blurred": blurred,
    "holes filled with gray": gray_holes,
    "holes too bright": bright_holes,
    "fill flickers": flickering,
    CAST: cast,
    "depth inverted": inverted_depth,
    "one frame late": late,
    "2 px higher": raised,
    "one block of garbage": garbage_block,
    "coloured blotch in a corner": blotch,
}

CAUGHT_BY = {
    "eyes swapped": ("disparity_correlation", "epe_px", "d1_percent", "siou", "haarpsi", "psnr_visible_db"),
    "right eye a copy of the left": ("disparity_correlation", "epe_px", "siou", "haarpsi", "psnr_visible_db"),
    "shifted by 2 px": ("epe_px", "siou", "haarpsi", "psnr_visible_db"),
    "blurred": ("haarpsi", "gradient_ratio", "sharpness_ratio", "siou"),
    "holes filled with gray": ("gradient_ratio", "psnr_disoccluded_db"),
    "holes too bright": ("seam_ratio", "psnr_disoccluded_db", "haarpsi"),
    "fill flickers": ("temporal_error", "warping_ratio", "flicker"),
    CAST: ("worst_jump", "flicker"),
    "depth inverted": ("disparity_correlation", "epe_px", "d1_percent", "haarpsi", "psnr_visible_db"),
    "one frame late": ("warping_ratio", "epe_px", "siou", "haarpsi", "psnr_visible_db"),
    "2 px higher": ("vertical_px", "d1_percent", "siou", "haarpsi"),
    "one block of garbage": ("worst_block",),
    "coloured blotch in a corner": ("chroma_excess", "worst_block"),
}


@cache
def prepared() -> PreparedFrames:
    """Return the shot prepared for scoring."""
    clip, _ = honest()
    return prepare(clip.left, clip.right, clip.regions)


@cache
def scores_of(name: str) -> dict[str, float]:
    """Return the scores of a degraded view, or of the good one (`honest`)."""
    clip, made = honest()
    if name in SABOTAGES:
        made = SABOTAGES[name](clip, made)
    return compute(update(prepared(), made, overlap=0, learned=None))


def is_worse(column: str, spoilt: float, honest: float) -> bool:
    """Return whether a score is clearly worse: 5 % lower, an error 40 % higher, or NaN."""
    match COLUMNS[column].better:
        case "higher":
            return not spoilt > honest - 0.05 * abs(honest)
        case "lower":
            return not spoilt <= 1.4 * honest
    return abs(math.log(max(spoilt, 1e-9))) > abs(math.log(honest)) + math.log(1.2)


def main() -> None:
    """Print the table of docs/metrics.md."""
    print("| sabotage | caught by (honest, spoilt) |\n|---|---|")
    for name, columns in CAUGHT_BY.items():
        cells = (f"`{c}` {scores_of('honest')[c]:.3g}, {scores_of(name)[c]:.3g}" for c in columns)
        print(f"| {name} | {'; '.join(cells)} |")


if __name__ == "__main__":
    main()
