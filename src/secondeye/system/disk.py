"""Check for free disk space, and explain a full disk."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from humanize import naturalsize

from secondeye.system.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the user's quota, the largest file
_REMEDY = "free disk space or process less"


def require_free_space(folder: Path, need_bytes: float, label: str) -> None:
    """Print the estimated disk usage, and raise UserError if the disk of `folder` has less free space."""
    free = shutil.disk_usage(folder).free
    need_size, free_size = naturalsize(need_bytes, binary=True), naturalsize(free, binary=True)
    print(f"{label}: at most {need_size} on disk, {free_size} free", flush=True)
    if need_bytes > free:
        raise UserError(f"{label}: {folder} needs up to {need_size} but only {free_size} are free; {_REMEDY}")


@contextmanager
def explain_full_disk(folder: Path, remedy: str) -> Iterator[None]:
    """Turn errors of a full disk inside the block into a UserError that names `folder` and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise UserError(f"{folder}: {error.strerror}; {remedy}") from error


def is_full_disk_message(message: str) -> bool:
    """Return whether an error message of a command says that the disk is full."""
    return any(part in message for part in (_REMEDY, *map(os.strerror, _FULL)))
