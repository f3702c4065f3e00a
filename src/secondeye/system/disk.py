"""Check for free disk space."""

import shutil
from pathlib import Path

from humanize import naturalsize

from secondeye.system.errors import UserError


def require_free_space(folder: Path, need_bytes: float, label: str) -> None:
    """Print the estimated disk usage, and raise UserError if the disk of `folder` has less free space."""
    free = shutil.disk_usage(folder).free
    need_size, free_size = naturalsize(need_bytes, binary=True), naturalsize(free, binary=True)
    print(f"{label}: at most {need_size} on disk, {free_size} free", flush=True)
    if need_bytes > free:
        raise UserError(
            f"{label}: {folder} needs up to {need_size} but only {free_size} are free; "
            "free disk space or process less"
        )
