"""Every score of what a method made: the same regions, crops and flows for every method (docs/metrics.md).

`look_up` finds what is known of some frames before any method, `measure` counts what a method made of them,
and tallies add, so that a film of any length is scored window by window.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from secondeye.evaluation.eval_clips import EvalFrames
from secondeye.evaluation.methods import require_numbers
from secondeye.evaluation.metric_state import MetricState, total
from secondeye.evaluation.regions import DISOCCLUDED, NAMES, UNKNOWN, VISIBLE, regions_from_truth
from secondeye.evaluation.score_crops import Crops, around, cut
from secondeye.imaging.arrays import occlusion_mask
from secondeye.matching.consistency import fill_from_background, is_consistent
from secondeye.matching.flow_matcher import match_flow
from secondeye.metrics.depth import edge_f_score, rank_correlation
from secondeye.metrics.holes import gradient_energy, seam_energy, temporal_error
from secondeye.metrics.image_quality import decibels, mean_where, ms_ssim, squared_error, ssim_map
from secondeye.metrics.learned import LearnedMetrics
from secondeye.metrics.masked_sums import Sum, sum_where
from secondeye.metrics.perceptual import haarpsi, vif
from secondeye.metrics.stereo import (
    correlation,
    disparity_error,
    disparity_histogram,
    histogram_percentile,
    median_disparities,
    siou,
    temporal_disparity_error,
    vertical_disparity_px,
    window_violation,
)
from secondeye.metrics.temporal import colour_difference, colour_steps, flow_to_next, warping_error
from secondeye.warp import warp

SMALLEST_PX = 64  # a side of what can be scored: the crops need it
_DIGITS = 4
_SAME_SURFACE_PX = 1.0
_AGREE_PX = 1.0  # how far matches there and back may miss each other
_LEVELS = 255.0
_ONE_LEVEL = _LEVELS**-2  # energy of a step that 8 bits just hold: what is flat in both is equally sharp


class Pair(NamedTuple):
    """Where the left eye's pixels lie in the right eye."""

    disparity: Tensor  # [T, 1, H, W] px, NaN for none
    vertical: Tensor  # [T, 1, H, W] px
    sure: Tensor  # bool [T, 1, H, W]: confirmed from the right eye


class Truth(NamedTuple):
    """The true right eye, and what it says before any method."""

    frames: Tensor  # [T, 3, H, W]
    where: dict[str, Tensor]  # bool [T, 1, H, W]: "" is everywhere, "_visible" ... a region
    crops: Crops
    in_crops: Tensor  # [N, 3, side, side]
    pair: Pair  # of the left eye and the true right one
    flow: Tensor  # [T - 1, 2, H, W] px, from each frame to the next
    reliable: Tensor  # bool [T - 1, 1, H, W]


class Reference(NamedTuple):
    """What is known of some frames before any method."""

    left: Tensor  # [T, 3, H, W]
    warping: Sum  # of the left film along its own flow
    truth: Truth | None


def prepare(
    left: Tensor,  # [T, 3, H, W]
    truth: Tensor | None,  # [T, 3, H, W]
    regions: Tensor | None,  # uint8 [T, 1, H, W]; with a truth, and only then
) -> Reference:
    """Find what every method is measured against. Sides are at least SMALLEST_PX."""
    warping = warping_error(left, *flow_to_next(left))
    if truth is None or regions is None:
        return Reference(left, warping, None)
    where = {"": torch.ones_like(regions, dtype=torch.bool)}
    where |= {f"_{name}": regions == region for name, region in NAMES.items()}
    crops = around(where["_disoccluded"])
    pair, flows = _match(left, truth), flow_to_next(truth)
    return Reference(left, warping, Truth(truth, where, crops, cut(truth, crops), pair, *flows))


def update(
    reference: Reference,
    right: Tensor,  # [T, 3, H, W]: what a method made
    *,
    seen: int,  # 0 or 1: leading frames that the window before has counted
    learned: LearnedMetrics | None,
) -> MetricState:
    """Count every score in these frames; what compares frames with the next ones counts all. NotNumbers."""
    require_numbers(right)
    tally = _as_a_pair(reference, right, seen) + _over_time(reference, right)
    if reference.truth is None:
        return tally
    return (
        tally + _as_pictures(reference.truth, right, seen) + _in_holes(reference.truth, right, seen, learned)
    )


def compute(tally: MetricState) -> dict[str, float]:
    """The scores by the names of `Evaluated`; NaN where nothing was to score."""
    mean, ratio = tally.mean, tally.ratio
    scores = {name: mean(name) for name in ("haarpsi", "vif", "lpips", "dists")}
    for region in ("", *(f"_{name}" for name in NAMES)):
        scores[f"psnr{region}_db"] = decibels(mean(f"error{region}"))
        scores[f"ssim{region}"] = mean(f"ssim{region}")
        scores[f"ms_ssim{region}"] = mean(f"ms_ssim{region}")
    scores |= {
        "gradient_ratio": ratio("gradient", "true_gradient", _ONE_LEVEL),
        "temporal_error": _LEVELS * math.sqrt(mean("temporal")),
        "seam_ratio": ratio("seam", "true_seam", _ONE_LEVEL),
        "warping_ratio": ratio("warping", "left_warping"),
        "flicker": mean("flicker"),
        "worst_jump": tally.largest.get("worst_jump", math.nan),
        "siou": mean("siou"),
        "epe_px": mean("epe_px"),
        "d1_percent": 100 * mean("d1"),
        "tepe_px": mean("tepe_px"),
        "disparity_correlation": correlation(tally.sums) if "predicted" in tally.sums else math.nan,
        "vertical_px": mean("vertical_px"),
        "sharpness_ratio": ratio("right_energy", "left_energy"),
        "far_percent": histogram_percentile(tally.disparities, 0.01),
        "near_percent": histogram_percentile(tally.disparities, 0.99),
        "window_violation_percent": 100 * mean("window_violation"),
    }
    return {name: round(value, _DIGITS) for name, value in scores.items()}


