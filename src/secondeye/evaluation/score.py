"""All scores of a synthesised right view, on regions, crops and flows that are the same for every method.

`prepare` computes what does not depend on the method, `update` accumulates the metrics of a window of frames,
`compute` turns the accumulated state into scores. States add up, so films of any length are scored window by
window. docs/metrics.md defines every score.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from secondeye.evaluation.eval_clips import EvalFrames
from secondeye.evaluation.metric_state import MetricState, weighted_sum
from secondeye.evaluation.non_finite import require_finite
from secondeye.evaluation.regions import DISOCCLUDED, REGIONS, UNKNOWN, VISIBLE, regions_from_truth
from secondeye.evaluation.score_crops import Crops, extract_crops, find_crops
from secondeye.imaging.arrays import FAR_PERCENTILE, NEAR_PERCENTILE, occlusion_mask
from secondeye.imaging.backends import on_best_device
from secondeye.matching.consistency import fill_from_background, is_consistent
from secondeye.matching.flow_matcher import match_flow
from secondeye.metrics.depth import edge_f_score, rank_correlation
from secondeye.metrics.holes import gradient_energy, seam_energy, temporal_error
from secondeye.metrics.image_quality import decibels, mean_where, ms_ssim, squared_error, ssim_map
from secondeye.metrics.learned import LearnedMetrics
from secondeye.metrics.masked_sums import Sum, sum_where
from secondeye.metrics.outliers import chroma_blocks, error_blocks, largest
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

_DIGITS = 4
_SAME_SURFACE_PX = 1.0
_CONSISTENCY_PX = 1.0  # tolerance of the left-right check
_LEVELS = 255.0
# Gradient energy of a step of one 8-bit level: added to both sides of a ratio, so that two flat areas have 1.
_ONE_LEVEL = _LEVELS**-2


class StereoMatch(NamedTuple):
    """Optical flow from the left view to a right view."""

    disparity: Tensor  # [T, 1, H, W] px, NaN for none
    vertical: Tensor  # [T, 1, H, W] px
    consistent: Tensor  # bool [T, 1, H, W]: confirmed by the left-right check


class Target(NamedTuple):
    """The true right view, with what scores need of it."""

    frames: Tensor  # [T, 3, H, W]
    masks: dict[str, Tensor]  # suffix of a column -> bool [T, 1, H, W]: "" for all pixels, "_visible", ...
    crops: Crops
    cropped: Tensor  # [N, 3, side, side]
    match: StereoMatch  # from the left view
    flow: Tensor  # [T - 1, 2, H, W] px, from each frame to the next
    reliable: Tensor  # bool [T - 1, 1, H, W]: where the flow is


class PreparedFrames(NamedTuple):
    """Consecutive frames with everything that does not depend on the method."""

    left: Tensor  # [T, 3, H, W]
    left_warping: Sum  # warping error of the left view along its own flow
    target: Target | None  # None: scored without the true right view


def prepare(
    left: Tensor,  # [T, 3, H, W]; H and W at least score_crops.MIN_SIDE_PX
    right: Tensor | None,  # [T, 3, H, W]: the true right view
    regions: Tensor | None,  # uint8 [T, 1, H, W]; given with the true right view, and only then
    known: Tensor | None = None,  # bool [T, 1, H, W]: where the whole image is scored; None: everywhere
) -> PreparedFrames:
    """Compute masks, crops, match and flow, which are the same for every method."""
    warping = warping_error(left, *flow_to_next(left))
    if right is None or regions is None:
        return PreparedFrames(left, warping, None)
    masks = {"": torch.ones_like(regions, dtype=torch.bool) if known is None else known}
    masks |= {f"_{name}": regions == region for name, region in REGIONS.items()}
    crops = find_crops(masks["_disoccluded"])
    match, flows = match_views(left, right), flow_to_next(right)
    target = Target(right, masks, crops, extract_crops(right, crops), match, *flows)
    return PreparedFrames(left, warping, target)


def update(
    prepared: PreparedFrames,
    right: Tensor,  # [T, 3, H, W]: the right view to score
    *,
    overlap: int,  # 0 or 1: leading frames that the previous window has already counted
    learned: LearnedMetrics | None,
) -> MetricState:
    """Accumulate every metric over these frames. Raises NonFiniteError.

    Metrics of single frames skip the overlap; metrics of frame pairs use it.
    """
    require_finite(right)
    state = _stereo_state(prepared, right, overlap) + _temporal_state(prepared, right)
    if prepared.target is None:
        return state
    target = prepared.target
    state += _image_state(target, right, overlap) + _hole_state(target, right, overlap, learned)
    return state + _outlier_state(prepared, right, overlap)


def compute(state: MetricState) -> dict[str, float]:
    """Return column of `Score` -> value, NaN without anything to score."""
    mean, ratio = state.mean, state.ratio
    scores = {name: mean(name) for name in ("haarpsi", "vif", "lpips", "dists")}
    for region in ("", *(f"_{name}" for name in REGIONS)):
        scores[f"psnr{region}_db"] = decibels(mean(f"error{region}"))
        scores[f"ssim{region}"] = mean(f"ssim{region}")
        scores[f"ms_ssim{region}"] = mean(f"ms_ssim{region}")
    scores |= {
        "gradient_ratio": ratio("gradient", "true_gradient", _ONE_LEVEL),
        "temporal_error": _LEVELS * math.sqrt(mean("temporal")),
        "seam_ratio": ratio("seam", "true_seam", _ONE_LEVEL),
        "worst_block": state.maxima.get("worst_block", math.nan),
        "chroma_excess": state.maxima.get("chroma_excess", math.nan),
        "warping_ratio": ratio("warping", "left_warping"),
        "flicker": mean("flicker"),
        "worst_jump": state.maxima.get("worst_jump", math.nan),
        "siou": mean("siou"),
        "epe_px": mean("epe_px"),
        "d1_percent": 100 * mean("d1"),
        "tepe_px": mean("tepe_px"),
        "disparity_correlation": correlation(state.sums) if "predicted" in state.sums else math.nan,
        "vertical_px": mean("vertical_px"),
        "sharpness_ratio": ratio("right_energy", "left_energy"),
        "far_percent": histogram_percentile(state.disparities, FAR_PERCENTILE / 100),
        "near_percent": histogram_percentile(state.disparities, NEAR_PERCENTILE / 100),
        "window_violation_percent": 100 * mean("window_violation"),
    }
    return {name: round(value, _DIGITS) for name, value in scores.items()}


def inpainted_blocks(
    prepared: PreparedFrames,  # with the true right view
    right: Tensor,  # [T, 3, H, W]
) -> dict[str, Tensor]:  # float64 [T, rows, columns]
    """Return column of `Score` -> its value in every block of what is inpainted.

    The column is the largest value. Disocclusions and the border count together; NaN for blocks with hardly
    any such pixel.
    """
    target = prepared.target
    assert target is not None
    inpainted = target.masks["_disoccluded"] | target.masks["_border"]
    return {
        "worst_block": error_blocks(right, target.frames, inpainted),
        "chroma_excess": _LEVELS * chroma_blocks(right, target.frames, inpainted),
    }


def score_depth(
    disparity: Tensor | None,  # [T, 1, H, W] px; None unless the method estimates depth itself
    clip: EvalFrames,
) -> dict[str, float]:
    """Score estimated disparity against the confirmed matches; NaN without it. Raises NonFiniteError."""
    names = ("rank_correlation", "disparity_error_percent", "edge_f_score", "hole_area_ratio")
    if disparity is None:
        return dict.fromkeys(names, math.nan)
    require_finite(disparity)
    confirmed = confirmed_matches(clip)
    error = (disparity - clip.disparity).abs() * 100 / clip.left.shape[-1]
    edges = weighted_sum(edge_f_score(disparity, clip.disparity))
    true_holes = count_disoccluded(clip.left, clip.disparity)
    values = (
        rank_correlation(disparity, clip.disparity, confirmed),
        mean_where(error, confirmed),
        edges[0] / edges[1] if edges[1] else math.nan,
        count_disoccluded(clip.left, disparity) / true_holes if true_holes else math.nan,
    )
    return {name: round(value, _DIGITS) for name, value in zip(names, values, strict=True)}


def count_disoccluded(
    left: Tensor,  # [T, 3, H, W]
    disparity: Tensor,  # [T, 1, H, W] px
) -> int:
    """Count the pixels that warping by this disparity disoccludes; the frame's border does not count."""
    warped = on_best_device(warp)(left, disparity, kernel="bilinear")
    holes = occlusion_mask(warped.coverage)
    background = fill_from_background(warped.disparity, ~holes)
    return int((regions_from_truth(background, holes) == DISOCCLUDED).sum())


