"""Numbers for what a method made of a clip: the same regions for every method."""

import numpy as np
import torch
from torch import Tensor

from secondeye.evaluation.clip import HeldClip
from secondeye.evaluation.methods import Made, require_numbers
from secondeye.evaluation.regions import NAMES, UNKNOWN, VISIBLE
from secondeye.metrics import mean_where, psnr_db, rank_correlation, ssim_map
from secondeye.warp import warp

_DIGITS = 4
_SAME_SURFACE_PX = 1.0


def score(made: Made, clip: HeldClip) -> dict[str, float]:
    """Every score of `Evaluated`, by its name; NaN where nothing is to score. Raises NotNumbers."""
    for array in made:
        if array is not None:
            require_numbers(array)
    everywhere = torch.ones_like(clip.regions, dtype=torch.bool)
    similarity = ssim_map(made.right, clip.right)
    scores = {
        "psnr_db": psnr_db(made.right, clip.right, everywhere),
        "ssim": mean_where(similarity, everywhere),
    }
    for name, region in NAMES.items():
        where = clip.regions == region
        scores[f"psnr_{name}_db"] = psnr_db(made.right, clip.right, where)
        scores[f"ssim_{name}"] = mean_where(similarity, where)
    scores |= _depth_scores(made.disparity, clip)
    return {name: round(value, _DIGITS) for name, value in scores.items()}


def _depth_scores(disparity: Tensor | None, clip: HeldClip) -> dict[str, float]:
    """Where the method estimated depth: against the matched disparity, where that is no guess."""
    if disparity is None:
        return {"rank_correlation": float("nan"), "disparity_error_percent": float("nan")}
    known = matched_surely(clip)
    error = (disparity - clip.disparity).abs() * 100 / clip.left.shape[-1]
    return {
        "rank_correlation": rank_correlation(disparity, clip.disparity, known),
        "disparity_error_percent": mean_where(error, known),
    }


def matched_surely(clip: HeldClip) -> Tensor:
    """bool [T, 1, H, W]: pixels of the left eye that the right eye sees, too, and confirms."""
    width = clip.left.shape[-1]
    place = (torch.arange(width) - clip.disparity).round()
    inside = (place >= 0) & (place <= width - 1)
    place = place.clamp(0, width - 1).long()
    in_front = warp(clip.left, clip.disparity, kernel="bilinear").disparity.gather(-1, place)
    confirmed = clip.regions.gather(-1, place) == VISIBLE
    return inside & confirmed & ((in_front - clip.disparity).abs() <= _SAME_SURFACE_PX)


def shares(regions: Tensor) -> dict[str, float]:
    """How much of a clip each region takes, and how much can not be told."""
    counts = np.bincount(regions.numpy().ravel(), minlength=4) / regions.numel()
    named = {f"{name}_share": float(counts[region]) for name, region in NAMES.items() if region != VISIBLE}
    return {name: round(share, 5) for name, share in {"unknown_share": counts[UNKNOWN], **named}.items()}
