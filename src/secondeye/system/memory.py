"""How much memory this process may still take, and how it returns what it freed."""

import ctypes
import sys
from pathlib import Path

import psutil

_M_MMAP_THRESHOLD, _THRESHOLD_BYTES = -3, 4 * 2**20  # of glibc's mallopt

_CGROUPS = (  # limit, usage and statistics of a container, by version of control groups
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)


def return_freed_arrays() -> None:
    """Have this process return freed arrays of 4 MiB and more to the system at once; glibc only.

    By default glibc keeps freed blocks of up to 32 MiB, the size of a frame. Between frames in use they could
    not be returned: the peak of a 4K conversion by diffusion was 7.8 GiB with them, 5.3 GiB without.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)


def free_memory_bytes(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the memory that the machine has available, or a container's limit less its usage if smaller.

    Cached files of a container count as free, as they do on the machine.
    """
    free = psutil.virtual_memory().available
    for limit_name, usage_name, cache_name in _CGROUPS:
        limit = _read(cgroups / limit_name)
        usage = _read(cgroups / usage_name)
        if limit is not None and usage is not None:
            cached = _read_statistic(cgroups / usage_name, cache_name)
            free = min(free, max(0, limit - usage + cached))
    return int(free)


def _read(path: Path) -> int | None:
    """Return the number in a file; None without the file, or where it says `max`."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _read_statistic(usage: Path, name: str) -> int:
    """Return one line of memory.stat, beside the usage; 0 if it is missing."""
    try:
        lines = (usage.parent / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    statistics = dict(line.split() for line in lines)
    return int(statistics.get(name, 0))
