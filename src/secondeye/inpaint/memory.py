"""How much memory the diffusion inpainter takes, from the sizes of its modules.

The factors of the modules were measured by adding up the tensors that are alive in Stable Video Diffusion's.
By this count its decoder takes 2.25 GiB per frame of 576 x 1024 px; on a GPU 17 GiB were measured for 8
frames, 8.4 for 4 and 4.2 for 2. The other factors were measured with benchmarks/memory.py.
"""

from collections.abc import Callable
from dataclasses import dataclass

import psutil
import torch

from secondeye.inpaint.autoencoder import patch_px
from secondeye.inpaint.pipeline import StereoInpaintPipeline
from secondeye.system.memory import free_memory_bytes

FREE_SHARE = 0.8  # of the free memory that is taken: the estimate does not include what libraries take
# Alive at the peak, of the first stage's width and a latent's size; networks with fewer stages have 15 to 26.
UNET_TENSORS = 27
DECODER_TENSORS = 8  # of the first stage's width and a pixel's size; the encoder has 5
FRAME_BYTES = 10  # of a waiting frame's pixel: both views in 8 bits, its coverage where open; their result
SMALL_BYTES = 16  # of a pixel at the working size: frames and mask in 8 bits, of this window and the last
# The same of each other shot that is inpainted in turn: source, disparity and result; its last window.
OTHER_FRAME_BYTES, OTHER_SMALL_BYTES = 10, 8
COMPOSED_BYTES = 20  # of a pixel of the one frame that is composed: float32, and copies of what is open
DECODED_BYTES = 36  # of a decoded pixel of a tile: float32, and two copies
CANVAS_BYTES = 12  # of a pixel at the working size, into which tiles are decoded: float32


def reserve_nothing(frame_px: int) -> int:
    """Return 0: the caller takes nothing of the memory that is planned."""
    return 0


@dataclass(frozen=True)
class MemoryModel:
    """What weights and activations take, and what the caller takes of the same memory."""

    weight_bytes: int  # at a time
    latent_bytes: int  # of the network, per latent and frame of a window
    pixel_bytes: int  # of the decoder, per pixel and frame of a group
    reserved_bytes: Callable[[int], int] = reserve_nothing  # of the caller, by the area of the film's frames
    shots: int = 1  # inpainted in turn

    def window_bytes(
        self,
        window_frames: int,
        frame_px: int,  # area of the film's frames
        working_px: int,  # area at the working size
    ) -> int:
        """Return what a window takes besides the weights and a pass, with what the caller takes."""
        others = self.shots - 1
        of_frame = FRAME_BYTES + others * OTHER_FRAME_BYTES
        of_small = SMALL_BYTES + others * OTHER_SMALL_BYTES
        waiting = window_frames * (of_frame * frame_px + of_small * working_px)
        return self.reserved_bytes(frame_px) + COMPOSED_BYTES * frame_px + waiting

    def pass_bytes(self, window_frames: int, tile_px: int) -> int:
        """Return what one pass of the network takes."""
        return self.latent_bytes * window_frames * tile_px // 64

    def decode_bytes(self, tile_px: int, working_px: int) -> int:
        """Return what decoding takes for each frame of a group."""
        return (self.pixel_bytes + DECODED_BYTES) * tile_px + CANVAS_BYTES * working_px


def measure_modules(
    pipeline: StereoInpaintPipeline,
    offload: bool,
    reserved_bytes: Callable[[int], int] = reserve_nothing,
    shots: int = 1,
) -> MemoryModel:
    """Return the memory model of a pipeline; with `offload` one module is on the GPU at a time."""
    unet, vae = pipeline.unet, pipeline.vae
    modules = (unet, vae, pipeline.image_encoder)
    weights = [sum(weight.nbytes for weight in module.parameters()) for module in modules]
    widths = vae.config.block_out_channels
    # On a CPU convolutions copy their input and output, most where the last stage's input is enlarged.
    width = max(widths[:2]) if pipeline.execution_device.type == "cpu" else widths[0]
    return MemoryModel(
        max(weights) if offload else sum(weights),
        UNET_TENSORS * unet.config.block_out_channels[0] * unet.dtype.itemsize,
        DECODER_TENSORS * width * vae.dtype.itemsize // patch_px(vae) ** 2,
        reserved_bytes,
        shots,
    )


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a device, what torch holds for reuse included."""
    if device.type != "cuda":
        return free_memory_bytes()
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + held


def room_bytes(
    device: torch.device,
    model: MemoryModel,
    budget_bytes: int | None,  # for all; None: a share of what is free
    offload: bool,
) -> int:
    """Return the memory for all but the weights: the caller's part, windows and passes."""
    if budget_bytes is not None:
        return budget_bytes - model.weight_bytes
    room = int(FREE_SHARE * free_bytes(device))
    if device.type == "cpu":  # what this process has taken already is part of the estimate
        return room + psutil.Process().memory_info().rss - model.weight_bytes
    return room - (model.weight_bytes if offload else 0)  # loaded weights are not part of the free memory
