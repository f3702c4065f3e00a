"""How many frames a conversion keeps in memory: from the frame size and the memory budget."""

from secondeye.conversion.settings import GIB, ConversionSettings
from secondeye.conversion.views import views_to_make
from secondeye.depth.estimators import peak_bytes
from secondeye.inpaint import COMMAND, split_command
from secondeye.system.errors import UserError
from secondeye.system.memory import free_memory_bytes
from secondeye.system.process import best_device
from secondeye.video.encoders import Encoding
from secondeye.video.probe import FilmInfo

# Measured with benchmarks/memory.py and rounded up.
_PROCESS_BYTES = int(0.7 * GIB)  # interpreter, libraries, weights of `light` and the depth estimators
_FIXED_BYTES, _WINDOW_BYTES = 300, 60  # per pixel: encoder, decoder, one frame; each frame of a window
_LARGE_FIXED_BYTES, _LARGE_WINDOW_BYTES = 140, 25  # beyond 4K: the encoder and the queues hold fewer frames
_LARGE_FRAME_PIXELS = 4096 * 2304
_VIEW_FIXED_BYTES, _VIEW_WINDOW_BYTES = 40, 50  # of a second view that is synthesised

# Per pixel and view: frames that an inpainter holds until it has seen those after them.
_HELD_BYTES = {"propagation": 400, COMMAND: 700}

# With the diffusion inpainter: the process without weights; per pixel: as above, with one frame.
_DIFFUSION_PROCESS_BYTES, _DIFFUSION_PIXEL_BYTES = int(0.9 * GIB), 160

# Per pixel: what encoders take beyond x264 at `veryfast`, mostly frames that they look ahead; beyond 4K x264
# looks at few.
_CODEC_BYTES = {"hevc": 230, "av1": 340}
_TEN_BIT_BYTES = 220
_PRESET_BYTES = {"faster": 100, "fast": 180, "medium": 280, "slow": 380, "slower": 520, "veryslow": 650}
_LARGE_ENCODER_SHARE = 0.3

# Of a depth network on the CPU: weights, and one frame at a time; measured with random weights: 0.5 GiB.
_DEPTH_NETWORK_BYTES = {"depth-anything-v2": int(0.8 * GIB)}
_DEPTH_FRAME_BYTES = 150  # per pixel of the film: a window, a frame in float32, and copies

_WINDOW_PIXELS = 2 * 1920 * 1080  # longer windows leave the caches, and later stages wait for them
_MAX_WINDOW_FRAMES = 32
FREE_SHARE = 0.5  # of the free memory, without a budget


def choose_window_frames(info: FilmInfo, settings: ConversionSettings, processes: int = 1) -> int:
    """Return how many frames are read, rendered and encoded together; it does not change the result.

    The budget is `max_memory_gb`, if the device is the CPU, else half of the memory that is free. Each of
    `processes` gets an equal part, besides the one that starts them. The diffusion inpainter buffers frames
    itself: on the CPU it gets one at a time, and the rest of the budget. Raises UserError if not even one
    frame fits: into `max_memory_gb`, or without it into the free memory.
    """
    pixels, on_cpu = info.width * info.height, best_device() == "cpu"
    views = len(views_to_make(settings.views))
    buffered = on_cpu and settings.inpainter == "diffusion"
    given = settings.max_memory_bytes if on_cpu else None
    limit = given or free_memory_bytes()
    budget = given or limit * FREE_SHARE
    encoder = encoder_bytes(pixels, settings.encoding)
    held = held_bytes(pixels, settings)
    if buffered:
        one = reserved_bytes(pixels, settings.encoding, views)
    else:
        one = estimate_bytes(pixels, 1, views) + encoder + held
    if on_cpu:
        one = max(one, depth_pass_bytes(info.height, info.width, settings.located_depth))
    need = processes * one + parent_bytes(settings, processes)
    if need > limit:
        allowed = f"{limit / GIB:.1f} GiB are free"
        if given:
            allowed = f"--max-memory-gb allows {limit / GIB:.1f} GiB"
        raise UserError(
            f"{info.path}: {info.width}x{info.height} needs {need / GIB:.1f} GiB of memory, but "
            f"{allowed}; give it more, or convert a smaller version of the film"
        )
    share = (budget - parent_bytes(settings, processes)) / processes
    return 1 if buffered else frames_within(pixels, share - encoder - held, views)


