"""How far a painted picture is from the truth, where it was painted, and whether it can be told from one."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secondeye.imaging.optical_flow import LUMA

GRADIENT_WEIGHT = 0.5  # beside 1 of the colours
SCALES = (2, 4)  # px averaged together: what is right on the whole counts though its details lie elsewhere
SCALE_WEIGHT = 0.5  # of each scale
SMALLEST_AREA = 1.0  # px: a batch without holes has no loss
EDGE_SCALES = (2, 4)  # px wide, of the edges that are compared; of pictures half as large
EDGE_WEIGHT_PX = 8  # wide, of those that say how much a place counts
SAME_EDGE = 30 / 255**2  # squared brightness: the paper's constant, on the scale of 1
JUDGE_CHANNELS = (24, 48, 64)


def inpainting_loss(
    painted: Tensor,  # [B, 3, H, W]
    truth: Tensor,  # [B, 3, H, W]
    open_: Tensor,  # [B, 1, H, W] in [0, 1]: how much of a pixel was painted
) -> tuple[Tensor, dict[str, Tensor]]:  # to minimise, its parts
    """L1 of colours, of gradients and of coarser pictures, each averaged over what was open (ours)."""
    parts = {
        "colour": hole_l1(painted - truth, open_),
        "gradient": _gradient_l1(painted - truth, open_),
        "coarse": sum(
            (hole_l1(_average(painted - truth, scale), _average(open_, scale)) for scale in SCALES),
            start=painted.new_zeros(()),
        ),
    }
    value = parts["colour"] + GRADIENT_WEIGHT * parts["gradient"] + SCALE_WEIGHT * parts["coarse"]
    return value, parts


def hole_l1(
    error: Tensor,  # [B, C, H, W]
    weight: Tensor,  # [B, 1, H, W] in [0, 1]
) -> Tensor:  # []
    """Mean size of the error over the weighted pixels of the batch."""
    return (error.abs() * weight).sum() / (weight.sum() * error.shape[1]).clamp(min=SMALLEST_AREA)


def edge_loss(
    painted: Tensor,  # [B, 3, H, W] in [0, 1]
    truth: Tensor,  # [B, 3, H, W] in [0, 1]
    open_: Tensor,  # [B, 1, H, W] in [0, 1]
) -> Tensor:  # [] in [0, 1], 0 for the same edges
    """How unlike edges are, the more so where one is strong: HaarPSI's structure, near what was open.

    After Reisenhofer et al. 2018. Of brightness alone, and places whose widest filter meets nothing painted
    do not count.
    """
    here, there = (F.avg_pool2d(_brightness(picture), 2) for picture in (painted, truth))
    unlike = here.new_zeros(())
    for size in EDGE_SCALES:
        mine, true = _edges(here, size), _edges(there, size)
        far = (mine.abs() - true.abs()) ** 2
        unlike = unlike + far / (mine**2 + true**2 + SAME_EDGE) / len(EDGE_SCALES)
    near = F.max_pool2d(F.avg_pool2d(open_, 2), EDGE_WEIGHT_PX + 1, 1, EDGE_WEIGHT_PX // 2)
    strength = torch.maximum(_edges(here, EDGE_WEIGHT_PX).abs(), _edges(there, EDGE_WEIGHT_PX).abs())
    weight = (strength * (near > 0)).detach()
    return (unlike * weight).sum() / weight.sum().clamp(min=SAME_EDGE)


def _brightness(pictures: Tensor) -> Tensor:
    return (pictures * pictures.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)


def _edges(plane: Tensor, size: int) -> Tensor:
    """[B, 2, h, w] horizontal and vertical Haar coefficients, as large as the paper's."""
    half = size // 2
    padded = F.pad(plane, (half - 1, half, half - 1, half), mode="replicate")
    lying, standing = F.avg_pool2d(padded, (half, size), 1), F.avg_pool2d(padded, (size, half), 1)
    steps = lying[..., half:, :] - lying[..., :-half, :], standing[..., half:] - standing[..., :-half]
    return half * torch.cat(steps, 1)


class Discriminator(nn.Module):
    """Says of each patch of a picture how true it looks (PatchGAN, Isola et al. 2017): larger is truer.

    Sees what was open, too: it compares what was painted with what is around it.
    """

    def __init__(self) -> None:
        super().__init__()
        first, second, third = JUDGE_CHANNELS
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
        pictures: Tensor,  # [B, 3, H, W] in [0, 1]
        open_: Tensor,  # [B, 1, H, W] in [0, 1]
    ) -> tuple[Tensor, Tensor]:  # [B, 1, H / 4, W / 4] how true, and how much of it was open
        """Each place sees 22 px."""
        verdict: Tensor = self.layers(torch.cat([pictures, open_], 1))
        height, width = verdict.shape[-2:]
        return verdict, F.adaptive_avg_pool2d(open_, (height, width))


def generator_loss(verdict: Tensor, open_: Tensor) -> Tensor:
    """What the painter minimises: painted places look true (hinge, Lim, Ye 2017)."""
    return _mean_open(-verdict, open_)


def discriminator_loss(of_painted: Tensor, of_truth: Tensor, open_: Tensor) -> Tensor:
    """What the judge minimises: it tells painted places from true ones, and is content with a margin of 1."""
    return _mean_open(F.relu(1 + of_painted) + F.relu(1 - of_truth), open_)


def _mean_open(values: Tensor, open_: Tensor) -> Tensor:
    return (values * open_).sum() / open_.sum().clamp(min=SMALLEST_AREA)


def _gradient_l1(error: Tensor, open_: Tensor) -> Tensor:
    """Differences of neighbours, where at least one of the two was painted: edges and texture."""
    total = error.new_zeros(())
    for axis in (-1, -2):
        size = error.shape[axis] - 1
        here, there = (open_.narrow(axis, start, size) for start in (0, 1))
        total = total + hole_l1(error.diff(dim=axis), here.maximum(there))
    return total


def _average(plane: Tensor, scale: int) -> Tensor:
    return F.avg_pool2d(plane, scale, ceil_mode=True)
