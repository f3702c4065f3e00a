"""Networks of our own whose answers are known, exported to files."""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

EXAMPLE = (torch.zeros(2, 3, 32, 64), torch.zeros(2, 3, 32, 64))


class BestShift(nn.Module):
    """Tries whole shifts, compares 5 x 5 pixels, and answers like an optical flow: negative, in pixels."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        beside = nn.functional.pad(right, (self.most, 0, 0, 0), mode="replicate")
        shifted = beside.unfold(-1, self.most + 1, 1).flip(-1)  # [T, 3, H, W, shifts]
        difference = (left[..., None] - shifted).abs().mean(1).permute(0, 3, 1, 2)
        costs = nn.functional.avg_pool2d(difference, 5, 1, 2, count_include_pad=False)
        return -costs.argmin(1, keepdim=True).float()


class Calculates(nn.Module):
    """Answers with a formula of both eyes."""

    def __init__(self, formula: Callable[..., Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.formula = formula

    def forward(self, *eyes: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.formula(*eyes)


def program_of(
    network: nn.Module,
    example: tuple[Tensor, ...] = EXAMPLE,
    *,
    any_size: bool = True,  # else only the example's
) -> torch.export.ExportedProgram:
    """As a user would export it."""
    sides = [torch.export.Dim(name, min=1 if name == "t" else 32, max=4096) for name in "thw"]
    shapes = ({0: sides[0], 2: sides[1], 3: sides[2]},) * len(example) if any_size else None
    if any_size and isinstance(network, Calculates):  # its `*eyes` are one argument
        shapes = (shapes,)
    return torch.export.export(network.eval(), example, dynamic_shapes=shapes)


def write_pt2(path: Path, program: torch.export.ExportedProgram) -> Path:
    torch.export.save(program, path)
    return path


def write_onnx(path: Path, program: torch.export.ExportedProgram) -> Path:
    """torch's exporter warns about itself and misses torchvision, which is of no use here."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(program, f=path, dynamo=True, verbose=False, external_data=False)
    return path


WRITERS = {"pt2": write_pt2, "onnx": write_onnx}