def frames_within(pixels: int, budget_bytes: float, views: int = 1) -> int:
    """Return how many frames of this size one process handles together within a budget, at least 1."""
    frames = max(1, min(_MAX_WINDOW_FRAMES, _WINDOW_PIXELS // pixels))
    while frames > 1 and estimate_bytes(pixels, frames, views) > budget_bytes:
        frames -= 1
    return frames


def estimate_bytes(
    pixels: int,
    window_frames: int,
    views: int = 1,  # that are synthesised
) -> int:
    """Return the peak memory of one process that converts frames of this size; an upper bound on the CPU.

    It is that of the fast presets of the encoder: see `encoder_bytes` for the others.
    The diffusion inpainter is not included, nor are Depth Anything and frames that an inpainter holds: see
    `depth_pass_bytes` and `held_bytes`.
    """
    fixed, each = _FIXED_BYTES, _WINDOW_BYTES
    if not is_pipelined(pixels):
        fixed, each = _LARGE_FIXED_BYTES, _LARGE_WINDOW_BYTES
    fixed, each = fixed + (views - 1) * _VIEW_FIXED_BYTES, each + (views - 1) * _VIEW_WINDOW_BYTES
    return _PROCESS_BYTES + pixels * (fixed + each * window_frames)


def held_bytes(pixels: int, settings: ConversionSettings) -> int:
    """Return what frames take that wait for later ones in `propagation`, or for a command's window."""
    each = _HELD_BYTES.get(split_command(settings.inpainter)[0], 0)
    return len(views_to_make(settings.views)) * pixels * each


def depth_pass_bytes(height: int, width: int, depth: str) -> int:
    """Return the peak memory of the depth pass on the CPU, which ends before frames are rendered.

    0 for estimators without a large network, and for `MemoryCheckedEstimator`s, which know their own.
    """
    network = _DEPTH_NETWORK_BYTES.get(depth) or peak_bytes(depth, height, width)
    return _PROCESS_BYTES + network + _DEPTH_FRAME_BYTES * height * width if network else 0


def encoder_bytes(pixels: int, encoding: Encoding) -> int:
    """Return what the encoder takes beyond x264 at `veryfast` and 8 bits; 0 for that and faster presets."""
    each = _CODEC_BYTES.get(encoding.codec, 0) + _PRESET_BYTES.get(encoding.preset, 0)
    each += _TEN_BIT_BYTES if encoding.bit_depth == 10 else 0
    looks_ahead_less = encoding.codec == "h264" and not is_pipelined(pixels)
    return int((_LARGE_ENCODER_SHARE if looks_ahead_less else 1) * each * pixels)


def reserved_bytes(pixels: int, encoding: Encoding, views: int = 1) -> int:
    """Return what a conversion takes besides the diffusion inpainter, if both use the memory of the machine.

    A larger frame never gives a smaller value, although stages do not overlap beyond 4K: `choose_plan` relies
    on it.
    """
    most = min(pixels, _LARGE_FRAME_PIXELS)
    second = (views - 1) * (_VIEW_FIXED_BYTES + _VIEW_WINDOW_BYTES)
    pipelined = (_DIFFUSION_PIXEL_BYTES + second) * most + encoder_bytes(most, encoding)
    single = (_LARGE_FIXED_BYTES + _LARGE_WINDOW_BYTES + second) * pixels + encoder_bytes(pixels, encoding)
    return _DIFFUSION_PROCESS_BYTES + (pipelined if is_pipelined(pixels) else max(pipelined, single))


def parent_bytes(settings: ConversionSettings, processes: int) -> int:
    """Return what the process takes that starts others; 0 if it does the work itself."""
    if processes == 1:
        return 0
    return _DIFFUSION_PROCESS_BYTES if settings.inpainter == "diffusion" else _PROCESS_BYTES


def is_pipelined(pixels: int) -> bool:
    """Return whether decoding, rendering and encoding overlap, with windows in queues between them."""
    return pixels <= _LARGE_FRAME_PIXELS