def confirmed_matches(clip: EvalFrames) -> Tensor:  # bool [T, 1, H, W]
    """Return the pixels of the left view whose matched disparity is confirmed.

    At the position that the disparity gives, the right view is visible to the left one and shows a surface
    within _SAME_SURFACE_PX of it.
    """
    width = clip.left.shape[-1]
    column = (torch.arange(width) - clip.disparity).round()
    inside = (column >= 0) & (column <= width - 1)
    column = column.clamp(0, width - 1).long()
    surfaces = on_best_device(warp)(clip.left, clip.disparity, kernel="bilinear").disparity
    in_front = surfaces.gather(-1, column)
    visible = clip.regions.gather(-1, column) == VISIBLE
    return inside & visible & ((in_front - clip.disparity).abs() <= _SAME_SURFACE_PX)


def region_shares(
    regions: Tensor,  # uint8 [T, 1, H, W]
) -> dict[str, float]:  # [0, 1]
    """Return the share of each region's pixels by column of `EvalClip`."""
    counts = np.bincount(regions.numpy().ravel(), minlength=4) / regions.numel()
    named = {"unknown": UNKNOWN, **REGIONS}
    return {f"{name}_share": round(float(counts[region]), 5) for name, region in named.items()}


def match_views(
    left: Tensor,  # [T, 3, H, W]
    right: Tensor,  # [T, 3, H, W]
) -> StereoMatch:
    """Match by optical flow, with a left-right check."""
    forward = match_flow(left, right)
    mirrored = match_flow(right.flip(-1), left.flip(-1)).disparity
    return StereoMatch(*forward, is_consistent(forward.disparity, mirrored.flip(-1), _CONSISTENCY_PX))


