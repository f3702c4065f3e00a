"""Small untrained pipelines that a CPU or a single GPU can train and run."""

import torch
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from secondeye.inpaint.module_checks import IN_CHANNELS, LATENT_CHANNELS
from secondeye.inpaint.pipeline import StereoInpaintPipeline

INITIAL_LOG_VARIANCE = -6.0
HEAD_CHANNELS = 32
TIME_CHANNELS = 32  # for each of the three time ids


def make_tiny(frames: int, in_channels: int = IN_CHANNELS) -> StereoInpaintPipeline:
    """Return a pipeline for CPUs with windows of `frames`, initialised by torch's random generator."""
    return StereoInpaintPipeline(
        make_autoencoder(4, (64, 128)),
        make_image_encoder(),
        make_network(
            frames, in_channels, (64, 64), sample_size=22
        ),  # 176 x 176 px, a little more than 128 x 224
        make_scheduler(),
    )


def make_small(frames: int, in_channels: int = IN_CHANNELS) -> StereoInpaintPipeline:
    """Return a pipeline of under 20 million weights for 288 x 512 px, initialised by torch's generator."""
    return StereoInpaintPipeline(
        make_autoencoder(2, (64, 96, 128)),
        make_image_encoder(),
        make_network(frames, in_channels, (64, 128, 160), sample_size=48),
        make_scheduler(),
    )


def make_autoencoder(
    patch_px: int,  # patches become channels: wide blocks are cheap, and fewer stages reach a latent
    widths: tuple[int, ...],  # channels of each stage, the patches' first
) -> AutoencoderKLTemporalDecoder:
    """Return an autoencoder. Widths below 64 would normalise single channels (GroupNorm has 32 groups),
    which removes brightness."""
    autoencoder = AutoencoderKLTemporalDecoder(
        in_channels=3 * patch_px**2,
        out_channels=3 * patch_px**2,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        sample_size=64,
        force_upcast=True,
    )
    with torch.no_grad():  # start with a small variance, or noise dominates the latents for a long time
        autoencoder.quant_conv.bias[LATENT_CHANNELS:] = INITIAL_LOG_VARIANCE
    return autoencoder.eval()


def make_image_encoder() -> CLIPVisionModelWithProjection:
    """Return a CLIP encoder of two narrow layers."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            projection_dim=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=224,
            patch_size=56,
        )
    ).eval()


def make_network(
    frames: int,
    in_channels: int,
    widths: tuple[int, ...],  # channels of each stage, the latents' first
    sample_size: int,  # square root of the number of latents per frame
) -> UNetSpatioTemporalConditionModel:
    """Return a UNet of Stable Video Diffusion's blocks, with attention in all stages but the first."""
    attending = len(widths) - 1
    return UNetSpatioTemporalConditionModel(
        sample_size=sample_size,
        in_channels=in_channels,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlockSpatioTemporal", *["CrossAttnDownBlockSpatioTemporal"] * attending),
        up_block_types=(*["CrossAttnUpBlockSpatioTemporal"] * attending, "UpBlockSpatioTemporal"),
        block_out_channels=widths,
        num_attention_heads=tuple(width // HEAD_CHANNELS for width in widths),
        addition_time_embed_dim=TIME_CHANNELS,
        projection_class_embeddings_input_dim=3 * TIME_CHANNELS,
        layers_per_block=1,
        cross_attention_dim=32,
        num_frames=frames,
    ).eval()


def make_scheduler() -> EulerDiscreteScheduler:
    """Return Stable Video Diffusion's scheduler: Karras sigmas 700 to 0.002, timesteps 0.25 ln(sigma)."""
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
