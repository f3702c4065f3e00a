"""How much memory the diffusion inpainter takes, from the sizes of its modules.

The factors were measured by adding up the tensors that are alive in Stable Video Diffusion's modules. By this
count its decoder takes 2.25 GiB per frame of 576 x 1024 px; on a GPU 17 GiB were measured for 8 frames.
"""

from dataclasses import dataclass

import torch

from secondeye.inpaint.autoencoder import patch_px
from secondeye.inpaint.pipeline import StereoInpaintPipeline
from secondeye.system.memory import free_memory_bytes

FREE_SHARE = 0.8  # of the free memory that is taken: the estimate does not include what libraries take
UNET_TENSORS = (
    27  # of the first stage's width and a latent's size, alive at the peak; miniatures have 10 to 15
)
DECODER_TENSORS = 8  # of the first stage's width and a pixel's size; the encoder has 5
FRAME_BYTES = 10  # of a buffered frame's pixel: left and warped view in 8 bits, coverage in float32
SMALL_BYTES = (
    7 * 3
)  # of a pixel at the working size, in 8 bits: both views and the mask; kept, window, padded
DECODED_BYTES = 24  # of a decoded pixel: float32, and a copy


@dataclass(frozen=True)
class MemoryModel:
    """What weights and activations take."""

    weight_bytes: int  # at a time
    latent_bytes: int  # of the network, per latent and frame of a window
    pixel_bytes: int  # of the decoder, per pixel and frame of a group

    def window_bytes(
        self,
        window_frames: int,
        frame_px: int,  # area of the film's frames
        working_px: int,  # area at the working size
    ) -> int:
        """Return what a window takes besides the weights and a pass."""
        return window_frames * (FRAME_BYTES * frame_px + SMALL_BYTES * working_px)

    def pass_bytes(self, window_frames: int, tile_px: int) -> int:
        """Return what one pass of the network takes."""
        return self.latent_bytes * window_frames * tile_px // 64

    def decode_bytes(self, tile_px: int, working_px: int) -> int:
        """Return what decoding takes for each frame of a group."""
        return self.pixel_bytes * tile_px + DECODED_BYTES * working_px


def measure_modules(pipeline: StereoInpaintPipeline, offload: bool) -> MemoryModel:
    """Return the memory model of a pipeline; with `offload` one module is on the GPU at a time."""
    unet, vae = pipeline.unet, pipeline.vae
    modules = (unet, vae, pipeline.image_encoder)
    weights = [sum(weight.nbytes for weight in module.parameters()) for module in modules]
    patch = patch_px(vae)
    return MemoryModel(
        max(weights) if offload else sum(weights),
        UNET_TENSORS * unet.config.block_out_channels[0] * unet.dtype.itemsize,
        DECODER_TENSORS * vae.config.block_out_channels[0] * vae.dtype.itemsize // patch**2,
    )


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a device, what torch holds for reuse included."""
    if device.type != "cuda":
        return free_memory_bytes()
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + held
