"""Deep3D's network: from a left view to the probabilities of shifts.

As in the paper, a convolutional network with five poolings has a branch at each scale that predicts the whole
volume of shifts; all are upsampled and summed, and a softmax over the shifts follows. The coarsest branch is
fully connected, so that it knows the whole image and each position in it. Ours: a small network with
GroupNorm that starts from random weights, where the paper's is a pretrained VGG16, and bilinear upsampling,
which the paper's deconvolutions start from. Names of submodules are names of tensors in weight files: a new
name needs a new `model.KIND`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secondeye.deep3d.selection import Shifts

CHANNELS = (16, 32, 64, 96, 128)  # at 1/2, 1/4, 1/8, 1/16 and 1/32 of the size
HIDDEN = 256  # features of the fully connected branch
GROUP = 8  # channels of a normalisation group
SIDE_MULTIPLE_PX = 2 ** len(CHANNELS)  # of both sides of the input


class Deep3D(nn.Module):
    """The network; it sees images of `height` x `width` only, which others are resized to."""

    def __init__(self, height: int, width: int, shifts: Shifts) -> None:
        super().__init__()
        if height % SIDE_MULTIPLE_PX or width % SIDE_MULTIPLE_PX:
            raise ValueError(
                f"height and width must be multiples of {SIDE_MULTIPLE_PX}, got {height}, {width}"
            )
        self.height, self.width, self.shifts = height, width, shifts
        inputs = (3, *CHANNELS[:-1])
        self.blocks = nn.ModuleList(_block(*pair) for pair in zip(inputs, CHANNELS, strict=True))
        self.branches = nn.ModuleList(nn.Conv2d(c, shifts.count, 3, padding=1) for c in CHANNELS[:-1])
        rows, columns = height // SIDE_MULTIPLE_PX, width // SIDE_MULTIPLE_PX
        self.context = nn.Sequential(
            nn.Flatten(),
            nn.Linear(CHANNELS[-1] * rows * columns, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, shifts.count * rows * columns),
            nn.Unflatten(1, (shifts.count, rows, columns)),
        )

    def forward(
        self,
        left: Tensor,  # [B, 3, height, width] in [0, 1]
    ) -> Tensor:  # [B, shifts.count, height / 2, width / 2]
        """Return the probabilities of the shifts, which sum to 1 at each pixel."""
        assert left.shape[1:] == (3, self.height, self.width), list(left.shape)
        size = self.height // 2, self.width // 2
        features, volumes = left - 0.5, []
        for block, branch in zip(self.blocks, [*self.branches, self.context], strict=True):
            features = block(features)
            volumes.append(F.interpolate(branch(features), size, mode="bilinear", align_corners=False))
        return torch.stack(volumes).sum(dim=0).float().softmax(dim=1)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions and a pooling that halves the size."""
    return nn.Sequential(
        *(_convolve(inputs, outputs), _convolve(outputs, outputs)),
        nn.MaxPool2d(2),
    )


def _convolve(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.GroupNorm(outputs // GROUP, outputs),
        nn.ReLU(),
    )
