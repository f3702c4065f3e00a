"""Checkpoints of a training: safetensors files, the newest two of each name."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
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


class StoredTensors(Mapping[str, Tensor]):
    """The tensors of a safetensors file, each read when it is asked for.

    A tensor is mapped from the file and not copied, so that loading a checkpoint takes no second copy of it;
    what keeps a tensor clones it. Raises SafetensorError if the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = safe_open(path, framework="pt")
        self._names = frozenset(self._file.keys())

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names))

    def __len__(self) -> int:
        return len(self._names)


def load_checkpoint(folder: Path, name: str) -> tuple[int, StoredTensors | None]:
    """Open the newest readable checkpoint: steps done and tensors; 0 and None if there is none."""
    for path in reversed(_paths(folder, name)):
        try:
            return int(path.stem.rpartition("_")[2]), StoredTensors(path)
        except SafetensorError as error:
            if is_main_process():
                print(f"{path}: damaged ({error}); training continues from the one before", flush=True)
    return 0, None


def _paths(folder: Path, name: str) -> list[Path]:
    return sorted(folder.glob(f"{name}_*.safetensors"))
