"""Losses of the depth student.

Depth is known up to a scale and a shift, so all losses but the temporal one compare maps normalised to
median 0 and mean absolute deviation 1 (Ranftl et al., TPAMI 2022: MiDaS). Every map is [B, T, 1, h, w]: the T
consecutive frames of a sample share one scale and one shift, since depth must not jump between frames.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_DEVIATION = 1e-4  # for flat maps
MIN_FIT_SCALE = 0.1  # keeps a gradient if depth is worse than a flat map
SCALES = 4  # of the gradient loss
PAIRS = 2048  # per frame, drawn by torch's generator
MAX_MARGIN = 0.5  # pairs need not differ by more than this
MIN_DIFFERENCE = 0.05  # closer pairs have no order


def normalise(
    values: Tensor,  # [B, T, 1, h, w]
    valid: Tensor,  # bool, like `values`: pixels of the median and the deviation
) -> Tensor:  # [B, T, 1, h, w]
    """Normalise each sample to median 0 and mean absolute deviation 1: invariant to scale > 0 and shift."""
    chosen = values.masked_fill(~valid, torch.nan).flatten(1)
    median = chosen.nanmedian(dim=1).values.nan_to_num()
    centred = values - median.view(-1, 1, 1, 1, 1)
    return centred / _mean(centred.abs(), valid).clamp_min(MIN_DEVIATION).view(-1, 1, 1, 1, 1)


def scale_to_fit(
    depth: Tensor,  # [B, T, 1, h, w] normalised
    truth: Tensor,  # [B, T, 1, h, w] normalised
    valid: Tensor,  # bool [B, T, 1, h, w]
) -> Tensor:  # [B, T, 1, h, w]
    """Scale a sample's depth down to the least-squares fit to the truth; the order of depths stays.

    Normalised depth has the spread of the truth however inaccurate it is; an untrained student would have
    larger errors than a flat map.
    """
    scale = _mean(depth * truth, valid) / _mean(depth * depth, valid).clamp_min(MIN_DEVIATION)
    return depth * scale.clamp(MIN_FIT_SCALE, 1).view(-1, 1, 1, 1, 1)


def laplace_loss(
    depth: Tensor,  # [B, T, 1, h, w] normalised
    truth: Tensor,  # [B, T, 1, h, w] normalised
    log_uncertainty: Tensor,  # [B, T, 1, h, w], logarithm of the expected error
    valid: Tensor,  # bool [B, T, 1, h, w]
) -> Tensor:  # scalar
    """Compute the negative log-likelihood of a Laplace distribution: expected errors weigh less.

    Kendall and Gal, NeurIPS 2017.
    """
    loss = (depth - truth).abs() * (-log_uncertainty).exp() + log_uncertainty
    return _mean(loss, valid).mean()


def error_loss(
    depth: Tensor,  # [B, T, 1, h, w] normalised
    truth: Tensor,  # [B, T, 1, h, w] normalised
    valid: Tensor,  # bool [B, T, 1, h, w]
) -> Tensor:  # scalar
    """Compute the mean absolute error; of normalised maps it is MiDaS' scale-and-shift-invariant loss."""
    return _mean((depth - truth).abs(), valid).mean()


def gradient_loss(
    depth: Tensor,  # [B, T, 1, h, w] normalised
    truth: Tensor,  # [B, T, 1, h, w] normalised
    valid: Tensor,  # bool [B, T, 1, h, w]
) -> Tensor:  # scalar
    """Compute the L1 loss of gradients at SCALES scales, which aligns edges (MegaDepth)."""
    difference = (depth - truth).flatten(0, 1)
    known = valid.flatten(0, 1)
    total = difference.new_zeros(())
    for scale in range(SCALES):
        if min(difference.shape[-2:]) < 2:
            break
        across = _mean((difference[..., 1:] - difference[..., :-1]).abs(), known[..., 1:] & known[..., :-1])
        down = _mean(
            (difference[..., 1:, :] - difference[..., :-1, :]).abs(), known[..., 1:, :] & known[..., :-1, :]
        )
        total = total + (across + down).mean()
        if scale + 1 < SCALES:
            difference, known = difference[..., ::2, ::2], known[..., ::2, ::2]
    return total / SCALES


def ranking_loss(
    depth: Tensor,  # [B, T, 1, h, w] normalised
    truth: Tensor,  # [B, T, 1, h, w] normalised
    valid: Tensor,  # bool [B, T, 1, h, w]
) -> Tensor:  # scalar
    """Compute the hinge loss of random pairs, which must be ordered as in the truth, up to MAX_MARGIN."""
    flat_depth, flat_truth, flat_valid = (values.flatten(2) for values in (depth, truth, valid))
    places = torch.randint(flat_depth.shape[-1], (2, PAIRS), device=depth.device)
    first, second = places
    apart = flat_truth[..., first] - flat_truth[..., second]
    counted = flat_valid[..., first] & flat_valid[..., second] & (apart.abs() > MIN_DIFFERENCE)
    ordered = (flat_depth[..., first] - flat_depth[..., second]) * apart.sign()
    return _mean(F.relu(apart.abs().clamp_max(MAX_MARGIN) - ordered), counted).mean()


def temporal_loss(
    depth: Tensor,  # [B, T, 1, h, w] normalised
    flow: Tensor,  # [B, T, 2, h, w] px, to the previous frame; the first frame's is ignored
    confidence: Tensor,  # [B, T, 1, h, w] in [0, 1], of the flow
) -> Tensor:  # scalar
    """Compute the mean change of depth along the flow between frames, weighted by its confidence."""
    now, trust = depth[:, 1:].flatten(0, 1), confidence[:, 1:].flatten(0, 1)
    warped = warp(depth[:, :-1].flatten(0, 1), flow[:, 1:].flatten(0, 1))
    return ((now - warped).abs() * trust).sum() / trust.sum().clamp_min(1.0)


def warp(
    frames: Tensor,  # [N, C, h, w], at the target
    flow: Tensor,  # [N, 2, h, w] px from source to target
) -> Tensor:  # [N, C, h, w], at the source
    """Warp backward along the flow, differentiably; beyond the border the nearest pixel is used."""
    height, width = frames.shape[-2:]
    columns = torch.arange(width, device=flow.device) + flow[:, 0]
    rows = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    places = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=-1)
    return F.grid_sample(frames, places, mode="bilinear", padding_mode="border", align_corners=False)


def _mean(values: Tensor, counted: Tensor) -> Tensor:  # [B]
    """Return the mean of each sample over the counted pixels; 0 if there are none."""
    weight = counted.flatten(1).to(values.dtype)
    return (values.flatten(1) * weight).sum(1) / weight.sum(1).clamp_min(1)