def _stereo_state(prepared: PreparedFrames, right: Tensor, overlap: int) -> MetricState:
    """Accumulate the scores of the two views as a pair: disparity, vertical error, sharpness.

    Counts the pixels that the left-right check confirms: that of the true pair if there is a target, so that
    every method is scored on the same pixels; otherwise that of the pair itself.
    """
    left, target, new = prepared.left, prepared.target, slice(overlap, None)
    if target is None:
        match = match_views(left, right)
    else:
        match = StereoMatch(*match_flow(left, right), target.match.consistent)
    disparity, vertical, consistent = (array[new] for array in match)
    sums = {
        # Over all pixels: where rows are far apart the check fails, and that is what this must measure.
        "vertical_px": weighted_sum(vertical_disparity_px(vertical, torch.ones_like(consistent))),
        "window_violation": window_violation(disparity, consistent),
        "left_energy": gradient_energy(left[new]),
        "right_energy": gradient_energy(right[new]),
    }
    if target is not None:
        sums |= disparity_error(disparity, target.match.disparity[new], consistent)
        sums["tepe_px"] = temporal_disparity_error(match.disparity, target.match.disparity, match.consistent)
        sums["siou"] = weighted_sum(siou(right[new], target.frames[new], left[new]))
    medians = median_disparities(disparity, consistent).tolist()
    return MetricState(sums, {}, disparity_histogram(disparity, consistent), medians)


def _temporal_state(prepared: PreparedFrames, right: Tensor) -> MetricState:
    """Accumulate the temporal scores: all compare consecutive frames, so none skips the overlap."""
    target = prepared.target
    flows = flow_to_next(right) if target is None else (target.flow, target.reliable)
    steps = colour_steps(colour_difference(right, prepared.left if target is None else target.frames))
    sums = {
        "warping": warping_error(right, *flows),
        "left_warping": prepared.left_warping,
        "flicker": weighted_sum(steps.flatten()),
    }
    return MetricState(sums, {"worst_jump": float(steps.max())} if len(steps) else {})


def _image_state(target: Target, right: Tensor, overlap: int) -> MetricState:
    """Accumulate PSNR, SSIM and MS-SSIM region by region."""
    right, truth = right[overlap:], target.frames[overlap:]
    masks = {region: mask[overlap:] for region, mask in target.masks.items()}
    error, similarity, multi_scale = (
        squared_error(right, truth),
        ssim_map(right, truth),
        ms_ssim(right, truth, masks),
    )
    sums = {}
    for region, mask in masks.items():
        sums[f"error{region}"] = sum_where(error, mask)
        sums[f"ssim{region}"] = sum_where(similarity, mask)
        sums[f"ms_ssim{region}"] = weighted_sum(multi_scale[region])
    return MetricState(sums)


def _hole_state(target: Target, right: Tensor, overlap: int, learned: LearnedMetrics | None) -> MetricState:
    """Accumulate the scores of inpainting: inside disocclusions, and on crops around them."""
    holes, new = target.masks["_disoccluded"], slice(overlap, None)
    sums = {
        "temporal": temporal_error(right, target.frames, holes),
        "gradient": gradient_energy(right[new], holes[new]),
        "true_gradient": gradient_energy(target.frames[new], holes[new]),
        "seam": seam_energy(right[new], holes[new]),
        "true_seam": seam_energy(target.frames[new], holes[new]),
    }
    counted = target.crops.corners[:, 0] >= overlap
    crops, true_crops = extract_crops(right, target.crops)[counted], target.cropped[counted]
    weights = target.crops.weights[counted]
    if len(crops):
        values = {"haarpsi": haarpsi(crops, true_crops), "vif": vif(crops, true_crops)}
        values |= learned(crops, true_crops) if learned is not None else {}
        sums |= {name: weighted_sum(value, weights) for name, value in values.items()}
    return MetricState(sums)


def _outlier_state(prepared: PreparedFrames, right: Tensor, overlap: int) -> MetricState:
    """Find the worst blocks of what is inpainted."""
    blocks = inpainted_blocks(prepared, right)
    maxima = {column: largest(values[overlap:]) for column, values in blocks.items()}
    return MetricState(maxima={column: value for column, value in maxima.items() if not math.isnan(value)})
