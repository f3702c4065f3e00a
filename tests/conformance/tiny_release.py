"""The release's modules in miniature, with the random weights behind the recorded arrays."""

from pathlib import Path
from typing import TypeVar

import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from secondeye.inpaint.tiny import make_scheduler

SEEDS = {"vae": 1000, "image_encoder": 1001, "unet": 1002, "inpainting": 1003, "depth": 1004}
Module = TypeVar("Module", bound=nn.Module)
EMBEDDING = 32  # channels of CLIP's embedding; 1024 in the release


def write_release(folder: Path) -> None:
    """The three folders as they are published; the first only in the names of half precision."""
    svd = folder / "stable-video-diffusion-img2vid-xt-1-1"
    make_autoencoder().save_pretrained(svd / "vae", variant="fp16")
    make_image_encoder().save_pretrained(svd / "image_encoder", variant="fp16")
    make_network(8, SEEDS["unet"]).save_pretrained(svd / "unet", variant="fp16")
    make_scheduler().save_pretrained(svd / "scheduler")
    (svd / "model_index.json").write_text('{"_class_name": "StableVideoDiffusionPipeline"}')
    network = make_network(9, SEEDS["inpainting"])
    network.save_pretrained(folder / "StereoCrafter" / "unet_diffusers")
    make_network(8, SEEDS["depth"]).save_pretrained(folder / "DepthCrafter")


def make_autoencoder() -> AutoencoderKLTemporalDecoder:
    module = AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * 4,
        block_out_channels=(32,) * 4,
        layers_per_block=1,
        latent_channels=4,
        sample_size=64,
        scaling_factor=0.18215,
        force_upcast=True,
    )
    return fill(module, SEEDS["vae"])


def make_image_encoder() -> CLIPVisionModelWithProjection:
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        projection_dim=EMBEDDING,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=224,
        patch_size=56,
        hidden_act="gelu",
    )
    return fill(CLIPVisionModelWithProjection(config), SEEDS["image_encoder"])


def make_network(in_channels: int, seed: int) -> UNetSpatioTemporalConditionModel:
    """The blocks of Stable Video Diffusion, four levels of two layers, as narrow as they go."""
    crossing_down, crossing_up = "CrossAttnDownBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"
    network = UNetSpatioTemporalConditionModel(
        sample_size=16,
        in_channels=in_channels,
        out_channels=4,
        down_block_types=(crossing_down, crossing_down, crossing_down, "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", crossing_up, crossing_up, crossing_up),
        block_out_channels=(32, 32, 64, 64),
        num_attention_heads=(2, 2, 4, 4),
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=3 * 32,
        layers_per_block=2,
        cross_attention_dim=EMBEDDING,
        transformer_layers_per_block=1,
        num_frames=25,
    )
    return fill(network, seed)


def fill(module: Module, seed: int) -> Module:
    """Random weights that pass signals on, in the order of their names."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(module.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            value = noise * (1.0 / parameter[0].numel()) ** 0.5
        elif name.endswith("weight"):
            value = 1 + 0.1 * noise
        else:
            value = 0.1 * noise
        parameter.data.copy_(value)
    return module.eval()
