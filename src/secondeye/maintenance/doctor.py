"""Report what this machine provides, and what each missing part disables."""

import os
import platform
import shutil
import socket
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import torch
from huggingface_hub import constants
from humanize import naturalsize

from secondeye.depth.estimators import FALLBACK, best_available
from secondeye.imaging.backends import choose_backend, has_triton
from secondeye.maintenance.capacity import describe_capacity
from secondeye.system.process import best_device, count_gpus
from secondeye.system.text import pluralize
from secondeye.video.encoders import ENCODERS, has_encoder, why_unusable

_TIMEOUT_SECONDS = 2.0


def examine() -> list[str]:
    """Return one line per part of the machine, and what fits into its memory; never raises."""
    parts = [_cpu(), _memory(), _disk(), _gpu(), _triton(), _encoders(), _hub(), _weights()]
    return parts + describe_capacity(best_device())


def _cpu() -> str:
    cores = pluralize(os.cpu_count() or 1, "core")
    return f"CPU: {cores}, {platform.machine()}, Python {platform.python_version()}"


def _memory() -> str:
    memory = psutil.virtual_memory()
    return f"memory: {_size(memory.total)}, {_size(memory.available)} free"


def _disk() -> str:
    usage = shutil.disk_usage(Path.cwd())
    return f"disk here: {_size(usage.total)}, {_size(usage.free)} free"


def _size(size_bytes: int) -> str:
    return naturalsize(size_bytes, binary=True)


def _gpu() -> str:
    if best_device() == "cpu":
        return "GPU: none; everything runs on the CPU, and `./run test-gpu` skips all tests"
    names = [torch.cuda.get_device_name(k) for k in range(count_gpus())]
    return f"GPU: {', '.join(names)}"


def _triton() -> str:
    pixel = torch.zeros(1, device=best_device())
    chosen = choose_backend("auto", (), pixel, pixel)
    if not has_triton():
        return f"Triton: not installed; splat and warp use {chosen}, on a GPU plain torch, which is slower"
    return f"Triton: installed, for splat and warp on a GPU; here they use {chosen}"


def _encoders() -> str:
    """Say which values of `--codec` work; data/sample also needs AAC."""
    reasons = {codec: why_unusable(codec) for codec in ENCODERS}
    present = [codec for codec, reason in reasons.items() if not reason]
    present += ["aac"] if has_encoder("aac") else []
    missing = [f"{codec} ({reason})" for codec, reason in reasons.items() if reason]
    return f"encoders: {', '.join(present)}" + (f"; not here: {', '.join(missing)}" if missing else "")


def _hub() -> str:
    if constants.HF_HUB_OFFLINE:
        return "Hugging Face: offline by HF_HUB_OFFLINE; only cached weights can be used"
    host = urlsplit(constants.ENDPOINT).hostname or constants.ENDPOINT
    try:
        socket.create_connection((host, 443), _TIMEOUT_SECONDS).close()
    except OSError as error:
        reason = error.strerror or "no answer"
        return f"Hugging Face: {host} cannot be reached ({reason}); only cached weights can be used"
    return "Hugging Face: reachable"


def _weights() -> str:
    if best_available() == FALLBACK:
        return (
            "depth weights: none in the Hugging Face cache; `convert` downloads Depth Anything V2 Small, or "
            f"without a network uses `{FALLBACK}`, which needs none"
        )
    return f"depth weights: {best_available()} is in the Hugging Face cache"
