"""CLIP image embeddings, preprocessed as in Stable Video Diffusion."""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

CLIP_SIDE_PX = 224
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def embed(
    image_encoder: CLIPVisionModelWithProjection,
    frames: Tensor,  # [N, 3, H, W] in [0, 1]
) -> Tensor:  # [N, D] float32
    """Return the CLIP embedding of each frame."""
    small = resize_for_clip(frames * 2 - 1) / 2 + 0.5
    mean, std = (small.new_tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    embedding: Tensor = image_encoder(((small - mean) / std).to(image_encoder.dtype)).image_embeds
    return embedding.float()


def resize_for_clip(
    frames: Tensor,  # [N, 3, H, W]
) -> Tensor:  # [N, 3, 224, 224]
    """Resize as Stable Video Diffusion does: Gaussian blur per side, then bicubic with aligned corners."""
    blurred = _blur(_blur(frames, 3), 2)
    return F.interpolate(blurred, (CLIP_SIDE_PX, CLIP_SIDE_PX), mode="bicubic", align_corners=True)


def _blur(frames: Tensor, axis: int) -> Tensor:
    factor = frames.shape[axis] / CLIP_SIDE_PX
    sigma = max((factor - 1) / 2, 0.001)
    radius = int(max(4 * sigma, 3)) // 2
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32, device=frames.device)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    shape = [1, 1, -1, 1] if axis == 2 else [1, 1, 1, -1]
    weights = (kernel / kernel.sum()).view(shape).expand(frames.shape[1], 1, -1, -1)
    padding = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
    return F.conv2d(F.pad(frames, padding, mode="reflect"), weights, groups=frames.shape[1])
