"""Stable Video Diffusion's network with an image embedding for every frame, as DepthCrafter has it."""

from typing import Any

import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor


class DepthNetwork(UNetSpatioTemporalConditionModel):
    """The same weights and config; only the forward pass takes other embeddings."""

    def forward(
        self,
        sample: Tensor,  # [B, T, 8, h, w]: noisy latents, latents of the frames; h, w multiples of 8
        timestep: Tensor,  # [] or [B], 0.25 * ln(sigma)
        encoder_hidden_states: Tensor,  # [B, T, D]: embeddings of the frames
        added_time_ids: Tensor,  # [B, 3]
        return_dict: bool = False,  # only False, which diffusers' other callers do not use
    ) -> tuple[Tensor]:  # [B, T, 4, h, w], velocity
        """Run one pass. Attention over time takes the first frame's embedding, as in the original."""
        assert not return_dict
        batch, frames = sample.shape[:2]
        sample = sample.to(self.conv_in.weight.dtype)
        embedding = self.time_embedding(self.time_proj(timestep.expand(batch)).to(sample.dtype))
        ids = self.add_time_proj(added_time_ids.flatten()).unflatten(0, (batch, -1)).flatten(1)
        embedding = embedding + self.add_embedding(ids.to(sample.dtype))
        given: dict[str, Any] = {
            "temb": embedding.repeat_interleave(frames, dim=0),
            "image_only_indicator": torch.zeros(batch, frames, dtype=sample.dtype, device=sample.device),
        }
        attending = given | {"encoder_hidden_states": encoder_hidden_states.flatten(0, 1)[:, None]}

        def inputs(block: Any) -> dict[str, Any]:
            return attending if getattr(block, "has_cross_attention", False) else given

        hidden = self.conv_in(sample.flatten(0, 1))
        skipped: tuple[Tensor, ...] = (hidden,)
        for block in self.down_blocks:
            hidden, outputs = block(hidden, **inputs(block))
            skipped += outputs
        hidden = self.mid_block(hidden, **attending)
        for block in self.up_blocks:
            count = len(block.resnets)
            hidden = block(hidden, res_hidden_states_tuple=skipped[-count:], **inputs(block))
            skipped = skipped[:-count]
        velocity = self.conv_out(self.conv_act(self.conv_norm_out(hidden)))
        return (velocity.unflatten(0, (batch, frames)),)
