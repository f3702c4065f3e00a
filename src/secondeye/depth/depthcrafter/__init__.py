"""DepthCrafter (Hu et al., arXiv 2409.02095): depth of long videos by Stable Video Diffusion, fine-tuned."""

from secondeye.depth.depthcrafter.estimator import DepthCrafter, DepthCrafterSettings, load_depthcrafter

__all__ = ["DepthCrafter", "DepthCrafterSettings", "load_depthcrafter"]
