"""What fits into the memory of this machine: frames at a time, and the plans of the diffusion inpainter."""

from functools import partial

import torch

from secondeye.conversion import memory
from secondeye.inpaint.choose_plan import Network, choose_plan
from secondeye.inpaint.memory import (
    DECODER_TENSORS,
    FREE_SHARE,
    UNET_TENSORS,
    MemoryModel,
    free_bytes,
    reserve_nothing,
)
from secondeye.inpaint.plan import GIB, InpaintPlan
from secondeye.inpaint.working_size import image_area_px
from secondeye.system.errors import UserError
from secondeye.system.memory import free_memory_bytes
from secondeye.system.text import pluralize
from secondeye.video.encoders import Encoding

SIZES = ((720, 1280), (1080, 1920), (1440, 2560), (2160, 3840))
# Stable Video Diffusion's modules: number of weights, channels of the first stage, config.
_UNET_WEIGHTS, _CLIP_WEIGHTS, _VAE_WEIGHTS = 1_524_625_962, 632_076_800, 97_742_847
_UNET_CHANNELS, _VAE_CHANNELS = 320, 128
_WINDOW_FRAMES, _SAMPLE_SIZE, _STEPS = 25, 96, 8


def describe_capacity(device: str) -> list[str]:
    """Return tables of what fits into the memory that is free now: a heading and one line per size each."""
    return [*_describe_frames(), *describe_diffusion(device)]


def _describe_frames() -> list[str]:
    usable_bytes = memory.FREE_SHARE * free_memory_bytes()
    rows = []
    for height, width in SIZES:
        frames = memory.frames_within(height * width, usable_bytes)
        gib = memory.estimate_bytes(height * width, frames) / GIB
        rows.append(f"  {width}x{height}: {pluralize(frames, 'frame')} at a time, {gib:.1f} GiB")
    return [f"fill and light in {usable_bytes / GIB:.1f} GiB of memory:", *rows]


def describe_diffusion(device: str) -> list[str]:
    """Return a heading and one line per size, for the memory that is free on the device now."""
    network = released_network(device)
    usable_bytes = int(FREE_SHARE * free_bytes(torch.device(device)))
    rows = []
    for height, width in SIZES:
        try:
            plan = choose_plan(height, width, network, None, usable_bytes - network.memory.weight_bytes)
        except UserError:
            rows.append(f"  {width}x{height}: does not fit; use the inpainter light")
        else:
            rows.append(f"  {width}x{height}: {_describe(plan)}")
    where = "GPU memory" if device == "cuda" else "memory"
    return [f"diffusion in {usable_bytes / GIB:.1f} GiB of {where}, weights as released:", *rows]


def released_network(device: str) -> Network:
    """Return what a plan must know of Stable Video Diffusion, loaded on a device."""
    dtype = torch.float16 if device == "cuda" else torch.float32
    halved, whole = dtype.itemsize, torch.float32.itemsize  # the autoencoder is never halved
    model = MemoryModel(
        weight_bytes=(_UNET_WEIGHTS + _CLIP_WEIGHTS) * halved + _VAE_WEIGHTS * whole,
        latent_bytes=UNET_TENSORS * _UNET_CHANNELS * halved,
        pixel_bytes=DECODER_TENSORS * _VAE_CHANNELS * whole * (1 if device == "cuda" else 2),
        reserved_bytes=reserve_nothing
        if device == "cuda"
        else partial(memory.reserved_bytes, encoding=Encoding()),
    )
    name = str(dtype).removeprefix("torch.")
    return Network(_WINDOW_FRAMES, image_area_px(_SAMPLE_SIZE), _STEPS, name, model)


def _describe(plan: InpaintPlan) -> str:
    size = "full size" if (plan.height, plan.width) == plan.frame_size else f"at {plan.width}x{plan.height}"
    return (
        f"{size}, {plan.tile_rows}x{plan.tile_columns} tiles, windows of {plan.window_frames} frames, "
        f"{plan.decode_frames} decoded together, {plan.memory_bytes / GIB:.1f} GiB"
    )
