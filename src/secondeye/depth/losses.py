"""What the student is taught by. Depth is known up to a scale and a shift, so all but motion over time is
measured between maps brought to median 0 and mean absolute deviation 1 (Ranftl et al., TPAMI 2022: MiDaS).

Every map is [B, T, 1, h, w]: T consecutive frames of a sample share one scale and one shift, since depth
that jumps from frame to frame is wrong.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_DEVIATION = 1e-4  # of a map that is flat
LEAST_SHRINK = 0.1  # the gradient must not end where depth is worse than nothing
SCALES = 4  # of the gradient loss
PAIRS = 2048  # a frame, drawn by torch's generator
FULL_MARGIN = 0.5  # pairs farther apart than this need not be told farther apart
LEAST_DIFFERENCE = 0.05  # pairs closer than this have no order


def normalise(
    values: Tensor,  # [B, T, 1, h, w]
    valid: Tensor,  # bool, like `values`: what median and deviation are taken over
) -> Tensor:  # [B, T, 1, h, w]
    """Bring each sample to median 0 and mean absolute deviation 1; the same for any scale > 0 and shift."""
    chosen = values.masked_fill(~valid, torch.nan).flatten(1)
    median = chosen.nanmedian(dim=1).values.nan_to_num()
    centred = values - median.view(-1, 1, 1, 1, 1)
    return centred / _mean(centred.abs(), valid).clamp_min(LEAST_DEVIATION).view(-1, 1, 1, 1, 1)


def shrink(
    depth: Tensor,  # [B, T, 1, h, w] normalised
    truth: Tensor,  # [B, T, 1, h, w] normalised
    valid: Tensor,  # bool [B, T, 1, h, w]
) -> Tensor:  # [B, T, 1, h, w]
    """Make a sample's depth smaller as far as that fits the truth better; the order of near and far stays.

    Normalised depth has the truth's spread whatever it knows; a student that only begins to see would pay
    for it with errors larger than those of saying nothing (ours).
    """
    fit = _mean(depth * truth, valid) / _mean(depth * depth, valid).clamp_min(LEAST_DEVIATION)
    return depth * fit.clamp(LEAST_SHRINK, 1).view(-1, 1, 1, 1, 1)


def laplace_loss(
    depth: Tensor,  # [B, T, 1, h, w] normalised
    truth: Tensor,  # [B, T, 1, h, w] normalised
    log_uncertainty: Tensor,  # [B, T, 1, h, w], of the error expected
    valid: Tensor,  # bool [B, T, 1, h, w]
) -> Tensor:  # scalar
    """Negative log-likelihood of a Laplace distribution: errors weigh less where they were foreseen.

    Kendall and Gal, NeurIPS 2017.
    """
    loss = (depth - truth).abs() * (-log_uncertainty).exp() + log_uncertainty
    return _mean(loss, valid).mean()


def error_loss(
    depth: Tensor,  # [B, T, 1, h, w] normalised
    truth: Tensor,  # [B, T, 1, h, w] normalised
    valid: Tensor,  # bool [B, T, 1, h, w]
) -> Tensor:  # scalar
    """Mean absolute error; with `normalise` on both sides the scale-and-shift-invariant loss of MiDaS."""
    return _mean((depth - truth).abs(), valid).mean()


def gradient_loss(
    depth: Tensor,  # [B, T, 1, h, w] normalised
    truth: Tensor,  # [B, T, 1, h, w] normalised
    valid: Tensor,  # bool [B, T, 1, h, w]
) -> Tensor:  # scalar
    """How the slopes differ, at SCALES scales: edges belong where the truth has them (MegaDepth)."""
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
    """Random pairs of a frame must differ as they do in the truth, up to FULL_MARGIN."""
    flat_depth, flat_truth, flat_valid = (values.flatten(2) for values in (depth, truth, valid))
    places = torch.randint(flat_depth.shape[-1], (2, PAIRS), device=depth.device)
    first, second = places
    apart = flat_truth[..., first] - flat_truth[..., second]
    counted = flat_valid[..., first] & flat_valid[..., second] & (apart.abs() > LEAST_DIFFERENCE)
    ordered = (flat_depth[..., first] - flat_depth[..., second]) * apart.sign()
    return _mean(F.relu(apart.abs().clamp_max(FULL_MARGIN) - ordered), counted).mean()


def temporal_loss(
    depth: Tensor,  # [B, T, 1, h, w] normalised
    flow: Tensor,  # [B, T, 2, h, w] px, from each frame to the one before; the first frame's is not used
    confidence: Tensor,  # [B, T, 1, h, w] in [0, 1], of the flow
) -> Tensor:  # scalar
    """How much depth changes along the flow from one frame to the next, where the flow can be trusted."""
    now, trust = depth[:, 1:].flatten(0, 1), confidence[:, 1:].flatten(0, 1)
    carried = warp(depth[:, :-1].flatten(0, 1), flow[:, 1:].flatten(0, 1))
    return ((now - carried).abs() * trust).sum() / trust.sum().clamp_min(1.0)


def warp(
    picture: Tensor,  # [N, C, h, w]: lies in the target
    flow: Tensor,  # [N, 2, h, w] px from source to target
) -> Tensor:  # [N, C, h, w], as the source sees it
    """Fetch each source pixel's value from the target; beyond the border the nearest pixel counts."""
    height, width = picture.shape[-2:]
    columns = torch.arange(width, device=flow.device) + flow[:, 0]
    rows = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    places = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=-1)
    return F.grid_sample(picture, places, mode="bilinear", padding_mode="border", align_corners=False)


def _mean(values: Tensor, counted: Tensor) -> Tensor:  # [B]
    """Mean over what counts of each sample; 0 where nothing does."""
    weight = counted.flatten(1).to(values.dtype)
    return (values.flatten(1) * weight).sum(1) / weight.sum(1).clamp_min(1)
