"""The most memory that a process has held."""

from pathlib import Path


def high_water_mib(pid: int) -> float:
    """Return the kernel's high-water mark (VmHWM) of a process, 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    found = [line.split()[1] for line in lines if line.startswith("VmHWM")]
    return int(found[0]) / 1024 if found else 0.0
