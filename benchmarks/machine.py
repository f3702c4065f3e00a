"""Description of the machine that a table was measured on."""

import os
import platform
from pathlib import Path

import torch


def machine() -> str:
    """Return one line: processor, cores, GPU, versions."""
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    processor = names[0] if names else platform.machine()
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{processor}, {os.cpu_count()} cores, {gpu}, {versions}"
