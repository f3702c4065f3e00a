"""What this machine has, and what each missing thing disables."""

import os
import platform
import shutil
import socket
from pathlib import Path

import psutil
import torch

from secondeye.depth import best_available
from secondeye.imaging.backends import has_triton
from secondeye.system.disk import format_bytes
from secondeye.video.write import has_encoder

_HUB = ("huggingface.co", 443)
_PATIENCE_SECONDS = 2.0


def examine() -> list[str]:
    """One plain line a thing; nothing here fails."""
    return [_cpu(), _memory(), _disk(), _gpu(), _triton(), _encoders(), _hub(), _weights()]


def _cpu() -> str:
    return f"CPU: {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def _memory() -> str:
    memory = psutil.virtual_memory()
    return f"memory: {format_bytes(memory.total)}, {format_bytes(memory.available)} free"


def _disk() -> str:
    usage = shutil.disk_usage(Path.cwd())
    return f"disk here: {format_bytes(usage.total)}, {format_bytes(usage.free)} free"


def _gpu() -> str:
    if not torch.cuda.is_available():
        return "GPU: none; everything runs on the CPU, `./run test-gpu` has nothing to do"
    names = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    return f"GPU: {', '.join(names)}"


def _triton() -> str:
    if not has_triton():
        return "Triton: not installed; splat and warp of arrays on a GPU fall back to plain torch"
    return "Triton: installed, for splat and warp of arrays on a GPU"


def _encoders() -> str:
    wanted = {"libx264": "H.264 (convert)", "ffv1": "FFV1 (dataset)", "aac": "AAC (sample)"}
    there = [name for name in wanted if has_encoder(name)]
    missing = [use for name, use in wanted.items() if name not in there]
    return f"encoders: {', '.join(there)}" + (f"; missing for {', '.join(missing)}" if missing else "")


def _hub() -> str:
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() not in ("0", "", "false", "no", "off"):
        return "Hugging Face: offline by HF_HUB_OFFLINE; only weights already in its cache can be used"
    try:
        socket.create_connection(_HUB, _PATIENCE_SECONDS).close()
    except OSError as error:
        reason = error.strerror or "no answer"
        return f"Hugging Face: not reachable ({reason}); only weights already in its cache can be used"
    return "Hugging Face: reachable"


def _weights() -> str:
    if best_available() == "motion":
        return "depth weights: none in the Hugging Face cache; `convert` uses `motion`, which needs none"
    return f"depth weights: {best_available()} is in the Hugging Face cache"
