"""How much memory this process may still take."""

from pathlib import Path

import psutil

_CGROUPS = (  # limit, usage and statistics of a container, by version of control groups
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)


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
