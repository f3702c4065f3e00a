"""Is there room on the disk?"""

import shutil
from pathlib import Path

from secondeye.system.errors import UserError


def require_free_space(folder: Path, need_bytes: float, label: str) -> None:
    """Print the estimate; raise Refusal when the disk of `folder` does not have that much room."""
    free = shutil.disk_usage(folder).free
    print(f"{label}: at most {format_bytes(need_bytes)} on disk, {format_bytes(free)} free", flush=True)
    if need_bytes > free:
        raise UserError(
            f"{label}: {folder} needs up to {format_bytes(need_bytes)} and has {format_bytes(free)}; "
            "free some disk or work on less"
        )


def format_bytes(size_bytes: float) -> str:
    """A size as people read it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"
