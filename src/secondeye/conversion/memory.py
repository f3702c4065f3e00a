"""How many frames a conversion keeps in memory: from the frame size and the memory budget."""

from secondeye.conversion.settings import GIB, ConversionSettings
from secondeye.system.errors import UserError
from secondeye.system.memory import free_memory_bytes
from secondeye.system.process import best_device
from secondeye.video.probe import FilmInfo

# Measured with benchmarks/memory.py and rounded up.
_PROCESS_BYTES = int(0.7 * GIB)  # interpreter, libraries, weights of `light` and the depth estimators
_FIXED_BYTES, _WINDOW_BYTES = (
    300,
    60,
)  # per pixel: encoder, decoder, current frame; each frame of a window
_LARGE_FIXED_BYTES, _LARGE_WINDOW_BYTES = 140, 25  # beyond 4K: the encoder and the queues hold fewer frames
_LARGE_FRAME_PIXELS = 4096 * 2304

_WINDOW_PIXELS = 2 * 1920 * 1080  # longer windows leave the caches, and later stages wait for them
_MAX_WINDOW_FRAMES = 32
FREE_SHARE = 0.5  # of the free memory, without a budget


def choose_window_frames(info: FilmInfo, settings: ConversionSettings, processes: int = 1) -> int:
    """Return how many frames are read, rendered and encoded together; it does not change the result.

    The budget is `max_memory_gb`, if the device is the CPU, else half of the memory that is free. Each of
    `processes` gets an equal part. Raises UserError if not even one frame fits: into `max_memory_gb`, or
    without it into the free memory.
    """
    pixels = info.width * info.height
    given = settings.max_memory_bytes if best_device() == "cpu" else None
    limit = given or free_memory_bytes()
    budget = given or limit * FREE_SHARE
    need = processes * estimate_bytes(pixels, 1)
    if need > limit:
        named = "--max-memory-gb allows" if given else "are free"
        raise UserError(
            f"{info.path}: {info.width}x{info.height} needs {need / GIB:.1f} GiB of memory, but "
            f"{limit / GIB:.1f} GiB {named}; give it more, or convert a smaller version of the film"
        )
    return frames_within(pixels, budget / processes)


def frames_within(pixels: int, budget_bytes: float) -> int:
    """Return how many frames of this size one process handles together within a budget, at least 1."""
    frames = max(1, min(_MAX_WINDOW_FRAMES, _WINDOW_PIXELS // pixels))
    while frames > 1 and estimate_bytes(pixels, frames) > budget_bytes:
        frames -= 1
    return frames


def estimate_bytes(pixels: int, window_frames: int) -> int:
    """Return the peak memory of one process that converts frames of this size; an upper bound on the CPU.

    The networks of the diffusion inpainter and of Depth Anything are not included.
    """
    fixed, each = _FIXED_BYTES, _WINDOW_BYTES
    if not is_pipelined(pixels):
        fixed, each = _LARGE_FIXED_BYTES, _LARGE_WINDOW_BYTES
    return _PROCESS_BYTES + pixels * (fixed + each * window_frames)


def is_pipelined(pixels: int) -> bool:
    """Return whether decoding, rendering and encoding overlap, with windows in queues between them."""
    return pixels <= _LARGE_FRAME_PIXELS
