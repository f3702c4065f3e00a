"""The modules of Stable Video Diffusion XT without their weights: for estimates of memory."""

from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from secondeye.inpaint.module_checks import LATENT_CHANNELS
from secondeye.inpaint.pipeline import StereoInpaintPipeline
from secondeye.inpaint.tiny import make_scheduler


def make_svd_shapes(frames: int, in_channels: int) -> StereoInpaintPipeline:
    """Return the pipeline of Stable Video Diffusion XT 1.1 with a widened input, as its configs give it.

    Initialised at random, which takes memory and time unless it is made on the meta device.
    """
    return StereoInpaintPipeline(
        AutoencoderKLTemporalDecoder(
            down_block_types=("DownEncoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=LATENT_CHANNELS,
            sample_size=768,
        ).eval(),
        CLIPVisionModelWithProjection(  # ViT-H/14
            CLIPVisionConfig(
                hidden_size=1280,
                intermediate_size=5120,
                projection_dim=1024,
                num_hidden_layers=32,
                num_attention_heads=16,
                image_size=224,
                patch_size=14,
            )
        ).eval(),
        UNetSpatioTemporalConditionModel(
            sample_size=96,
            in_channels=in_channels,
            block_out_channels=(320, 640, 1280, 1280),
            num_attention_heads=(5, 10, 20, 20),
            num_frames=frames,
        ).eval(),
        make_scheduler(),
    )