def score_depth(
    disparity: Tensor | None,  # [T, 1, H, W] px, where the method estimated it by itself
    clip: EvalFrames,
) -> dict[str, float]:
    """Against the matched disparity, where that is no guess; NaN without an estimate. Raises NotNumbers."""
    names = ("rank_correlation", "disparity_error_percent", "edge_f_score", "hole_area_ratio")
    if disparity is None:
        return dict.fromkeys(names, math.nan)
    require_numbers(disparity)
    known = matched_surely(clip)
    error = (disparity - clip.disparity).abs() * 100 / clip.left.shape[-1]
    edges = total(edge_f_score(disparity, clip.disparity))
    holes = hole_area(clip.left, clip.disparity)
    found = (
        rank_correlation(disparity, clip.disparity, known),
        mean_where(error, known),
        edges[0] / edges[1] if edges[1] else math.nan,
        hole_area(clip.left, disparity) / holes if holes else math.nan,
    )
    return {name: round(value, _DIGITS) for name, value in zip(names, found, strict=True)}


def hole_area(
    left: Tensor,  # [T, 3, H, W]
    disparity: Tensor,  # [T, 1, H, W] px
) -> int:
    """How many pixels this disparity disoccludes; what lies beyond the left eye's frame is not counted."""
    warped = warp(left, disparity, kernel="bilinear")
    holes = occlusion_mask(warped.coverage)
    behind = fill_from_background(warped.disparity, ~holes)
    return int((regions_from_truth(behind, holes) == DISOCCLUDED).sum())


def matched_surely(clip: EvalFrames) -> Tensor:
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
    named = {"unknown": UNKNOWN, **NAMES}
    return {f"{name}_share": round(float(counts[region]), 5) for name, region in named.items()}


def _match(left: Tensor, right: Tensor) -> Pair:
    found = match_flow(left, right)
    mirrored = match_flow(right.flip(-1), left.flip(-1)).disparity
    return Pair(*found, is_consistent(found.disparity, mirrored.flip(-1), _AGREE_PX))


def _as_a_pair(reference: Reference, right: Tensor, seen: int) -> MetricState:
    """What both eyes show together. With a truth, at the pixels that the true pair is sure of."""
    left, truth, new = reference.left, reference.truth, slice(seen, None)
    pair = _match(left, right) if truth is None else Pair(*match_flow(left, right), truth.pair.sure)
    disparity, vertical, sure = (array[new] for array in pair)
    sums = {
        # Of all pixels: the matcher has no answer where rows are far apart, which is what this must see.
        "vertical_px": total(vertical_disparity_px(vertical, torch.ones_like(sure))),
        "window_violation": window_violation(disparity, sure),
        "left_energy": gradient_energy(left[new]),
        "right_energy": gradient_energy(right[new]),
    }
    if truth is not None:
        sums |= disparity_error(disparity, truth.pair.disparity[new], sure)
        sums["tepe_px"] = temporal_disparity_error(pair.disparity, truth.pair.disparity, pair.sure)
        sums["siou"] = total(siou(right[new], truth.frames[new], left[new]))
    medians = median_disparities(disparity, sure).tolist()
    return MetricState(sums, {}, disparity_histogram(disparity, sure), medians)


def _over_time(reference: Reference, right: Tensor) -> MetricState:
    """How steady it is: all of it compares frames with the next ones."""
    truth = reference.truth
    flows = flow_to_next(right) if truth is None else (truth.flow, truth.reliable)
    steps = colour_steps(colour_difference(right, reference.left if truth is None else truth.frames))
    sums = {
        "warping": warping_error(right, *flows),
        "left_warping": reference.warping,
        "flicker": total(steps.flatten()),
    }
    return MetricState(sums, {"worst_jump": float(steps.max())} if len(steps) else {})


def _as_pictures(truth: Truth, right: Tensor, seen: int) -> MetricState:
    """How close pixels are, region by region."""
    made, wanted = right[seen:], truth.frames[seen:]
    where = {region: chosen[seen:] for region, chosen in truth.where.items()}
    error, similarity, over_scales = (
        squared_error(made, wanted),
        ssim_map(made, wanted),
        ms_ssim(made, wanted, where),
    )
    sums = {}
    for region, chosen in where.items():
        sums[f"error{region}"] = sum_where(error, chosen)
        sums[f"ssim{region}"] = sum_where(similarity, chosen)
        sums[f"ms_ssim{region}"] = total(over_scales[region])
    return MetricState(sums)


def _in_holes(truth: Truth, right: Tensor, seen: int, learned: LearnedMetrics | None) -> MetricState:
    """How what was painted looks: on crops around disocclusions, and inside them."""
    holes, new = truth.where["_disoccluded"], slice(seen, None)
    sums = {
        "temporal": temporal_error(right, truth.frames, holes),
        "gradient": gradient_energy(right[new], holes[new]),
        "true_gradient": gradient_energy(truth.frames[new], holes[new]),
        "seam": seam_energy(right[new], holes[new]),
        "true_seam": seam_energy(truth.frames[new], holes[new]),
    }
    counted = truth.crops.places[:, 0] >= seen
    made, wanted = cut(right, truth.crops)[counted], truth.in_crops[counted]
    weights = truth.crops.weights[counted]
    if len(made):
        found = {"haarpsi": haarpsi(made, wanted), "vif": vif(made, wanted)}
        found |= learned(made, wanted) if learned is not None else {}
        sums |= {name: total(values, weights) for name, values in found.items()}
    return MetricState(sums)
