"""The diffusion pipeline in a size that a processor can train and run."""

import torch
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from secondeye.inpaint.pipeline import IN_CHANNELS, LATENT_CHANNELS, StereoInpaintPipeline

PATCH_PX = 4  # pixels of a patch are its channels: wide blocks are cheap, and two sizes make a latent
FIRST_LOG_VARIANCE = -6.0


def make_tiny(frames: int) -> StereoInpaintPipeline:
    """Untrained modules small enough for a processor, seeing `frames` at once (ours); seed torch before.

    The kinds of blocks are Stable Video Diffusion's. No block is narrower than 64 channels: its normalisation
    has 32 groups, and of a group of one channel it would take away the brightness.
    """
    autoencoder = AutoencoderKLTemporalDecoder(
        in_channels=3 * PATCH_PX**2,
        out_channels=3 * PATCH_PX**2,
        down_block_types=("DownEncoderBlock2D",) * 2,
        block_out_channels=(64, 128),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        sample_size=64,
        force_upcast=True,
    )
    with torch.no_grad():  # of the latents' logarithmic variance: else noise drowns them for a long time
        autoencoder.quant_conv.bias[LATENT_CHANNELS:] = FIRST_LOG_VARIANCE
    encoder = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            projection_dim=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=224,
            patch_size=56,
        )
    )
    network = UNetSpatioTemporalConditionModel(
        sample_size=22,  # 176 x 176 px: 128 x 224 and a little
        in_channels=IN_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlockSpatioTemporal", "CrossAttnDownBlockSpatioTemporal"),
        up_block_types=("CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal"),
        block_out_channels=(64, 64),
        num_attention_heads=(2, 2),
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=96,
        layers_per_block=1,
        cross_attention_dim=32,
        num_frames=frames,
    )
    return StereoInpaintPipeline(autoencoder.eval(), encoder.eval(), network.eval(), make_schedule())


def make_schedule() -> EulerDiscreteScheduler:
    """Stable Video Diffusion's: Karras' sigmas from 700 to 0.002, velocities, times as 0.25 ln(sigma)."""
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        prediction_type="v_prediction",
        interpolation_type="linear",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
        timestep_spacing="leading",
        timestep_type="continuous",
        steps_offset=1,
    )
