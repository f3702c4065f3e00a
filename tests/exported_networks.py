"""Networks with known outputs, exported to files."""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

EXAMPLE = (torch.zeros(2, 3, 32, 64), torch.zeros(2, 3, 32, 64))


class BestShift(nn.Module):
    """Block matching with 5 x 5 blocks over whole shifts; returns flow: negative, in px."""

    def __init__(self, max_shift: int) -> None:
        super().__init__()
        self.max_shift = max_shift

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        beside = nn.functional.pad(right, (self.max_shift, 0, 0, 0), mode="replicate")
        shifted = beside.unfold(-1, self.max_shift + 1, 1).flip(-1)  # [T, 3, H, W, shifts]
        difference = (left[..., None] - shifted).abs().mean(1).permute(0, 3, 1, 2)
        costs = nn.functional.avg_pool2d(difference, 5, 1, 2, count_include_pad=False)
        return -costs.argmin(1, keepdim=True).float()


class Formula(nn.Module):
    """Return a formula of both views."""

    def __init__(self, formula: Callable[..., Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.formula = formula

    def forward(self, *views: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.formula(*views)


def program_of(
    network: nn.Module,
    example: tuple[Tensor, ...] = EXAMPLE,
    *,
    any_size: bool = True,  # otherwise only the example's
) -> torch.export.ExportedProgram:
    """Export a network as a user would."""
    sides = [torch.export.Dim(name, min=1 if name == "t" else 32, max=4096) for name in "thw"]
    shapes = ({0: sides[0], 2: sides[1], 3: sides[2]},) * len(example) if any_size else None
    if any_size and isinstance(network, Formula):  # its `*views` are one argument
        shapes = (shapes,)
    return torch.export.export(network.eval(), example, dynamic_shapes=shapes)


def write_pt2(path: Path, program: torch.export.ExportedProgram) -> Path:
    torch.export.save(program, path)
    return path


def write_onnx(path: Path, program: torch.export.ExportedProgram) -> Path:
    """Export to ONNX; silence the exporter's warnings, e.g. about missing torchvision."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(program, f=path, dynamo=True, verbose=False, external_data=False)
    return path


WRITERS = {"pt2": write_pt2, "onnx": write_onnx}
