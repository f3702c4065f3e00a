"""Settings of the diffusion sampler."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class SamplingConfig:
    """How latents are sampled. One-step networks ignore `steps` and add no noise.

    Raises ValueError for values out of range.
    """

    steps: int
    guidance: float | tuple[float, float]  # of all frames, or of the first and the last; none up to 1
    noise_share: float  # standard deviation of the noise added to the warped frames, which are in [-1, 1]
    keep_thin_holes: bool  # a latent is a hole if any of its pixels is; else if its top left one is
    decode_frames: int  # decoded together; more are steadier and take more memory
    even_groups: bool = True  # split decoded frames evenly; the release's last group has the remainder
    # What Stable Video Diffusion was trained with for every clip: frame rate and motion bucket.
    fps: float = 7.0
    motion: float = 127.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.decode_frames < 1:
            raise ValueError(
                f"steps and decode_frames must be 1 or more, got {self.steps} and {self.decode_frames}"
            )
        if not (math.isfinite(self.noise_share) and self.noise_share >= 0):
            raise ValueError(f"noise_share must be 0 or more, got {self.noise_share}")
        pair = self.guidance if isinstance(self.guidance, tuple) else (self.guidance, self.guidance)
        if len(pair) != 2 or not all(math.isfinite(value) for value in pair):
            raise ValueError(f"guidance must be a number or a pair of numbers, got {self.guidance}")


RELEASE_SAMPLING = SamplingConfig(
    steps=8, guidance=1.01, noise_share=0.0, keep_thin_holes=False, decode_frames=2, even_groups=False
)
"""The settings of the paper's released code."""
