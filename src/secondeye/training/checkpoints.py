"""Checkpoints of a training: whole safetensors files, the newest two of each name."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from secondeye.system.errors import UserError
from secondeye.system.files import atomic_path
from secondeye.system.process import is_main_process

KEPT = 2  # should the disk have spoilt the last one, there is one before it


def save_checkpoint(folder: Path, name: str, steps: int, tensors: Mapping[str, Tensor]) -> None:
    """Write what a training knows after so many steps; those before the last two go.

    Raises Refusal where it can not be written, as on a full disk; the earlier ones are then left as they are.
    """
    path = folder / f"{name}_{steps:08d}.safetensors"
    with atomic_path(path) as part:
        write_tensors(part, tensors, path)
    for older in _paths(folder, name)[:-KEPT]:
        older.unlink()


def write_tensors(
    part: Path,  # a temporary name
    tensors: Mapping[str, Tensor],
    path: Path,  # the name it will have
) -> None:
    """Write a file of a training; Refusal where it can not be, and nothing is left of it then."""
    try:
        save_file(dict(tensors), part)
    except (OSError, SafetensorError) as error:  # safetensors says so in its own way
        part.unlink(missing_ok=True)
        raise UserError(
            f"{path}: can not be written ({error}); free some disk and start again: the training goes on "
            "from the checkpoint before"
        ) from error


def load_checkpoint(folder: Path, name: str) -> tuple[int, dict[str, Tensor]]:
    """Steps done by the last checkpoint that can be read, and what it holds; 0 and nothing without one."""
    for path in reversed(_paths(folder, name)):
        try:
            return int(path.stem.rpartition("_")[2]), load_file(path)
        except SafetensorError as error:
            if is_main_process():
                print(f"{path}: is broken ({error}); the training goes on from the one before", flush=True)
    return 0, {}


def _paths(folder: Path, name: str) -> list[Path]:
    return sorted(folder.glob(f"{name}_*.safetensors"))
