"""Checkpoints of a training: safetensors files, the newest two of each name."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from secondeye.system.errors import UserError
from secondeye.system.files import atomic_path
from secondeye.system.process import is_main_process

KEPT = 2  # the older one is used when the newer one is damaged


def save_checkpoint(folder: Path, name: str, steps: int, tensors: Mapping[str, Tensor]) -> None:
    """Write the state after `steps` steps and delete all but the newest two checkpoints of this name.

    Raises UserError if it cannot be written, such as on a full disk; earlier ones are then kept.
    """
    path = folder / f"{name}_{steps:08d}.safetensors"
    with atomic_path(path) as part:
        write_tensors(part, tensors, path)
    for old in _paths(folder, name)[:-KEPT]:
        old.unlink()


def write_tensors(
    part: Path,  # temporary name
    tensors: Mapping[str, Tensor],
    path: Path,  # final name, for the error
) -> None:
    """Write tensors to a temporary file. Raises UserError, and leaves no file, if that fails."""
    try:
        save_file(dict(tensors), part)
    except (OSError, SafetensorError) as error:  # safetensors wraps some errors of the system
        part.unlink(missing_ok=True)
        raise UserError(
            f"{path}: cannot be written ({error}); free some disk space and start again: training continues "
            "from the checkpoint before"
        ) from error


def load_checkpoint(folder: Path, name: str) -> tuple[int, dict[str, Tensor]]:
    """Load the newest readable checkpoint: steps done and tensors; 0 and no tensors if there is none."""
    for path in reversed(_paths(folder, name)):
        try:
            return int(path.stem.rpartition("_")[2]), load_file(path)
        except SafetensorError as error:
            if is_main_process():
                print(f"{path}: damaged ({error}); training continues from the one before", flush=True)
    return 0, {}


def _paths(folder: Path, name: str) -> list[Path]:
    return sorted(folder.glob(f"{name}_*.safetensors"))
