"""Losses of the light inpainter: reconstruction inside holes, edges, and a patch discriminator."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secondeye.imaging.optical_flow import LUMA

GRADIENT_WEIGHT = 0.5  # relative to colours
SCALES = (2, 4)  # px averaged together: tolerates misplaced details if the average is right
SCALE_WEIGHT = 0.5  # of each scale
MIN_AREA_PX = 1.0  # avoids division by 0 for a batch without holes
EDGE_SCALES = (2, 4)  # px of the Haar filters compared, at half the frame's size
EDGE_WEIGHT_PX = 8  # of the Haar filter that weights positions
EDGE_OFFSET = 30 / 255**2  # squared brightness: the paper's constant for a range of 1
DISCRIMINATOR_CHANNELS = (24, 48, 64)


def inpainting_loss(
    inpainted: Tensor,  # [B, 3, H, W]
    truth: Tensor,  # [B, 3, H, W]
    hole_mask: Tensor,  # [B, 1, H, W] in [0, 1]: the share of each pixel that was inpainted
) -> tuple[Tensor, dict[str, Tensor]]:  # to minimise, its parts
    """Compute the L1 loss of colours, gradients and coarser scales, each averaged over the holes."""
    error = inpainted - truth
    parts = {
        "colour": hole_l1(error, hole_mask),
        "gradient": _gradient_l1(error, hole_mask),
        "coarse": sum(
            (hole_l1(_average(error, scale), _average(hole_mask, scale)) for scale in SCALES),
            start=inpainted.new_zeros(()),
        ),
    }
    value = parts["colour"] + GRADIENT_WEIGHT * parts["gradient"] + SCALE_WEIGHT * parts["coarse"]
    return value, parts


def hole_l1(
    error: Tensor,  # [B, C, H, W]
    weight: Tensor,  # [B, 1, H, W] in [0, 1]
) -> Tensor:  # []
    """Compute the mean absolute error over the weighted pixels of the batch."""
    return (error.abs() * weight).sum() / (weight.sum() * error.shape[1]).clamp(min=MIN_AREA_PX)


def edge_loss(
    inpainted: Tensor,  # [B, 3, H, W] in [0, 1]
    truth: Tensor,  # [B, 3, H, W] in [0, 1]
    hole_mask: Tensor,  # [B, 1, H, W] in [0, 1]
) -> Tensor:  # [] in [0, 1], 0 for the same edges
    """Compute the dissimilarity of edges around holes, weighted by edge strength.

    After HaarPSI (Reisenhofer et al. 2018), on brightness only. Positions whose widest filter reaches no hole
    have no weight.
    """
    ours, theirs = (F.avg_pool2d(_brightness(frames), 2) for frames in (inpainted, truth))
    dissimilarity = ours.new_zeros(())
    for size in EDGE_SCALES:
        our_edges, true_edges = _haar(ours, size), _haar(theirs, size)
        difference = (our_edges.abs() - true_edges.abs()) ** 2
        scale = our_edges**2 + true_edges**2 + EDGE_OFFSET
        dissimilarity = dissimilarity + difference / scale / len(EDGE_SCALES)
    near_hole = F.max_pool2d(F.avg_pool2d(hole_mask, 2), EDGE_WEIGHT_PX + 1, 1, EDGE_WEIGHT_PX // 2)
    strength = torch.maximum(_haar(ours, EDGE_WEIGHT_PX).abs(), _haar(theirs, EDGE_WEIGHT_PX).abs())
    weight = (strength * (near_hole > 0)).detach()
    return (dissimilarity * weight).sum() / weight.sum().clamp(min=EDGE_OFFSET)


def _brightness(frames: Tensor) -> Tensor:
    return (frames * frames.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)


def _haar(plane: Tensor, size: int) -> Tensor:
    """Return horizontal and vertical Haar coefficients [B, 2, h, w], scaled as in the paper."""
    half = size // 2
    padded = F.pad(plane, (half - 1, half, half - 1, half), mode="replicate")
    wide, tall = F.avg_pool2d(padded, (half, size), 1), F.avg_pool2d(padded, (size, half), 1)
    steps = wide[..., half:, :] - wide[..., :-half, :], tall[..., half:] - tall[..., :-half]
    return half * torch.cat(steps, 1)


class Discriminator(nn.Module):
    """A PatchGAN discriminator (Isola et al. 2017) that also takes the hole mask; higher logits are real."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third = DISCRIMINATOR_CHANNELS
        self.layers = nn.Sequential(
            nn.Conv2d(4, first, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(first, second, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(second, third, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(third, 1, 1),
        )

    def forward(
        self,
        frames: Tensor,  # [B, 3, H, W] in [0, 1]
        hole_mask: Tensor,  # [B, 1, H, W] in [0, 1]
    ) -> tuple[Tensor, Tensor]:  # [B, 1, H / 4, W / 4] logits, and the hole mask at that size
        """Return patch logits; receptive field 22 px."""
        logits: Tensor = self.layers(torch.cat([frames, hole_mask], 1))
        height, width = logits.shape[-2:]
        return logits, F.adaptive_avg_pool2d(hole_mask, (height, width))


def generator_loss(logits: Tensor, hole_mask: Tensor) -> Tensor:
    """Compute the inpainter's hinge GAN loss inside holes (Lim, Ye 2017)."""
    return _masked_mean(-logits, hole_mask)


def discriminator_loss(inpainted_logits: Tensor, true_logits: Tensor, hole_mask: Tensor) -> Tensor:
    """Compute the discriminator's hinge loss inside holes, with a margin of 1."""
    return _masked_mean(F.relu(1 + inpainted_logits) + F.relu(1 - true_logits), hole_mask)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=MIN_AREA_PX)


def _gradient_l1(error: Tensor, hole_mask: Tensor) -> Tensor:
    """Compute the L1 loss of differences between neighbours of which at least one is in a hole."""
    total = error.new_zeros(())
    for axis in (-1, -2):
        size = error.shape[axis] - 1
        first, second = (hole_mask.narrow(axis, start, size) for start in (0, 1))
        total = total + hole_l1(error.diff(dim=axis), first.maximum(second))
    return total


def _average(plane: Tensor, scale: int) -> Tensor:
    return F.avg_pool2d(plane, scale, ceil_mode=True)
